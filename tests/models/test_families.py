"""Every family of models on a tiny random pipeline of its own classes: components, gates, edits, samplers, images."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention import FeedForward
from torch import nn

from cad_exp.attribution.attribute import attribute
from cad_exp.attribution.game import Game, input_norms
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.data.noisy_latents import sample_noised, sample_trajectory
from cad_exp.interventions.edit import Edit
from cad_exp.interventions.selection import select
from cad_exp.interventions.spaces import CROSS, FF, FF_IN, JOINT, SELF, TEXT, find_sites, make_granularity, text_sites
from cad_exp.models.families.condition import Condition
from cad_exp.models.families.flux import Flux
from cad_exp.models.families.pixart import PixArt
from cad_exp.models.families.stable_diffusion import StableDiffusion
from cad_exp.models.families.stable_diffusion_3 import StableDiffusion3
from cad_exp.models.families.stable_diffusion_xl import StableDiffusionXL
from cad_exp.models.pipeline import DiffusionModel
from cad_exp.utils.errors import UserError
from tests.conftest import _tokenizer
from tests.tiny import BUILDERS, LARGER, build, sd3, sd14, sdxl

NAMES = tuple(BUILDERS)
CLASSES = {
    "sdxl": StableDiffusionXL,
    "sd3": StableDiffusion3,
    "sd3_without_t5": StableDiffusion3,
    "pixart": PixArt,
    "pixart_alpha": PixArt,
    "flux_schnell": Flux,
    "flux_dev": Flux,
}
# kind -> sites, heads and columns of the tiny pipelines, counted by hand from their configs (tests/tiny.py).
# SDXL: 1 down, 1 mid and 2 up transformers of 2 blocks each, 64 wide, 4 heads; feed-forward 4 x 64.
# SD3: 3 blocks, 32 wide, 4 heads; joint attention of both streams but for the last block's text; attn2 in the first.
# PixArt: 2 blocks, 48 wide, 4 heads. FLUX: 1 double block (both streams), 2 single ones; 32 wide, 4 heads.
COUNTS = {
    "sdxl": {SELF: (8, 32, 512), CROSS: (8, 32, 512), FF: (8, 0, 2048)},
    "sd3": {SELF: (1, 4, 32), JOINT: (5, 20, 160), FF: (5, 0, 640)},
    "pixart": {SELF: (2, 8, 96), CROSS: (2, 8, 96), FF: (2, 0, 384)},
    "flux": {JOINT: (4, 16, 128), FF: (4, 0, 512)},
}


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def folder(name, tmp_path_factory):
    return build(name, tmp_path_factory.mktemp(name) / "pipeline")


@pytest.fixture(scope="module")
def model(name, folder):
    guidance = 3.5 if name == "flux_dev" else 7.5
    return DiffusionModel.load(folder, device="cpu", name=name, steps=2, guidance=guidance, resolution=16)


@pytest.fixture(scope="module")
def sites(model):
    return find_sites(model.denoiser)


@pytest.fixture(scope="module")
def latents(model):
    return sample_trajectory(model, "church", "", seeds=[0], steps=2)


@pytest.fixture(scope="module")
def attribution(model, latents):
    return attribute(model, latents)


def test_found_by_class(name, model):
    assert type(model.family) is CLASSES[name] and model.resolution == 16
    assert model.prediction_type == ("flow" if CLASSES[name] in (StableDiffusion3, Flux) else "epsilon")
    assert not any(p.requires_grad for module in model.family.modules for p in module.parameters())


def test_sd3_has_a_place_for_t5_where_the_network_was_made_for_one(tmp_path):
    """Text tokens: 16 of the CLIPs, and 256 of T5 or zeros; none for a network as wide as the CLIPs side by side."""
    tokenizer = _tokenizer(tmp_path)
    lengths = {(True, 80): 272, (False, 80): 272, (True, 64): 272, (False, 64): 16}
    for (with_t5, width), length in lengths.items():
        model = DiffusionModel(sd3(tokenizer, with_t5, width), steps=2, resolution=16)
        assert model.encode(["church"]).text.shape == (1, length, width)
        x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        own = {"num_inference_steps": 2, "guidance_scale": 3.0, "height": 16, "width": 16, "output_type": "np"}
        theirs = model.pipe("church", latents=x, max_sequence_length=length - 16, **own).images
        ours = model.family.generate(["church"], x, 2, 3.0, [torch.Generator()], lambda *_: None)
        np.testing.assert_array_equal(ours, theirs)


def test_components_counted(name, model, sites):
    expected = next(counts for family, counts in COUNTS.items() if name.startswith(family))
    found = {}
    for site in sites:
        number, heads, columns = found.get(site.kind, (0, 0, 0))
        found[site.kind] = (number + 1, heads + site.heads, columns + site.shape[1])
        linear = model.denoiser.get_submodule(site.module)
        assert isinstance(linear, nn.Linear) and linear.weight.shape == (site.shape[0], site.width)
    assert found == expected
    for granularity in ("head", "neuron", "layer"):
        assert make_granularity(granularity).on(sites).table()["name"].is_unique


def test_every_output_projection_is_covered_once(model, sites):
    """No column belongs to two sites, and a Linear that has a site has no column without one."""
    taken = {site.module: torch.zeros(site.width) for site in sites}
    for site in sites:
        taken[site.module][site.columns] += 1
    assert all((columns == 1).all() for columns in taken.values())


def test_blocks_are_named(name, sites):
    blocks = list(dict.fromkeys(site.block for site in sites))
    if name.startswith("sd3"):
        assert blocks == [f"transformer_blocks.{i}{end}" for i in range(3) for end in ("", " (text)")][:-1]
    if name.startswith("flux"):
        singles = [f"single_transformer_blocks.{i}" for i in range(2)]
        assert blocks == ["transformer_blocks.0", "transformer_blocks.0 (text)", *singles]
    if name.startswith("pixart"):
        assert blocks == ["transformer_blocks.0", "transformer_blocks.1"]


def test_cross_attention_means_joint_attention_too(name, sites):
    asked, there = make_granularity("head", [CROSS]), {site.kind for site in sites}
    assert {site.kind for site in asked.sites(sites)} == {JOINT if JOINT in there else CROSS}
    if JOINT in there:
        assert {site.kind for site in make_granularity("head", [JOINT]).sites(sites)} == {JOINT}


@pytest.mark.parametrize("granularity", ["head", "neuron", "layer", "weight"])
def test_locate_and_back(granularity, sites):
    space = make_granularity(granularity).on(sites)
    chosen = torch.arange(space.n)[::7]
    located = space.locate(chosen)
    assert torch.equal(space.components(Edit(located)), chosen)
    scores = {s.module: torch.rand(s.shape[0], s.width) for s in sites}
    kept = 0.0
    for module, indices in located.items():
        assert torch.equal(indices, indices.sort().values) and len(indices.unique()) == len(indices)
        kept += (scores[module][:, indices] if space.unit == "column" else scores[module].flatten()[indices]).sum()
    torch.testing.assert_close(torch.as_tensor(kept), space.join(scores)[chosen].sum())


@pytest.mark.parametrize("granularity", ["head", "neuron"])
def test_gate_equals_zeroed_columns(granularity, model, sites, latents):
    """Of every kind of site: a gate of 0 and a weight with the columns zeroed predict the same, bit for bit."""
    objective, space = make_objective("erase", model, latents), make_granularity(granularity).on(sites)
    table = space.table()
    game, intact = Game(objective, space), objective.value()
    for _, row in table.groupby("module").last().reset_index().groupby("kind").first().iterrows():
        gates = torch.ones(game.n)
        gates[row["index"]] = 0
        weight = model.denoiser.get_submodule(table["module"][row["index"]]).weight
        old = weight.data.clone()
        weight.data[:, row["start"] : row["stop"]] = 0
        zeroed = objective.value()
        weight.data = old
        assert game.value(gates) == zeroed != intact


def test_many_ablations_in_one_pass(model, sites, latents):
    """Replayed blocks and per-row gates give what one ablation at a time gives, in every kind of layer."""
    game = Game(make_objective("erase", model, latents, batch_size=3), make_granularity("layer").on(sites))
    gates = 1 - torch.eye(game.n)[:: max(1, game.n // 8)]
    singly = [game.value(row) for row in gates]
    assert game.values(gates).tolist() == pytest.approx(singly, rel=1e-4)
    mean = Game(make_objective("erase", model, latents, ablation="resample"), make_granularity("layer").on(sites))
    assert mean.values(gates[:2]).tolist() == pytest.approx([mean.value(row) for row in gates[:2]], rel=1e-4)


def test_scores_sum(attribution, sites):
    """A component's score is the sum of its weights' scores, whatever the granularity."""
    layers = attribution.scores["layer"]
    assert layers.abs().sum() > 0
    per_site = torch.stack([piece.sum() for piece in attribution.scores["weight"].split([s.size for s in sites])])
    torch.testing.assert_close(per_site, layers, atol=1e-7, rtol=1e-4)
    for granularity, kinds in (("head", (SELF, CROSS, JOINT)), ("neuron", (FF,))):
        pieces = attribution.scores[granularity].split(attribution.space(granularity).parts)
        own = torch.stack([layer for layer, s in zip(layers, sites, strict=True) if s.kind in kinds])
        torch.testing.assert_close(torch.stack([p.sum() for p in pieces]), own, atol=1e-7, rtol=1e-4)


def test_first_projections_of_feed_forward_blocks(attribution, model, sites, latents):
    """Found in every family, scored beside all else without changing a digit of it, and edited as any weight."""
    both = make_granularity("weight", [FF_IN, FF])
    scored = attribute(model, latents, granularities=[both, "neuron"])
    first = [site for site in scored.sites if site.kind == FF_IN]
    outputs = [site for site in sites if site.kind == FF]
    assert len(first) == len(outputs) and {site.block for site in first} == {site.block for site in outputs}
    assert torch.equal(scored.scores["neuron"], attribution.scores["neuron"])
    own = attribution.narrow("weight", [FF]).scores["weight"]
    assert torch.equal(scored.narrow("weight", [FF]).scores["weight"], own)
    mine = scored.narrow("weight", [FF_IN])
    edit = select(mine, "weight", ratio=0.01, scope="row")
    assert set(edit.indices) <= {site.module for site in first} and edit.meta["achieved"] > 0
    game, before = Game(make_objective("erase", model, latents), both.on(scored.sites)), model.fingerprint()
    gates = torch.ones(game.n)
    gates[both.on(scored.sites).components(edit)] = 0
    with edit.apply(model):
        edited = Game(make_objective("erase", model, latents), both.on(scored.sites)).intact
    assert edited == pytest.approx(game.value(gates), rel=1e-5) and edited != game.intact
    assert model.fingerprint() == before


def test_first_order_score_is_the_gates_slope(attribution, model, sites, latents):
    game = Game(make_objective("erase", model, latents), make_granularity("head").on(sites))
    strongest = int(attribution.scores["head"].abs().argmax())
    values = []
    for gate in (0.95, 1.05):
        gates = torch.ones(game.n)
        gates[strongest] = gate
        values.append(game.value(gates))
    assert (values[1] - values[0]) / 0.1 == pytest.approx(float(attribution.scores["head"][strongest]), rel=0.02)


def test_edit_undo_export(attribution, model, tmp_path):
    edit, before = select(attribution, "neuron", ratio=0.1), model.fingerprint()
    heads = select(attribution, "head", count=3)
    old = {key: tensor.clone() for key, tensor in model.denoiser.state_dict().items()}
    with edit.apply(model), heads.apply(model):
        changed = {key for key, tensor in model.denoiser.state_dict().items() if not torch.equal(tensor, old[key])}
        assert changed == {f"{module}.weight" for module in {**edit.indices, **heads.indices}}
    assert model.fingerprint() == before
    edit = Edit.load(edit.save(tmp_path / "edit.safetensors"))
    edit.export(model, tmp_path / "edited")
    assert model.fingerprint() == before
    plain = type(model.denoiser).from_pretrained(tmp_path / "edited", subfolder=denoiser_folder(model))
    again = DiffusionModel.load(tmp_path / "edited", device="cpu", resolution=16)
    with edit.apply(model):
        for key, tensor in model.denoiser.state_dict().items():
            assert torch.equal(tensor, plain.state_dict()[key])
            assert torch.equal(tensor, again.denoiser.state_dict()[key])


def denoiser_folder(model):
    return "unet" if hasattr(model.pipe, "unet") else "transformer"


def test_base_prompt_differs_from_the_concept(latents, model):
    """Objectives of distilled models have the base prompt's prediction too."""
    assert (latents.cond - latents.base).abs().max() > 1e-4
    assert latents.t.dtype == torch.int64 and latents.x.shape[1:] == model.noise_like([0]).shape[1:]


