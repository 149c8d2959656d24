"""The picture of where a concept sits in the network, for readers who have not read the code."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cad_exp.reporting.figures.canvas import (
    HELPS,
    INK,
    KIND_COLOURS,
    PALE,
    SIGNED,
    SUPPRESSES,
    canvas,
    name_rows,
    percent,
    save,
    separate,
)
from cad_exp.reporting.figures.layers import Layer, layers_of, strip
from cad_exp.reporting.figures.lettering import wrapped
from cad_exp.reporting.wording import units

if TYPE_CHECKING:
    from cad_exp.attribution.attribute import Attribution


def attribution_map(
    attribution: "Attribution",
    granularity: str,
    path: Path | str,
    title: str = "",
    verdict: str = "",
    stable: bool | None = None,
) -> Path:
    """Draw which layers and kinds of component carry the concept, and which suppress it; returns `path` (PNG).

    verdict, stable: of `verdict.scores` and `verdict.stable`; the sentence stands below the title, and nothing is
    called the strongest where the ranking is not stable.

    One row per layer in the order in which the signal passes them. Left: the sum of its positive and the sum of its
    negative scores, each as a share of all absolute scores. Right: its components from the most helpful to the most
    suppressing one, as colours.
    """
    return save(attribution_figure(attribution, granularity, title, verdict, stable), path)


def attribution_figure(
    attribution: "Attribution", granularity: str, title: str = "", verdict: str = "", stable: bool | None = None
) -> Figure:
    """Draw the picture of `attribution_map` as a figure."""
    scores = np.asarray(attribution.scores[granularity].double())
    layers = layers_of(attribution.tables[granularity], scores)
    told = textwrap.wrap(verdict, 165)
    height, above = 2.7 + 0.27 * max(len(layers), 5) + 0.2 * len(told), 1.45 + 0.2 * len(told)
    figure = canvas(12.5, height)
    place = {"left": 0.225, "right": 0.975, "top": 1 - above / height, "bottom": 1.05 / height, "wspace": 0.05}
    bars, strips = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1.2], gridspec_kw=place)
    _draw_bars(bars, layers)
    _draw_strips(strips, layers, granularity)
    title = title or f"Where the concept sits: {units(granularity)}"
    _head(figure, title, _takeaway(layers, granularity, stable), told)
    _key(figure, layers)
    return figure


def _draw_bars(axes: Axes, layers: list[Layer]) -> None:
    places = np.arange(len(layers))
    axes.barh(places, [layer.helps for layer in layers], color=HELPS, height=0.72)
    axes.barh(places, [layer.suppresses for layer in layers], color=SUPPRESSES, height=0.72)
    reach = 1.08 * max(max(layer.helps, -layer.suppresses) for layer in layers) or 1.0
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g} %")
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    name_rows(axes, [layer.name for layer in layers], [layer.kind for layer in layers], fontsize=8.5)
    axes.set_title("share of all influence, by layer", fontsize=9.5, color=INK, pad=20)
    axes.text(
        0.49,
        1.012,
        "suppress the concept ←",
        transform=axes.transAxes,
        ha="right",
        fontsize=8.5,
        color=SUPPRESSES,
        va="bottom",
    )
    axes.text(0.51, 1.012, "→ make the concept", transform=axes.transAxes, fontsize=8.5, color=HELPS, va="bottom")
    separate(axes, [layer.part for layer in layers])


def _draw_strips(axes: Axes, layers: list[Layer], granularity: str) -> None:
    strips = [strip(layer.scores) for layer in layers]
    most = max(float(np.abs(cells).max()) for cells in strips) or 1.0
    for row, cells in enumerate(strips):
        # The root keeps small scores visible beside the few large ones.
        shade = np.sign(cells) * np.sqrt(np.abs(cells) / most)
        axes.imshow(
            shade[None],
            cmap=SIGNED,
            vmin=-1,
            vmax=1,
            aspect="auto",
            interpolation="nearest",
            extent=(0, 1, row + 0.36, row - 0.36),
        )
        for edge in np.arange(1, len(cells)) / len(cells) if len(cells) <= 32 else ():
            axes.plot([edge, edge], [row - 0.36, row + 0.36], color="white", linewidth=1.2)
    axes.set_xlim(-0.004, 1.004)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xticks([])
    axes.tick_params(axis="y", left=False)
    single = all(len(layer.scores) == 1 for layer in layers)
    counts = sorted({len(layer.scores) for layer in layers})
    count = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    what = "the layer's score" if single else f"its {count} {units(granularity)}, sorted by score"
    axes.set_title(what, fontsize=9.5, color=INK, pad=20)
    if not single:
        axes.text(0, 1.012, "most helpful", transform=axes.transAxes, fontsize=8.5, color=HELPS, va="bottom")
        axes.text(
            1,
            1.012,
            "most suppressing",
            transform=axes.transAxes,
            ha="right",
            fontsize=8.5,
            color=SUPPRESSES,
            va="bottom",
        )
    axes.spines[:].set_visible(False)
    separate(axes, [layer.part for layer in layers])


def _takeaway(layers: list[Layer], granularity: str, stable: bool | None = None) -> str:
    """Say what the picture shows, in numbers.

    It names the strongest only where another estimate would say the same.
    """
    first = max(layers, key=lambda layer: layer.helps)
    last = min(layers, key=lambda layer: layer.suppresses)
    helps, hinders = sum(layer.helps for layer in layers), -sum(layer.suppresses for layer in layers)
    count = sum(len(layer.scores) for layer in layers)
    kinds = sorted({layer.kind for layer in layers}, key=lambda kind: -sum(x.helps for x in layers if x.kind == kind))
    shares = {kind: sum(layer.helps for layer in layers if layer.kind == kind) / (helps or 1) for kind in kinds}
    counted = "" if count == len(layers) else f"{count:,} {units(granularity)} in "
    text = (
        f"{counted}{len(layers)} layers. A score estimates how much the concept weakens when the component is "
        f"switched off. {percent(helps)} of all influence makes the concept, {percent(hinders)} suppresses it. "
    )
    if stable is False:
        return text + "Another estimate would rank the components otherwise, so none is named as the strongest."
    text += f"Strongest maker: {first.name} {first.kind} ({percent(first.helps)})"
    if last.suppresses < 0:
        text += f"; strongest suppressor: {last.name} {last.kind} ({percent(-last.suppresses)})"
    if len(kinds) > 1:
        text += ". Of what makes it: " + ", ".join(f"{kind} {percent(100 * shares[kind])}" for kind in kinds)
    return text + "."


def _head(figure: Figure, title: str, text: str, verdict: list[str]) -> None:
    width, height = figure.get_size_inches()
    name = wrapped(title, int(8 * width), 1)
    figure.text(0.012, 1 - 0.14 / height, name, fontsize=14, fontweight="bold", color=INK, va="top")
    look: dict[str, Any] = {"color": INK, "va": "top", "linespacing": 1.35}
    figure.text(0.012, 1 - 0.47 / height, "\n".join(verdict), fontsize=9.5, fontweight="bold", **look)
    below = 0.45 + 0.2 * len(verdict)
    figure.text(0.012, 1 - below / height, textwrap.fill(text, 185), fontsize=8.8, **look | {"color": PALE})


def _key(figure: Figure, layers: list[Layer]) -> None:
    height = figure.get_figheight()
    kinds = [
        Patch(color=colour, label=kind) for kind, colour in KIND_COLOURS.items() if any(x.kind == kind for x in layers)
    ]
    figure.legend(
        handles=kinds,
        loc="lower left",
        bbox_to_anchor=(0.005, 0.02 / height),
        ncols=3,
        frameon=False,
        fontsize=8.5,
        title="Rows in the order of computation: down = to coarser maps, mid = the coarsest, up = back to full size",
        title_fontsize=8.5,
        alignment="left",
    )
    bar = figure.add_axes((0.66, 0.5 / height, 0.2, 0.11 / height))
    bar.imshow(np.linspace(1, -1, 256)[None], cmap=SIGNED, aspect="auto")
    bar.set_axis_off()
    figure.text(0.653, 0.555 / height, "makes the concept", fontsize=8.5, ha="right", va="center", color=HELPS)
    figure.text(0.867, 0.555 / height, "suppresses it", fontsize=8.5, va="center", color=SUPPRESSES)
    figure.text(
        0.76,
        0.25 / height,
        "colour: root of the score, one scale for all layers",
        fontsize=8,
        ha="center",
        va="center",
        color=PALE,
    )
