"""The embedded laboratory's recipe and judges."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from cad_exp.evaluation.judges import load_judge
from cad_exp.mini import PIPELINE, publish
from cad_exp.mini.__main__ import main
from cad_exp.mini.data import SPLITS
from cad_exp.mini.train import train
from cad_exp.mini.world import LABELS, STYLES, all_captions, draw
from cad_exp.models.pipeline import DiffusionModel


def test_every_word_of_the_world_is_one_token():
    tokenizer = CLIPTokenizer.from_pretrained(str(PIPELINE / "tokenizer"))
    words = sorted({word for caption in all_captions() for word in caption.split()})
    assert [word for word in words if len(tokenizer(word)["input_ids"]) != 3] == []


def test_the_judge_knows_draws_that_it_never_saw():
    pictures, scenes = zip(*(draw(SPLITS["test"] + i) for i in range(300)), strict=True)
    table, features = load_judge("mini").labels(np.stack(pictures))
    assert np.mean([LABELS[s.object] == said for s, said in zip(scenes, table["object"], strict=True)]) >= 0.98
    assert np.mean([STYLES[s.style] == said for s, said in zip(scenes, table["style"], strict=True)]) >= 0.98
    person = [i for i, s in enumerate(scenes) if LABELS[s.object] == "person"]
    assert np.mean([scenes[i].naked == (table["naked_prob"][i] > 0.5) for i in person]) >= 0.98
    assert features.shape == (300, 128)


def test_distance_and_clip_score_order_pictures_as_they_should():
    judge = load_judge("mini")
    image = np.stack([draw(i)[0] for i in range(4)])
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 20, image.shape), 0, 255).astype(np.uint8)
    assert np.allclose(judge.distance(image, image), 0, atol=1e-6)
    assert (judge.distance(noisy, image) < judge.distance(image[::-1].copy(), image)).all()
    church = next(draw(i)[0] for i in range(1000) if LABELS[draw(i)[1].object] == "church" and not draw(i)[1].style)
    right, wrong = judge.clip_scores(np.stack([church, church]), ["a photo of a church", "a photo of a gas pump"])
    assert right > wrong + 0.2


@pytest.mark.parametrize(("stage", "name"), [("denoiser", "UNet2DCondition"), ("transformer", "SD3Transformer2D")])
def test_a_denoiser_is_trained_and_published_by_its_stage(tmp_path: Path, monkeypatch, capsys, stage, name):
    """Two steps on eight drawings, with the embedded autoencoder in place of a new one; then again: it is done."""
    monkeypatch.setattr(publish, "EACH", 1)
    monkeypatch.setattr(publish, "STEPS", 2)
    shutil.copytree(PIPELINE / "vae", tmp_path / "vae")
    asked = [stage, "--work", str(tmp_path), "--out", str(tmp_path / "out"), "--steps", "2", "--count", "8"]
    main(asked)
    assert "pipeline: objects" in capsys.readouterr().out
    model = DiffusionModel.load(tmp_path / "out", device="cpu", steps=2, guidance=4.0)
    assert type(model.denoiser).__name__ == f"{name}Model"
    assert model.generate(["a photo of a church"], [0]).shape == (1, 64, 64, 3)
    trained = model.fingerprint()
    main(asked)
    assert f"{stage}: resumed at step 2" in capsys.readouterr().out
    main([{"denoiser": "export", "transformer": "export_dit"}[stage], *asked[1:5]])
    assert DiffusionModel.load(tmp_path / "out", device="cpu").fingerprint() == trained


def test_a_killed_training_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path):
    def weights(folder: Path, stop: int | None) -> torch.Tensor:
        torch.manual_seed(0)
        model, calls = torch.nn.Linear(3, 1), []

        def loss(rng: np.random.Generator) -> torch.Tensor:
            calls.append(1)
            if stop is not None and len(calls) > stop:
                raise KeyboardInterrupt
            x = torch.from_numpy(rng.normal(size=(8, 3))).float()
            return (model(x)[:, 0] - x.sum(1) + 0.1 * torch.randn(8)).square().mean()

        return train("toy", model, loss, folder, 12, lr=0.1, every=-1.0)["weight"]

    whole = weights(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        weights(tmp_path / "cut", 5)
    assert torch.equal(weights(tmp_path / "cut", None), whole)