def test_pixart_ignores_padding(name, model):
    """Which is what the attention mask is for: padded tokens have states, but nobody attends to them."""
    if not name.startswith("pixart"):
        pytest.skip("no mask")
    condition, x, t = model.encode(["church"]), model.noise_like([0]), torch.tensor([500])
    mask = condition.extras["mask"].bool()
    other = Condition(torch.where(mask[..., None], condition.text, 5.0), condition.extras)
    assert mask.sum() == len("church") + 1
    torch.testing.assert_close(model.predict(x, t, other), model.predict(x, t, condition))
    unmasked = Condition(condition.text, {"mask": torch.ones_like(condition.extras["mask"])})
    assert not torch.allclose(model.predict(x, t, unmasked), model.predict(x, t, condition), atol=1e-4)


def test_condition_of_one_row_stands_for_all(model):
    x, t = model.noise_like([0, 1]), torch.tensor([400, 400])
    condition = model.encode(["church", "tench"])
    first, second = condition.split(1)
    both = model.predict(x, t, condition)
    torch.testing.assert_close(both[:1], model.predict(x, t, first)[:1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both[1:], model.predict(x, t, second)[1:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.predict(x, t, Condition.cat([first, second])), both)


def test_perfect_prediction_gives_the_image_back(model):
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(5, *model.noise_like([0]).shape[1:], generator=generator) for _ in range(2))
    t = model.timesteps(torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0]))
    assert t.diff().min() > 0 and t.max() <= 1000
    x = model.add_noise(latents, noise, t)
    found = model.predicted_x0(x, t, model.target(latents, noise, t))
    torch.testing.assert_close(found, latents, atol=1e-4, rtol=1e-4)


