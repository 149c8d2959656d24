"""What activations take: shapes without data are those with data, and formulas say what tensors really hold."""

import torch

from cad_exp.attribution import meta
from cad_exp.representations import NOISY_LATENT
from cad_exp.representations.activations import Noising, extract, observe
from cad_exp.representations.hookpoints import choose_hookpoints, find_hookpoints
from cad_exp.representations.sizes import Place, of_probes, of_tokens, places
from cad_exp.representations.tokens import Walking, walked

TWO = {"a": Place(100, 8), NOISY_LATENT: Place(256, 4)}


def bytes_of(tensors: dict[str, torch.Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors.values())


def test_places_without_data_are_those_with_data():
    from cad_exp.models.pipeline import DiffusionModel

    model, facts = DiffusionModel.load("mini", device="cpu"), meta.describe("mini")
    every = [each for each in find_hookpoints(model) if each.kind != "text"]
    empty = meta.denoiser(facts, "bf16")

    def call(network):
        args, kwargs = meta.inputs(network, facts, meta.latent(facts), 1, torch.device("meta"), torch.bfloat16)
        network(*args, **kwargs)

    latent = model.noise_like([0])
    found = places(empty, call, every, (latent[0, 0].numel(), latent.shape[1]))
    seen = observe(model, latent, torch.tensor([5]), model.encode([""]), every)
    assert {name: (each.positions, each.features) for name, each in found.items()} == {
        name: tuple(each.shape[1:]) for name, each in seen.items()
    }


def test_bytes_are_those_of_the_tensors(tiny_model):
    hookpoints = choose_hookpoints(tiny_model, [NOISY_LATENT, "mid_block.attentions.0"])
    seen = observe(tiny_model, tiny_model.noise_like([0]), torch.tensor([5]), tiny_model.encode([""]), hookpoints)
    found = {name: Place(*each.shape[1:]) for name, each in seen.items()}
    for positions in (2, "all", "mean"):
        tokens = walked(tiny_model, ["church"] * 3, range(3), hookpoints, Walking(2, 1.0), positions)
        size = of_tokens(found, images=3, reads=2, positions=positions, part=50, noised=False)
        assert size.disk == size.part == bytes_of(tokens.values), positions
    latents = tiny_model.noise_like([0, 1]).cpu()
    for pooling in ("mean", "grid", "map"):
        made = extract(tiny_model, latents, range(2), hookpoints, Noising((1, 9), draws=2), pooling=pooling)
        size = of_probes(found, images=2, times=2, draws=2, pooling=pooling, part=100, twice=False)
        assert size.disk == size.part == bytes_of(made), pooling


def test_tokens_by_hand():
    """40 images of 3 reads in parts of 10, all of them in memory at once; large parts one by one, thrice in fp64."""
    size = of_tokens(TWO, 40, 3, 16, part=10, noised=False)
    assert (size.places, size.disk) == (2, 40 * 3 * 16 * (8 + 4) * 4)
    assert size.part == 10 * 3 * 16 * 12 * 4 and size.work == 2 * 40 * 3 * 16 * 8 * 4
    noised = of_tokens(TWO, 40, 3, 16, part=10, noised=True)
    assert noised.part == 10 * 3 * (800 + 1024) * 4 and noised.disk == size.disk
    large = of_tokens({"a": Place(1024, 1280)}, 5000, 12, "all", part=50, noised=False)
    assert large.work == 3 * large.part == 3 * 50 * 12 * 1024 * 1280 * 4
    assert of_tokens(TWO, 4, 3, "mean", part=10, noised=False).disk == 4 * 3 * 12 * 4


def test_probes_by_hand():
    size = of_probes(TWO, 40, 5, 1, "mean", part=10, twice=True)
    each = (8 + 64 * 4) * 4
    assert (size.disk, size.part, size.work) == (40 * 5 * each * 2, 10 * 5 * each, 2 * 40 * 256 * 4)
    assert of_probes(TWO, 40, 5, 1, "grid", part=10, twice=False).disk == 40 * 5 * (64 * 8 + 64 * 4) * 4
