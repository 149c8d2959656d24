"""Attribution: one estimate for all granularities, reproducible, kept in a file."""

import pandas as pd
import pytest
import torch

from cad_exp.attribution.attribute import Attribution, attribute
from cad_exp.attribution.estimators import make_estimator
from cad_exp.attribution.estimators.base import Scores
from cad_exp.attribution.estimators.gradients import FirstOrder
from cad_exp.attribution.game import Game
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.attribution.objectives.contrast import Contrast
from cad_exp.data.noisy_latents import sample_trajectory
from cad_exp.interventions.spaces import CROSS, FF, find_sites, make_granularity
from cad_exp.reporting.figures.plot import plot
from cad_exp.utils.errors import UserError


def test_granularities_agree(tiny_attribution):
    scores, tables = tiny_attribution.scores, tiny_attribution.tables
    assert list(scores) == list(tables) == ["weight", "neuron", "head", "layer"]
    total = scores["weight"].sum()
    torch.testing.assert_close(scores["layer"].sum(), total, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(scores["head"].sum() + scores["neuron"].sum(), total, atol=1e-4, rtol=1e-3)
    for name in ("neuron", "head", "layer"):
        assert tables[name]["score"].tolist() == scores[name].tolist() and len(tables[name]) == len(scores[name])
    matrices = tables["weight"]
    assert torch.allclose(torch.tensor(matrices["score"].values), scores["layer"], atol=1e-4)
    assert (matrices["positive"] >= 0).all() and (matrices["negative"] <= 0).all()
    assert tiny_attribution.meta["objective"] == "erase" and tiny_attribution.meta["intact"] > 0


def test_reproducible(tiny_model, tiny_latents, tiny_attribution):
    again = attribute(tiny_model, sample_trajectory(tiny_model, "church", "", seeds=[0, 1], steps=5))
    other = attribute(tiny_model, sample_trajectory(tiny_model, "church", "", seeds=[2, 3], steps=5))
    for name, scores in tiny_attribution.scores.items():
        assert torch.equal(again.scores[name], scores) and not torch.equal(other.scores[name], scores)


def test_file(tiny_attribution, tmp_path):
    path = tiny_attribution.save(tmp_path / "run")
    loaded = Attribution.load(tmp_path / "run")
    assert loaded.sites == tiny_attribution.sites and loaded.meta == tiny_attribution.meta
    for name, scores in tiny_attribution.scores.items():
        assert torch.equal(loaded.scores[name], scores)
        pd.testing.assert_frame_equal(loaded.tables[name], tiny_attribution.tables[name])
    table = pd.read_parquet(tmp_path / "run" / "components.parquet")
    assert len(table) == sum(len(t) for t in tiny_attribution.tables.values()) and "name" in table
    assert sorted(file.name for file in path.parent.iterdir()) == ["attribution.safetensors", "components.parquet"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        Attribution.load(path)


def test_kinds_and_choice(tiny_model, tiny_latents):
    result = attribute(
        tiny_model, tiny_latents, "projection", granularities=[make_granularity("weight", [FF]), "neuron"]
    )
    sites = [site for site in find_sites(tiny_model.denoiser) if site.kind == FF]
    assert result.sites == sites and len(result.scores["weight"]) == sum(site.size for site in sites)
    with pytest.raises(UserError, match="unknown granularity in this attribution 'head'"):
        result.space("head")


def test_not_finite_is_refused(tiny_model, tiny_latents):
    class Broken(FirstOrder):
        def estimate(self, game, watch):
            return Scores(torch.full((game.n,), float("nan")))

    with pytest.raises(UserError, match="not finite"):
        attribute(tiny_model, tiny_latents, estimator=Broken())


def test_an_estimator_that_does_not_add_up(tiny_model, tiny_latents, tmp_path):
    """It is asked about each granularity alone; its errors and facts travel with the scores, through file and cut."""
    estimator = make_estimator("ablated_gradients", patterns=4, rates=[0.3])
    found = attribute(tiny_model, tiny_latents[:2], "projection", estimator, ["head"])
    assert list(found.scores) == ["head"] == list(found.errors)
    game = Game(make_objective("projection", tiny_model, tiny_latents[:2]), make_granularity("head").on(found.sites))
    assert torch.equal(found.scores["head"], estimator.estimate(game).values)
    assert found.meta["estimate"]["passes"] == 4 and found.meta["intact"] is None
    found.save(tmp_path)
    loaded = Attribution.load(tmp_path)
    assert torch.equal(loaded.errors["head"], found.errors["head"]) and list(loaded.scores) == ["head"]
    assert loaded.tables["head"]["error"].tolist() == found.errors["head"].tolist()
    narrow = loaded.narrow("head", [CROSS])
    kinds = found.tables["head"]["kind"].to_numpy() == CROSS
    assert torch.equal(narrow.errors["head"], found.errors["head"][torch.from_numpy(kinds)])
    both = attribute(tiny_model, tiny_latents[:2], "projection", estimator, ["head", "layer"])
    assert torch.equal(both.scores["head"], found.scores["head"]) and set(both.meta["estimate"]) == {"head", "layer"}
    with pytest.raises(UserError, match="estimator shapley is not for granularity weight: use granularity=head or"):
        attribute(tiny_model, tiny_latents, estimator="shapley")


def test_what_a_person_asks_first(tiny_attribution, tmp_path):
    """A line that says what it is, the strongest components of either sign, and the picture."""
    assert (
        repr(tiny_attribution).startswith("<Attribution first_order · erase · ") and len(repr(tiny_attribution)) < 120
    )
    assert f"{len(tiny_attribution.scores['head'])} heads" in repr(tiny_attribution)
    table = tiny_attribution.tables["head"].set_index("name")["score"]
    for sign in (1, -1):
        top = tiny_attribution.top(3, "head", sign)
        assert list(top.columns) == ["name", "score"] and (top["score"] * sign > 0).all()
        assert top["score"].tolist() == sorted(table, reverse=sign > 0)[:3] == table[top["name"]].tolist()
    with pytest.raises(UserError, match="several granularities were scored: say which of weight, neuron, head, layer"):
        tiny_attribution.top()
    heads = tiny_attribution.narrow("head", None)
    assert heads.top(2).equals(tiny_attribution.top(2, "head"))
    assert plot(heads).axes and plot(tiny_attribution, "layer", tmp_path / "map.png").stat().st_size > 10_000


def test_nothing_is_changed_as_it_passes(tiny_model, tiny_latents, tmp_path):
    """Progress and checkpoint are arguments: estimator, objective, its parts and the game stay as they were."""
    parts = [make_objective("projection", tiny_model, tiny_latents[:2], 4) for _ in range(2)]
    contrast = Contrast(parts[0].with_ablation("mean"), parts[1:])
    ablations, seen = [part.ablation for part in parts], []
    estimator, cut = make_estimator("activation_patching"), make_granularity("layer", [CROSS])
    before = [dict(vars(one)) for one in (estimator, contrast, *parts)]
    attribute(
        tiny_model,
        tiny_latents[:2],
        contrast,
        estimator,
        [cut],
        progress=lambda *count: seen.append(count),
        checkpoint=tmp_path / "state.safetensors",
    )
    assert before == [vars(one) for one in (estimator, contrast, *parts)] and seen
    assert ablations == [part.ablation for part in parts]
    assert {part.ablation.name for part in contrast.members} == {"mean"}
    assert (tmp_path / "state.safetensors").exists()