def test_sampler_reaches_the_image_of_a_perfect_network(model):
    """With the true target at every step, the last step ends at the clean latents."""
    latents, noise = (model.noise_like([seed]) for seed in (0, 1))
    sampler = model.sampler(4)
    x = model.add_noise(latents, noise, sampler.timesteps[:1])
    for t in sampler.timesteps:
        torch.testing.assert_close(x, model.add_noise(latents, noise, t.view(1)), atol=1e-4, rtol=1e-4)
        x = sampler.step(model.target(latents, noise, t.view(1)), t, x).prev_sample
    assert (x - latents).abs().max() < 0.15  # DDIM's last step leaves the noise of timestep 0


@pytest.mark.parametrize("guidance", [3.0])
def test_trajectory_is_the_pipelines_own(model, guidance, name):
    """Prompts, conditions, guidance and sampler agree with diffusers: its own call ends at the same latents.

    The pipelines of diffusion families are given DDIM for it; flow times are rounded to thousandths here.
    """
    steps, own = 4, model.pipe.scheduler
    *_, last = model.trajectory("church", "", [5], steps, guidance)
    direction = last.base + model.family.steering(guidance) * (last.cond - last.base)
    ours = model.sampler(steps).step(direction, last.t, last.x).prev_sample
    told = {"num_inference_steps": steps, "output_type": "latent", "height": 16, "width": 16}
    if name.startswith("pixart"):
        told |= {"use_resolution_binning": False, "clean_caption": False}
    if name.startswith("flux"):
        told |= {"max_sequence_length": model.family.length}
    told["guidance_scale"] = model.guidance if name == "flux_dev" else guidance
    if model.prediction_type != "flow":
        model.pipe.scheduler = DDIMScheduler.from_config(model.family.schedule.config)
    try:
        theirs = model.pipe("church", latents=model.family.packed(model.noise_like([5])), **told).images
    finally:
        model.pipe.scheduler = own
    theirs = model.family.output(theirs, ours) if name.startswith("flux") else theirs
    atol = 5e-3 if model.prediction_type == "flow" else 1e-4 * float(theirs.abs().max())
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-3)


