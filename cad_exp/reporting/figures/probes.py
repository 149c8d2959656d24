"""The picture of a probe map: for each label what is read at every layer and timestep, and the gain over the input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap

from cad_exp.reporting.figures.canvas import HELPS, INK, PALE, SIGNED, canvas, on, save
from cad_exp.reporting.figures.lettering import wrapped

READ = LinearSegmentedColormap.from_list("read", ["#f8f8f7", "#f5b08a", HELPS])
CELL, ROW, LETTER = 0.6, 0.25, 0.066  # inches: a cell's width, its height, a letter of a layer's name
NARROWEST = 7.4
INPUT = "noisy latent"


def probe_map(table: pd.DataFrame, path: Path | str, title: str = "") -> Path:
    """Draw accuracies and gains of all labels; returns `path` (PNG).

    table: of `pipeline.stages.probes`. On the left balanced accuracy from chance (white) to 1; the first row is the
    noisy latent, which no layer has worked on. On the right what a layer adds to it: orange is more, blue is less,
    and figures in brackets are gains whose 95 % interval holds 0.
    """
    kept = table[table["source"].isin((INPUT, "network"))]
    labels, times = list(dict.fromkeys(kept["label"])), sorted(set(kept["t"]))
    rows = list(kept.sort_values("order")["hookpoint"].drop_duplicates())
    names = 0.35 + LETTER * max(len(_name(row)) for row in rows)
    width = max(names + 2 * CELL * len(times) + 0.7, NARROWEST)
    told = wrapped(takeaway(table), int(13 * width), 4)
    head = 0.78 + 0.15 * len(told.splitlines())
    block = ROW * len(rows) + 0.62
    height = head + 0.15 + block * len(labels)
    figure = canvas(width, height)
    shown = (width - names - 0.7) / 2
    for number, label in enumerate(labels):
        own = kept[kept["label"] == label]
        bottom = height - head - block * (number + 1) + 0.42
        box = (names / width, bottom / height, shown / width, ROW * len(rows) / height)
        left = figure.add_axes(box)
        right = figure.add_axes((box[0] + (shown + 0.45) / width, *box[1:]))
        chance = float(own["chance"].iloc[0])
        accuracy, gain, sure = (_cells(own, rows, times, name) for name in ("accuracy", "gain", "sure"))
        most = max(float(np.nanmax(np.abs(gain))), 0.05)
        _heat(left, accuracy, READ, (chance, 1.0), np.ones_like(accuracy, bool), "{:.2f}", times)
        _heat(right, gain, SIGNED, (-most, most), sure.astype(bool), "{:+.2f}", times)
        left.set_yticks(range(len(rows)), [_name(row) for row in rows], fontsize=8.5)
        right.set_yticks([])
        left.set_title(f"{label}: balanced accuracy (chance {chance:.2f})", fontsize=9, color=INK, loc="left")
        right.set_title("gain over the noisy latent", fontsize=9, color=INK, loc="left")
    text = wrapped(title or "What each layer knows, and when", int(9 * width), 1)
    figure.text(0.15 / width, 1 - 0.14 / height, text, fontsize=13, fontweight="bold", color=INK, va="top")
    figure.text(0.15 / width, 1 - 0.45 / height, told, fontsize=8.8, color=INK, va="top")
    note = "columns: timestep, noise grows to the right; in brackets: the gain may as well be none"
    figure.text(0.15 / width, 0.1 / height, note, fontsize=8.5, color=PALE)
    return save(figure, path)


def takeaway(table: pd.DataFrame) -> str:
    """Return, for each label, the largest gain whose interval lies above 0, and where it is."""
    told = []
    network = table[table["source"] == "network"]
    for label, own in network.groupby("label", sort=False):
        sure = own[own["gain_low"] > 0]
        if sure.empty:
            told.append(f"{label}: no layer surely adds anything")
            continue
        best = sure.iloc[int(sure["gain"].to_numpy().argmax())]
        told.append(f"{label}: {best['gain']:+.2f} at t = {int(best['t'])} in {_name(best['hookpoint'])}")
    return "Most added to the input. " + "; ".join(told) + "."


def _cells(own: pd.DataFrame, rows: list[str], times: list[int], name: str) -> np.ndarray:
    own = own.assign(sure=(own["gain_low"] > 0) | (own["gain_high"] < 0))
    found = own.set_index(["hookpoint", "t"])[name]
    return np.array([[float(found.get((row, t), np.nan)) for t in times] for row in rows])


def _heat(
    axes: Axes,
    cells: np.ndarray,
    colours: Colormap,
    limits: tuple[float, float],
    sure: np.ndarray,
    form: str,
    times: list[int],
) -> None:
    axes.imshow(cells, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(times)), [str(t) for t in times], fontsize=8.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            ground = colours((value - limits[0]) / (limits[1] - limits[0]))
            text = form.format(value).replace("0.", ".", 1)
            text = text if sure[row, column] else f"({text})"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=on(ground))


def _name(hookpoint: str) -> str:
    if hookpoint == "noisy_latent":
        return "noisy latent"
    return hookpoint.replace("_blocks", "").replace("attentions.", "attention ").replace("transformer.", "block ")
