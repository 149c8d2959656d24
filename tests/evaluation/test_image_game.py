"""The image game: by hand on a painter that needs no network, then on the embedded model as a user asks for it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cad_exp.data.requests import ImageRequest
from cad_exp.evaluation.fidelity.ablations import ablation_fidelity
from cad_exp.evaluation.fidelity.image_game import ImageGame
from cad_exp.interventions.spaces import CROSS, Site, make_granularity
from cad_exp.pipeline.run import run
from cad_exp.utils.errors import UserError
from tests.config.test_configs import composed
from tests.pictures import undrawn
from tests.pipeline.test_experiment import FAST

REQUESTS = [ImageRequest("concept", "a church", seed, "object", "church") for seed in range(4)]
SITES = [Site("a.to_out.0", "a", CROSS, (2, 4), 2)]
WEIGHT = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2)


class Painter:
    """Its image of seed s is as bright as the weights that are left, 25 for each unit, less s."""

    device = torch.device("cpu")

    def __init__(self):
        linear = torch.nn.Linear(4, 2)
        linear.weight.data = WEIGHT.clone()
        self.unet, self.made = torch.nn.Module(), 0
        self.unet.add_module("a", torch.nn.Module())
        self.unet.a.add_module("to_out", torch.nn.ModuleList([linear]))
        self.pipe = self

    def generate(self, prompts, seeds, batch_size):
        assert prompts == ["a church"] * 4 and batch_size == 64
        self.made += 1
        left = float(self.unet.a.to_out[0].weight.detach()[0].sum())
        return np.stack([np.full((2, 2, 3), max(25 * left - seed, 0), np.uint8) for seed in seeds])


class Judge:
    """Sees a church where an image is brighter than 173; its log-odds are the brightness."""

    def labels(self, images):
        bright = images[:, 0, 0, 0]
        return pd.DataFrame({"object": np.where(bright > 173, "church", "tench"), "style": "", "naked_prob": 0.0}), None

    def log_odds(self, pixels, kind, label):
        assert (kind, label) == ("object", "church")
        return pixels[:, 0, 0, 0] * 255


def test_rates_and_log_odds_by_hand():
    painter = Painter()
    game = ImageGame(painter, Judge(), REQUESTS, make_granularity("neuron", [CROSS]).on(SITES))
    found = game.judged(torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 1], [0, 0, 0, 0]]))
    # 10 units are left: 250 and less, all churches; 7: 175, 174, 173, 172, of which two are; none
    assert found[:, 0].tolist() == [1.0, 0.5, 0.0]
    assert found[:2, 1].tolist() == pytest.approx([248.5, 173.5])
    assert torch.equal(painter.unet.a.to_out[0].weight, WEIGHT), "the model is as it was"


def test_studies_play_it_and_answers_are_remembered():
    kept = {}

    def remember(gates, answer):
        key = gates.numpy().tobytes()
        kept.setdefault(key, None)
        if kept[key] is None:
            kept[key] = answer()
        return kept[key]

    painter = Painter()
    game = ImageGame(painter, Judge(), REQUESTS, make_granularity("neuron", [CROSS]).on(SITES), remember)
    scores = WEIGHT[0] * 25
    records, found = ablation_fidelity(game.measured("log_odds"), scores, [0.25], 4, ["uniform"])
    assert found[0]["pearson"][0] == pytest.approx(1) and found[0]["slope"][0] == pytest.approx(1)
    made = painter.made
    ablation_fidelity(game.measured("rate"), scores, [0.25], 4, ["uniform"])
    assert painter.made == made, "one set of images serves both measures"


def test_what_no_image_can_be_made_of_is_refused():
    game = ImageGame(Painter(), Judge(), REQUESTS, make_granularity("neuron", [CROSS]).on(SITES))
    with pytest.raises(UserError, match="gates of 0 and 1"):
        game.judged(torch.full((1, 4), 0.5))
    for judge, requests in ((None, REQUESTS), (Judge(), [ImageRequest("concept", "a teapot", 0, "object", "")])):
        with pytest.raises(UserError, match=r"needs a judge and a concept\.label"):
            ImageGame(Painter(), judge, requests, make_granularity("neuron", [CROSS]).on(SITES))


def test_the_full_study_on_images(tmp_path: Path):
    """Curves, negative components and random ablations of the embedded model, judged; a second run remembers them."""
    asked = [item for item in FAST if "fidelity" not in item]
    asked += [
        "evaluation=fidelity",
        "concept=church",
        "granularity=layer",
        "edit=none",
        "model.steps=4",  # with fewer, not every image shows a church
        f"runtime.cache={tmp_path / 'c'}",
    ]
    asked += [
        f"evaluation.fidelity.{item}" for item in ("number=4", "rates=[0.1]", "kinds=[uniform]", "noisy_latents=4")
    ]
    asked += [f"evaluation.fidelity.{item}" for item in ("fractions=[0.5]", "repeats=1", "draws=1", "sanity=[]")]
    asked += [
        f"evaluation.fidelity.images.{item}"
        for item in ("samples=2", "number=3", "kinds=[uniform]", "draws=1", "repeats=1")
    ]
    asked += ["evaluation.fidelity.images.fractions=[0.5,1.0]", "evaluation.fidelity.growth=[2,4]"]
    results = run(composed(*asked, "estimator.patterns=4"), tmp_path / "one")
    metrics = {metric["name"]: metric for metric in results["metrics"]}
    wanted = {"images_rate_area_most", "images_log_odds_pearson@0.1", "images_log_odds_proxy@0.1"}
    wanted |= {
        "images_rate_change_negative@0.05",
        "images_rate_change_random@0.05",
        "stability_spearman_4_noisy_latents",
    }
    assert wanted <= set(metrics), sorted(metrics)
    assert metrics["images_rate_area_most"]["definition"]["intact"] == pytest.approx(1.0, abs=0.5)
    assert metrics["fidelity_pearson@0.1"]["n"] == 4 and metrics["images_log_odds_pearson@0.1"]["n"] == 3
    records = pd.read_parquet(tmp_path / "one" / "fidelity.parquet")
    assert set(records["measure"]) == {"J", "rate", "log_odds"}
    for name in ("fidelity.png", "fidelity_curves.png", "fidelity_images.png"):
        assert (tmp_path / "one" / name).exists()
    entries = len(list((tmp_path / "c" / "ablations").iterdir()))
    with undrawn():
        again = run(composed(*asked, "estimator=magnitude"), tmp_path / "two")
    uniform = [r["true"].tolist() for r in (records, pd.read_parquet(tmp_path / "two" / "fidelity.parquet"))]
    assert uniform[0][:4] == uniform[1][:4]
    assert again["run"]["complete"] and len(list((tmp_path / "c" / "ablations").iterdir())) < 2 * entries