def test_distilled_trajectories_are_unguided(name, model):
    def walk(guidance):
        return torch.stack([step.x for step in model.trajectory("church", "", [0], 2, guidance)])

    if name.startswith("flux"):
        assert torch.equal(walk(7.5), walk(1.0)) and not torch.equal(walk(0.0), walk(1.0))
    else:
        assert not torch.equal(walk(7.5), walk(1.0))


def test_flow_grid_is_the_schedulers(model):
    """Our times are the pipeline's own noise levels in whole thousandths, and one Euler step is the scheduler's."""
    if model.prediction_type != "flow":
        pytest.skip("not a flow model")
    sigmas = model.family.schedule.sigmas(5, model.family.tokens(16))
    sampler = model.sampler(5)
    assert (sampler.timesteps / 1000 - sigmas).abs().max() <= 5.001e-4 and sampler.timesteps[0] == 1000
    x, v = model.noise_like([0]), model.noise_like([1])
    expected = x + (sigmas[1] - sigmas[0]) * v
    torch.testing.assert_close(sampler.step(v, 1000, x).prev_sample, expected, atol=3e-3, rtol=0)
    with pytest.raises(UserError, match="use 1 to 1000"):
        model.sampler(1001)


def test_noised_latents(model):
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    latents = sample_noised(model, "church", images=images, n=2)
    value = make_objective("amplify", model, latents).value()
    assert latents.target.shape == latents.x.shape and np.isfinite(value) and value < 0


