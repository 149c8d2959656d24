"""The picture of scores per timestep: layers by bins of timesteps, and the total of each bin below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cad_exp.reporting.figures.canvas import HELPS, INK, PALE, SIGNED, SUPPRESSES, canvas, name_rows, save, separate
from cad_exp.reporting.figures.layers import Layer, layers_of
from cad_exp.reporting.figures.lettering import wrapped

GRID = "#e5e7eb"


def timestep_map(table: pd.DataFrame, path: Path | str, title: str = "") -> Path:
    """Draw when in the denoising, and in which layer, the concept is made; returns `path` (PNG).

    table: of `timesteps.by_timestep`. A cell is the sum of a layer's scores in a bin of timesteps, as a share of all
    absolute scores; a bin counts as much as it has noisy latents. The line below is the sum of each column.
    """
    table = table.assign(share=_shares(table))
    layers, cells, names = _cells(table)
    height = 3.9 + 0.27 * max(len(layers), 5)
    width = max(7.6, 3.6 + 0.62 * len(names))
    figure = canvas(width, height)
    heat = figure.add_axes((2.5 / width, 2.35 / height, 1 - 3.4 / width, 1 - 3.25 / height))
    line = figure.add_axes((2.5 / width, 0.75 / height, 1 - 3.4 / width, 1.25 / height))
    most = np.abs(cells).max() or 1.0
    image = heat.imshow(cells, cmap=SIGNED, vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
    heat.set_xticks([])
    name_rows(heat, [layer.name for layer in layers], [layer.kind for layer in layers])
    separate(heat, [layer.part for layer in layers])
    heat.set_ylim(len(layers) - 0.5, -0.5)
    beside = figure.add_axes((1 - 0.75 / width, 2.35 / height, 0.13 / width, 1 - 3.25 / height))
    bar = figure.colorbar(image, cax=beside)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.2g} %")
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)
    _totals(line, cells.sum(0), table, names)
    title = wrapped(title or "When and where the concept is made", int(8 * width), 1)
    figure.text(0.15 / width, 1 - 0.14 / height, title, fontsize=13)
    figure.texts[-1].set(fontweight="bold", color=INK, va="top")
    figure.text(0.15 / width, 1 - 0.42 / height, _takeaway(layers, cells, names), fontsize=8.8, color=PALE, va="top")
    return save(figure, path)


def _shares(table: pd.DataFrame) -> pd.Series:
    """Every row's score as a percentage of all absolute scores, weighted by the noisy latents of its bin."""
    weighted = table["score"] * table["n_latents"]
    return 100 * weighted / (weighted.abs().sum() or 1.0)


def _cells(table: pd.DataFrame) -> tuple[list[Layer], np.ndarray, list[str]]:
    """Layers in network order, sums of shares (layers, bins), and the bins' names."""
    bins = table[["t_high", "t_low"]].drop_duplicates()
    rows = table[table["t_high"] == bins["t_high"].iloc[0]].reset_index(drop=True)
    rows["index"] = rows.index
    layers = layers_of(rows, rows["score"].to_numpy(np.float64))
    sums = table.groupby(["module", "t_high"])["share"].sum()
    cells = np.array([[sums[layer.module, high] for high in bins["t_high"]] for layer in layers])
    names = [f"{a}" if a == b else f"{a}–{b}" for a, b in zip(bins["t_high"], bins["t_low"], strict=True)]
    return layers, cells, names


def _totals(axes: Axes, total: np.ndarray, table: pd.DataFrame, names: list[str]) -> None:
    """Draw the net share of each bin, and thinly what makes and what suppresses the concept there."""
    order, places = table["t_high"].drop_duplicates(), np.arange(len(total))
    for colour, part in ((HELPS, table["share"].clip(lower=0)), (SUPPRESSES, table["share"].clip(upper=0))):
        axes.fill_between(places, part.groupby(table["t_high"]).sum()[order], color=colour, alpha=0.15, linewidth=0)
    axes.plot(places, total, color=INK, linewidth=2, marker="o", markersize=4)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xlim(-0.5, len(total) - 0.5)
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if len(names) > 6 else {}
    axes.set_xticks(places, names, **turned)
    axes.set_xlabel("timesteps: noise on the left, the finished image on the right", fontsize=8.8, color=INK)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.set_title("all layers together; shaded: what makes, what suppresses it", fontsize=8.8, color=INK, loc="left")
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5, length=2)


def _takeaway(layers: list[Layer], cells: np.ndarray, names: list[str]) -> str:
    """Return what the picture shows, in numbers."""
    row, column = np.unravel_index(cells.argmax(), cells.shape)
    when, layer = int(cells.sum(0).argmax()), layers[row]
    net, cell = (f"{value:.2g}\u00a0%" for value in (cells.sum(0)[when], cells[row, column]))
    return (
        "Share of all influence: orange makes the concept, blue suppresses it.\n"
        f"Most is made at t = {names[when]} ({net} net); the strongest cell is {layer.name} {layer.kind} "
        f"at t = {names[column]} ({cell})."
    )
