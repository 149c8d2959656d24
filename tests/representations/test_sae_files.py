"""Files of autoencoders: nothing is lost, and what is damaged or foreign is answered in plain words."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from cad_exp.representations.sae.files import CONFIG, WEIGHTS, load, save
from cad_exp.representations.sae.selection import BatchTopK, Threshold, TopK
from cad_exp.utils.errors import UserError
from tests.representations.test_sae import random_autoencoder

FACTS = {"site": "mid_block", "tokens": 1000, "seed": 3}


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "sae", random_autoencoder(TopK(4)), FACTS)
    return tmp_path / "sae"


@pytest.mark.parametrize("selects", [TopK(4), Threshold(0.0), Threshold(0.1), Threshold(1.7320508)])
def test_round_trip(tmp_path, selects):
    """All weights bit for bit, and the same codes of every token."""
    sae = random_autoencoder(selects)
    save(tmp_path / "sae", sae, FACTS)
    found, facts = load(tmp_path / "sae")
    assert facts == FACTS and all(torch.equal(found.tensors[name], sae.tensors[name]) for name in sae.tensors)
    x = torch.randn(500, 6)
    mine, theirs = sae.encode(x), found.encode(x)
    assert torch.equal(mine.latents, theirs.latents) and torch.equal(mine.values, theirs.values)
    assert torch.equal(mine.starts, theirs.starts) and torch.equal(sae.decode(mine), found.decode(theirs))
    before = {file.name: file.read_bytes() for file in (tmp_path / "sae").iterdir()}
    save(tmp_path / "sae", found, facts)
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "sae").iterdir()}
    assert set(before) == {CONFIG, WEIGHTS}


def test_what_is_at_a_threshold_acts_on_both_sides_of_a_file(tmp_path):
    """Ours acts from the threshold on: the value itself, but not the next smaller one."""
    exact = torch.tensor(0.7)
    sae = random_autoencoder(Threshold(float(exact)))
    save(tmp_path, sae, {})
    found = load(tmp_path)[0].selects
    pre = torch.stack([exact, torch.nextafter(exact, torch.tensor(0.0))])[None]
    assert found.select(pre).latents.tolist() == sae.selects.select(pre).latents.tolist() == [0]
    assert bool((load_file(tmp_path / WEIGHTS)["threshold"] < exact).all())


def test_the_layout(folder):
    """What SAELens asks for: names, shapes, keys."""
    config = json.loads((folder / CONFIG).read_text())
    assert config["architecture"] == "topk" and (config["k"], config["d_in"], config["d_sae"]) == (4, 6, 20)
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(folder / WEIGHTS).items()}
    assert shapes == {"W_enc": (6, 20), "b_enc": (20,), "W_dec": (20, 6), "b_dec": (6,)}


def test_what_is_not_trained_is_not_saved(tmp_path):
    with pytest.raises(UserError, match="save the trained"):
        save(tmp_path, random_autoencoder(BatchTopK(4)), {})
    assert not (tmp_path / WEIGHTS).exists()


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_missing_files(folder, name: str):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"there is no .*{name}"):
        load(folder)


class Trap:
    """Fails the test when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize("content", [b"", b"nothing", pickle.dumps(Trap()), b"\x00" * 64])
def test_damaged_weights(folder, content: bytes):
    """Cut off, foreign, or a pickle that would run code: always the same answer."""
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        load(folder)


def test_a_file_that_is_cut_off(folder):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-5])
    with pytest.raises(UserError, match="is damaged"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "answer"), [("{", "is damaged"), ("\xff", "is damaged"), ("[1]", "holds no settings")]
)
def test_damaged_settings(folder, text: str, answer: str):
    (folder / CONFIG).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=answer):
        load(folder)


@pytest.mark.parametrize(
    ("changed", "answer"),
    [
        ({"architecture": "gated"}, "'gated': topk"),
        ({"k": 0}, "topk \\(with its k\\)"),
        ({"k": "many"}, "topk \\(with its k\\)"),
        ({"architecture": "jumprelu"}, "jumprelu"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations=none"),
        ({"apply_b_dec_to_input": False}, "apply_b_dec_to_input=true"),
    ],
)
def test_foreign_settings(folder, changed: dict, answer: str):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changed))
    with pytest.raises(UserError, match=answer):
        load(folder)


@pytest.mark.parametrize(
    ("changed", "answer"),
    [
        ({"W_dec": None}, "has no W_dec"),
        ({"b_enc": torch.zeros(3)}, "do not fit one another"),
        ({"W_enc": torch.zeros(20, 6)}, "do not fit one another"),
        ({"W_dec": torch.zeros(120)}, "do not fit one another"),
    ],
)
def test_foreign_weights(folder, changed: dict, answer: str):
    tensors = {name: tensor for name, tensor in (load_file(folder / WEIGHTS) | changed).items() if tensor is not None}
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(UserError, match=answer):
        load(folder)


def test_a_threshold_for_each_latent(tmp_path):
    save(tmp_path, random_autoencoder(Threshold(0.5)), {})
    for other, answer in (
        (torch.arange(20.0), "for each latent"),
        (torch.ones(3), "not fit"),
        (torch.ones(0), "not fit"),
    ):
        save_file(load_file(tmp_path / WEIGHTS) | {"threshold": other}, tmp_path / WEIGHTS)
        with pytest.raises(UserError, match=answer):
            load(tmp_path)