def test_images(model):
    """A seed's image does not depend on its batch; latents go through the VAE's shift and scale and back."""
    images = model.generate(["church", "tench"], [1, 2])
    alone = model.generate(["tench"], [2])
    assert images.shape == (2, 16, 16, 3) and np.abs(images[1].astype(int) - alone[0]).max() <= 1
    config, latents = model.pipe.vae.config, model.encode_images(images)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        raw = model.pipe.vae.encode(pixels).latent_dist.mode()
    expected = (raw - (config.shift_factor or 0)) * config.scaling_factor
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.family.unscaled(latents), raw, atol=1e-5, rtol=1e-4)


def test_progress_counts_every_step(model):
    seen = []
    model.generate(["church"] * 2, [0, 1], batch_size=1, progress=lambda *count: seen.append(count))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_half_precision(name, folder):
    """Predictions and scores of a half-precision model are fp32, and finite."""
    model = DiffusionModel.load(folder, device="cpu", precision="bf16", name=name, steps=2, resolution=16)
    latents = sample_trajectory(model, "church", "", seeds=[0], steps=2)
    scores = attribute(model, latents).scores["head"]
    assert model.dtype == torch.bfloat16 and latents.cond.dtype == scores.dtype == torch.float32
    assert torch.isfinite(scores).all() and scores.abs().sum() > 0
    assert model.decode(model.noise_like([0])).dtype == torch.float32


def test_resolution_must_fit(folder, name):
    with pytest.raises(UserError, match="resolution=17 does not fit .*: use a multiple of"):
        DiffusionModel.load(folder, device="cpu", name=name, resolution=17)


def test_turbo_runs_without_guidance(tmp_path):
    """SDXL-Turbo is told by its recipe: guidance 0."""
    model = DiffusionModel.load(build("sdxl", tmp_path / "p"), device="cpu", steps=1, guidance=0.0)
    plain = DiffusionModel.load(tmp_path / "p", device="cpu", steps=1, guidance=7.5)
    assert model.family.distilled and not plain.family.distilled
    latents = sample_trajectory(model, "church", "", seeds=[0], steps=2, guidance=3.0)
    unguided = sample_trajectory(plain, "church", "", seeds=[0], steps=2, guidance=1.0)
    torch.testing.assert_close(latents.x, unguided.x)
    assert torch.equal(latents.base, unguided.base) and (latents.cond - latents.base).abs().max() > 1e-4
    assert np.array_equal(model.generate(["church"], [0], guidance=9.0), plain.generate(["church"], [0], guidance=0.0))


