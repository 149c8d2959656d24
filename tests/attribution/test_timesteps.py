"""Scores per timestep: bins by hand, their mean against the whole, and the picture."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread

from cad_exp.attribution.attribute import attribute
from cad_exp.attribution.by_timestep import COLUMNS, bins_of, by_timestep, within
from cad_exp.attribution.estimators import make_estimator
from cad_exp.attribution.objectives.build import make_objective
from cad_exp.data.noisy_latents import NoisyLatents
from cad_exp.interventions.spaces import find_sites, make_granularity
from cad_exp.pipeline.run import run
from cad_exp.reporting.figures.timesteps import _cells, _shares, timestep_map
from cad_exp.utils.errors import UserError
from tests.config.test_configs import composed


def test_bins_by_hand():
    t = torch.tensor([9, 5, 1, 9, 5, 1, 7, 3])
    assert [each.tolist() for each in bins_of(t, 2)] == [[9, 7, 5], [3, 1]]
    assert [each.tolist() for each in bins_of(t, 5)] == [[9], [7], [5], [3], [1]]
    for wrong in (0, 6, -1, 1.5, True):
        with pytest.raises(UserError, match="the noisy latents have 5 timesteps, so use 1 to 5, or null"):
            bins_of(t, wrong)
    latents = NoisyLatents(t[:, None].float(), t, None, None, None, "c", "")
    assert within(latents, 3, 7).x[:, 0].tolist() == [5, 5, 7, 3]


def rows_of(model, latents, name="first_order", cut="head", bins=2, objective="erase", **settings):
    sites = find_sites(model.denoiser)
    return by_timestep(
        lambda own: make_objective(objective, model, own, 4),
        make_estimator(name, **settings),
        latents,
        make_granularity(cut).on(sites),
        bins,
    )


@pytest.mark.parametrize(("name", "cut"), [("first_order", c) for c in ("weight", "neuron", "head", "layer")])
def test_bins_add_up_to_the_whole(name, cut, tiny_model, tiny_latents):
    """Five timesteps in bins of three and two: J is a mean over noisy latents, and so are its first-order scores."""
    table = rows_of(tiny_model, tiny_latents, name, cut)
    whole = attribute(tiny_model, tiny_latents, "erase", name, [cut], batch_size=4)
    assert list(table.columns) == COLUMNS and table.groupby("t_high", sort=False)["n_latents"].first().tolist() == [
        6,
        4,
    ]
    parts = [table[table["t_high"] == high]["score"].to_numpy() for high in table["t_high"].unique()]
    expected = whole.tables[cut]["score"].to_numpy()
    found = 0.6 * parts[0] + 0.4 * parts[1]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max(), rtol=1e-4)
    assert np.abs(parts[0] - parts[1]).max() > 1e-3 * np.abs(expected).max(), "the bins differ"
    assert (table["t_high"] >= table["t_low"]).all() and table["t_high"].is_monotonic_decreasing


def test_an_exact_estimator_in_one_bin_is_itself(tiny_model, tiny_latents):
    """leave_one_out knows no weights; one bin is all noisy latents, and its progress that of the whole."""
    seen, estimator = [], make_estimator("leave_one_out")
    space = make_granularity("layer").on(find_sites(tiny_model.denoiser))
    few, count = tiny_latents[:3], lambda *done: seen.append(done)
    table = by_timestep(lambda own: make_objective("erase", tiny_model, own, 4), estimator, few, space, 1, count)
    whole = attribute(tiny_model, few, "erase", "leave_one_out", ["layer"])
    np.testing.assert_allclose(table["score"], whole.tables["layer"]["score"], rtol=1e-4, atol=1e-9)
    assert seen[-1][1] == 3 and seen == sorted(seen) and max(seen) <= (3, 3)


def test_each_bin_has_its_own_checkpoint(tiny_model, tiny_latents, tmp_path):
    """An estimate of another bin would be refused; a second call reads the first one's."""
    space = make_granularity("layer", ["cross-attention"]).on(find_sites(tiny_model.denoiser))
    args = (make_estimator("leave_one_out"), tiny_latents[:4], space, 2, None, tmp_path / "state.safetensors")
    tables = [by_timestep(lambda own: make_objective("erase", tiny_model, own, 4), *args) for _ in range(2)]
    assert {path.name for path in tmp_path.iterdir()} == {"state.0.safetensors", "state.1.safetensors"}
    np.testing.assert_allclose(tables[0]["score"], tables[1]["score"])


def test_the_picture(tiny_model, tiny_latents, tmp_path):
    for cut in ("head", "weight"):
        table = rows_of(tiny_model, tiny_latents, cut=cut, bins=5)
        picture = imread(timestep_map(table, tmp_path / f"{cut}.png", "tiny"))
        assert picture.std() > 0.05
    table = table.assign(share=_shares(table))
    assert table["share"].abs().sum() == pytest.approx(100)
    layers, cells, names = _cells(table)
    assert cells.shape == (len(layers), 5) and cells.sum() == pytest.approx(table["share"].sum())
    assert [layer.part for layer in layers] == sorted((x.part for x in layers), key=["down", "mid", "up"].index)
    first = table[(table["module"] == layers[0].module) & (table["t_high"] == table["t_high"].max())]
    assert cells[0, 0] == pytest.approx(first["share"].sum()) and names[0] == str(table["t_high"].max())


FAST = ["concept=church", "granularity=layer", "noisy_latents.samples=2", "noisy_latents.steps=4", "evaluation=none"]
FAST += ["edit=erase", "evaluation.fidelity=null", "tracking.mode=disabled"]


def test_a_run_keeps_them_when_asked(tmp_path, capsys):
    """Table and picture beside the scores; a contrast retains what it does in the same part of the denoising."""
    contrast = [
        "objective=contrast",
        "objective.retain=[golf ball]",
        "estimator=first_order",
        f"runtime.cache={tmp_path / 'cache'}",
    ]
    run(composed(*FAST, *contrast), tmp_path / "null")
    run(composed(*FAST, *contrast, "evaluation.timesteps=2"), tmp_path / "two")
    assert not (tmp_path / "null" / "timesteps.parquet").exists()
    assert (tmp_path / "two" / "timesteps.png").stat().st_size > 10_000
    table, whole = (pd.read_parquet(tmp_path / "two" / f"{name}.parquet") for name in ("timesteps", "components"))
    expected = whole[whole["granularity"] == "layer"]["score"].to_numpy()
    np.testing.assert_allclose(
        table["score"].to_numpy().reshape(2, -1).mean(0), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
    )
    capsys.readouterr()
    run(composed(*FAST, *contrast, "evaluation.timesteps=2"), tmp_path / "again")
    assert "timesteps: from the cache" in capsys.readouterr().out
    pd.testing.assert_frame_equal(table, pd.read_parquet(tmp_path / "again" / "timesteps.parquet"))
    with pytest.raises(UserError, match=r"other settings \(evaluation.timesteps was 2, now null\)"):
        run(composed(*FAST, *contrast), tmp_path / "two")
    assert len(list((tmp_path / "two").glob("timesteps.*"))) == 2
    with pytest.raises(UserError, match="the noisy latents have 4 timesteps"):
        run(composed(*FAST, *contrast, "evaluation.timesteps=5"), tmp_path / "five")
