"""Pictures of the scores' fidelity: what they say, that nothing hides a point, that everybody can tell the colours."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from cad_exp.reporting.figures import attribution, canvas, fidelity
from cad_exp.reporting.tables import pareto
from tests.fakes import fake_attribution

VERDICT = "The ranking is not stable, but at 5 % predicted effects are right in sign and size: trust many together."


def records(rates=(0.01, 0.02, 0.05, 0.1, 0.2), kinds=("uniform", "top")):
    rng, rows = np.random.default_rng(0), []
    for kind in kinds:
        for rate in rates:
            for draw in range(20):
                truth = rng.normal()
                rows.append(("ablations", kind, rate, draw, 5, truth + rng.normal(), truth))
    for order in ("most", "least", "random"):
        rows += [("curve", order, share, 0, 5, 0.0, rng.normal()) for share in (0.0, 0.5, 1.0)]
    columns = ["study", "kind", "rate", "draw", "size", "predicted", "true"]
    return pd.DataFrame(rows, columns=columns).assign(measure="J")


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The figures that were saved, drawn."""
    kept = []

    def keep(figure, path):
        figure.canvas.draw()
        kept.append(figure)
        return path

    monkeypatch.setattr(fidelity, "save", keep)
    monkeypatch.setattr(attribution, "save", keep)
    return kept


@pytest.mark.parametrize("rates", [(0.05,), (0.05, 0.2), (0.01, 0.02, 0.05, 0.1, 0.2)])
def test_legends_and_texts_hide_no_point(rates, drawn):
    table = records(rates)
    fidelity.scatter(table, "a.png", "church", verdict=3 * VERDICT)
    fidelity.scatter(table, "b.png", "church")
    fidelity.scatter(records(rates, ["uniform"]), "c.png", "church", verdict=VERDICT)
    fidelity.curves(table, "d.png", "church", [("J", 3.0, "J"), ("J", 1.0, "rate")])
    for figure in drawn:
        whole, panels = figure.bbox, [axes.get_window_extent() for axes in figure.axes]
        for axes in figure.axes:
            legend, name = axes.get_legend().get_window_extent(), axes.xaxis.label.get_window_extent()
            assert not any(legend.overlaps(panel) for panel in panels) and not legend.overlaps(name)
            assert legend.y0 >= whole.y0 and legend.x1 <= whole.x1
        texts = [text.get_window_extent() for text in figure.texts]
        titles = [axes._left_title.get_window_extent() for axes in figure.axes]
        for one, other in combinations([*texts, *titles], 2):
            assert not one.overlaps(other)
        for text in texts:
            assert text.x1 <= whole.x1 and not any(text.overlaps(panel) for panel in panels)


def test_the_legend_says_whether_predictions_are_right(drawn):
    table = records((0.2,), ["uniform"])
    table = table[table["study"] == "ablations"].assign(predicted=-1.0 - np.arange(20), true=1.0 + np.arange(20))
    fidelity.scatter(table, "a.png", verdict=VERDICT)
    fidelity.scatter(table.assign(measure="rate"), "b.png", measure="rate")
    own, images = ([text.get_text() for text in figure.axes[0].get_legend().get_texts()] for figure in drawn)
    assert "Pearson -1.00, slope -1.00, signs agree in 0 of 20, R² -" in own[0] and "true = predicted" in own
    assert "signs" not in images[0], "what images show is not what the scores predict"
    assert VERDICT.split()[-1] in drawn[0].texts[-1].get_text()


def test_the_map_names_no_strongest_where_the_ranking_is_not_stable(drawn):
    for stable in (True, False, None):
        attribution.attribution_map(fake_attribution(), "head", "a.png", "church", VERDICT, stable)
    said = [" ".join(text.get_text().replace("\n", " ") for text in figure.texts) for figure in drawn]
    assert all(VERDICT in text for text in said)
    assert ["Strongest maker" in text for text in said] == [True, False, True]
    assert "none is named as the strongest" in said[1]
    for figure in drawn:
        bars = figure.axes[0].get_window_extent()
        assert not any(text.get_window_extent().overlaps(bars) for text in figure.texts)


# Colours, by Machado, Oliveira, Fernandes (2009), severity 1: linear RGB as seen without one kind of cone.
BLIND = {
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def lab(linear):
    x = np.array(XYZ) @ linear / np.array([0.9505, 1, 1.089])
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def nearest(colours):
    """The smallest CIE76 distance of two of the colours, to any colour-blind reader; 2.3 is just noticeable."""
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = [[lab(np.clip(np.array(m) @ row, 0, 1)) for row in linear] for m in BLIND.values()]
    return min(np.linalg.norm(a - b) for each in seen for a, b in combinations(each, 2))


def test_colours_are_told_apart_without_one_kind_of_cone():
    assert nearest(["#c2410c", "#be185d"]) < 5, "two rates' colours of before"
    assert nearest(canvas.OKABE_ITO) > 15 and nearest(pareto.COLOURS) > 15
    assert nearest([style[1] for style in fidelity.ORDER_STYLES.values()]) > 15
    assert nearest([canvas.HELPS, canvas.SUPPRESSES]) > 15


def test_every_rate_has_a_mark_of_its_own(drawn):
    fidelity.scatter(records(), "a.png")
    handles = [line for line in drawn[0].axes[0].get_legend().legend_handles if line.get_marker() not in ("None", "")]
    assert len({line.get_marker() for line in handles}) == len({line.get_color() for line in handles}) == 5