def test_xl_empty_prompt_is_zeros(tmp_path):
    model = DiffusionModel.load(build("sdxl", tmp_path / "p"), device="cpu")
    said, empty = model.encode(["church", ""]).split(1)
    assert empty.text.abs().max() == empty.extras["pooled"].abs().max() == 0 < said.text.abs().min()


def test_guidance_number_of_flux_dev(tmp_path):
    """The network is told the model's guidance, so predictions depend on it."""
    folder = build("flux_dev", tmp_path / "p")
    low, high = (DiffusionModel.load(folder, device="cpu", guidance=g, resolution=16) for g in (1.0, 9.0))
    x, t = low.noise_like([0]), torch.tensor([500])
    assert not torch.allclose(low.predict(x, t, low.encode(["a"])), high.predict(x, t, high.encode(["a"])), atol=1e-4)


def test_flux_packing_is_the_pipelines(tmp_path):
    from diffusers import FluxPipeline

    model = DiffusionModel.load(build("flux_schnell", tmp_path / "p"), device="cpu", resolution=16)
    x = torch.randn(2, 4, 8, 12)
    packed = model.family.packed(x)
    assert torch.equal(packed, FluxPipeline._pack_latents(x, 2, 4, 8, 12))
    assert torch.equal(model.family.output(packed, x), x)


def test_unsupported_pipeline(tiny_folder):
    pipe = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    assert isinstance(DiffusionModel(pipe).family, StableDiffusion)
    inpainting = UNet2DConditionModel(sample_size=8, in_channels=9, block_out_channels=(32,) * 4, norm_num_groups=8)
    pipe.unet = inpainting
    with pytest.raises(UserError, match="'odd' is of a kind that is not supp.*Stable Diffusion XL.*PixArt, FLUX.1"):
        DiffusionModel(pipe, "odd")
    with pytest.raises(UserError, match="not supported"):
        DiffusionModel(object(), "odd")


def test_condition_rows():
    condition = Condition(torch.arange(6.0).view(2, 3, 1), {"mask": torch.tensor([[1, 1, 0], [1, 0, 0]])})
    assert len(condition[1]) == 1 and condition[1].extras["mask"].tolist() == [[1, 0, 0]]
    assert condition[-1].text.flatten().tolist() == [3, 4, 5]
    assert condition[torch.tensor([1, 1, 0])].text[:, 0, 0].tolist() == [3, 3, 0]
    assert condition.repeat_interleave(2).text[:, 0, 0].tolist() == [0, 0, 3, 3]
    assert condition[0].expand(4).extras["mask"].shape == (4, 3) and condition.expand(2) is condition
    half = condition.to(torch.device("cpu"), torch.float16)
    assert half.text.dtype == torch.float16 and half.extras["mask"].dtype == torch.int64
    with pytest.raises(ValueError, match="2 rows cannot stand for 3"):
        condition.expand(3)
    with pytest.raises(IndexError):
        condition[2]


def test_sd14_counts():
    """Stable Diffusion 1.4's true configuration, on the meta device: the numbers of the literature."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    sites = find_sites(unet)
    assert make_granularity("head").on(sites).n == 256
    assert make_granularity("neuron").on(sites).n == 49_920
    blocks = [module for module in unet.modules() if isinstance(module, FeedForward)]
    matrices = [layer for block in blocks for layer in block.modules() if isinstance(layer, nn.Linear)]
    assert len(matrices) == 32 and sum(layer.weight.numel() for layer in matrices) == 148_684_800
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    assert {site.kind for site in sites} == {SELF, CROSS, FF}


def test_plain_diffusers_loads_what_was_saved(folder, name):
    """The tiny pipelines are ordinary checkpoints."""
    if name == "sd3_without_t5":
        pipe = DiffusionPipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
    else:
        pipe = DiffusionPipeline.from_pretrained(folder)
    assert isinstance(DiffusionModel(pipe, resolution=16).family, CLASSES[name])


CLIPS = {"sdxl": 2, "sd3": 2, "sd3_without_t5": 2, "flux_schnell": 1, "flux_dev": 1}


def test_text_encoders_components(name, model, latents, tmp_path):
    """Heads and neurons of CLIP: gates act through the prompt, scores sum, an edit applies, undoes and exports.

    Every tiny CLIP has two layers of 4 heads and 64 hidden units.
    """
    if name not in CLIPS:
        with pytest.raises(UserError, match="no CLIP text encoder"):
            attribute(model, latents, granularities=[make_granularity("layer", TEXT)])
        return
    found = text_sites(model.pipe)
    number = CLIPS[name]
    assert make_granularity("head", TEXT[:1]).on(found).n == number * 2 * 4
    assert make_granularity("neuron", TEXT[1:]).on(found).n == number * 2 * 64
    assert found[0].block == "text_encoder.layers.0" and make_granularity("head").on(found).n == 0
    cuts = [make_granularity("weight", TEXT), make_granularity("layer", TEXT), make_granularity("head", TEXT[:1])]
    result = attribute(model, latents, granularities=cuts)
    assert {site.kind for site in result.sites} == set(TEXT) and result.scores["layer"].abs().sum() > 0
    per_site = torch.stack([piece.sum() for piece in result.scores["weight"].split([s.size for s in found])])
    torch.testing.assert_close(per_site, result.scores["layer"], atol=1e-7, rtol=1e-4)

    game = Game(make_objective("erase", model, latents), cuts[2].on(found))
    strongest = int(result.scores["head"].abs().argmax())
    gates = torch.ones(2, game.n)
    gates[0, strongest] = 0
    ablated, intact = game.value(gates[0]), game.value(gates[1])
    assert intact == pytest.approx(game.intact) and ablated != intact
    assert game.values(gates).tolist() == pytest.approx([ablated, intact], rel=1e-4)
    table = cuts[2].on(found).table().loc[strongest]
    edit = Edit({table["module"]: torch.arange(table["start"], table["stop"])})
    part, inner = table["module"].split(":")
    before = {key: tensor.clone() for key, tensor in getattr(model.pipe, part).state_dict().items()}
    with edit.apply(model):
        assert make_objective("erase", model, latents).value() == pytest.approx(ablated, rel=1e-5)
    after = getattr(model.pipe, part).state_dict()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    edit.export(model, tmp_path / "edited")
    again = DiffusionModel.load(tmp_path / "edited", device="cpu", resolution=16)
    weight = getattr(again.pipe, part).get_submodule(inner).weight
    assert (weight[:, table["start"] : table["stop"]] == 0).all() and (weight != 0).any()


def test_text_and_denoiser_together(tiny_model, tiny_latents):
    """Ablations of both in one batch equal single ones; activation swaps are refused where they mean nothing."""
    sites = [*text_sites(tiny_model.pipe), *find_sites(tiny_model.denoiser)]
    cut = make_granularity("layer", [*TEXT, CROSS])
    game = Game(make_objective("projection", tiny_model, tiny_latents[:3], 4), cut.on(sites))
    gates = 1 - torch.eye(game.n)
    assert game.values(gates).tolist() == pytest.approx([game.value(row) for row in gates], rel=1e-4, abs=1e-5)
    with pytest.raises(UserError, match="ablation resample is not for text encoders"):
        Game(make_objective("erase", tiny_model, tiny_latents[:3], ablation="resample"), cut.on(sites)).value(gates[0])
    with pytest.raises(UserError, match="activations of text encoders are not measured"):
        input_norms(game, game.objective.concept)
    assert "forward" not in vars(tiny_model.pipe.text_encoder.get_submodule(sites[0].module.split(":")[1]))


def test_autoencoder_that_overflows_in_half_precision(tmp_path):
    """SDXL's VAE says `force_upcast`: in fp16 latents are made and decoded in fp32, by a copy."""
    model = DiffusionModel.load(build("sdxl", tmp_path / "p"), device="cpu", precision="fp16")
    full = DiffusionModel.load(tmp_path / "p", device="cpu")
    assert full.family.autoencoder is full.pipe.vae and model.pipe.vae.dtype == torch.float16
    assert model.family.autoencoder.dtype == torch.float32
    latents = model.noise_like([0])
    torch.testing.assert_close(model.decode(latents), full.decode(latents), atol=0.02, rtol=0.05)


def distilled(build_pipe, tokenizer):
    """A tiny pipeline whose UNet is told its guidance, as those of latent consistency models are."""
    pipe = build_pipe(tokenizer)
    torch.manual_seed(0)
    # without the private keys: they list values left at their defaults, which would overrule the given one
    told = {key: value for key, value in pipe.unet.config.items() if not key.startswith("_")}
    pipe.register_modules(unet=UNet2DConditionModel.from_config(told | {"time_cond_proj_dim": 8}))
    return pipe


DISTILLED = {"sd14_lcm": sd14, "sdxl_lcm": sdxl}


@pytest.mark.parametrize("name", [*NAMES, "sd14", *DISTILLED])
def test_the_network_is_told_what_the_pipeline_tells_it(name, tmp_path):
    """The pipeline's own call of the network, recorded: ours at its latents, time and prompt is the same, all of it."""
    tokenizer = _tokenizer(tmp_path)
    pipe = distilled(DISTILLED[name], tokenizer) if name in DISTILLED else (BUILDERS | LARGER)[name](tokenizer)
    pipe.safety_checker = None
    side = 16 if name in NAMES or name.startswith("sdxl") else 64
    model = DiffusionModel(pipe, name, steps=2, guidance=3.5, resolution=side)
    calls = []
    hook = model.denoiser.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    try:
        model.generate(["church"], [0])
        (args, theirs), *_ = calls
        x = (args[0] if args else theirs["hidden_states"])[-1:]
        packed = isinstance(model.family, Flux)
        latents = model.family.output(x, model.noise_like([0])) if packed else x
        time = args[1] if len(args) > 1 else theirs["timestep"] * (1000 if packed else 1)
        calls.clear()
        ours = model.predict(latents, time.reshape(-1)[-1:], model.encode(["church"]))
    finally:
        hook.remove()
    [(_, mine)] = calls
    with torch.no_grad():
        rows = {
            key: last_row(value, len(args[0]) if args else len(theirs["hidden_states"]))
            for key, value in theirs.items()
        }
        given = (x, time.reshape(-1)[-1:]) if len(args) > 1 else (x,) if args else ()
        expected = model.denoiser(*given, **rows | {"return_dict": False})[0]
    torch.testing.assert_close(ours, model.family.output(expected, latents).float(), atol=1e-6, rtol=1e-5)
    left_out = ("return_dict", "hidden_states")
    told = {key for key, value in theirs.items() if value is not None and not is_empty(value)}.difference(left_out)
    assert told <= {key for key, value in mine.items() if value is not None}
    assert ("timestep_cond" in told) == (name in DISTILLED)


def is_empty(value) -> bool:
    return isinstance(value, dict) and not value


def last_row(value, rows: int):
    """Of what a call of the network was told for `rows` rows, what it was told for the last: the prompt's own."""
    if isinstance(value, dict):
        return {key: last_row(item, rows) for key, item in value.items()}
    batched = isinstance(value, torch.Tensor) and value.ndim and len(value) == rows
    return value[-1:] if batched else value


def test_a_network_that_is_told_its_guidance_is_told_the_models(tmp_path):
    """Predictions depend on model.guidance, trajectories follow the prompt alone, images obey what is asked."""
    models = [
        DiffusionModel(distilled(sdxl, _tokenizer(tmp_path)), guidance=g, resolution=16, steps=2) for g in (1.0, 9.0)
    ]
    x, t = models[0].noise_like([0]), torch.tensor([500])
    low, high = (model.predict(x, t, model.encode(["a"])) for model in models)
    assert models[0].family.distilled and (low - high).abs().max() > 1e-4
    walks = [torch.stack([step.x for step in models[0].trajectory("a", "", [0], 2, g)]) for g in (7.5, 1.0, 0.0)]
    assert torch.equal(walks[0], walks[1]) and not torch.equal(walks[1], walks[2])
    made = models[0].pipe(
        ["a"], latents=x, num_inference_steps=2, guidance_scale=9.0, height=16, width=16, output_type="np"
    )
    assert np.array_equal((made.images * 255).round().astype(np.uint8), models[0].generate(["a"], [0], guidance=9.0))
