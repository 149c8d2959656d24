"""The picture of sparse features beside their controls: what is left, how pure latents are, what few of them tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from cad_exp.evaluation.variants import AUTOENCODER, DICTIONARIES
from cad_exp.reporting.figures.canvas import HELPS, INK, OKABE_ITO, PALE, canvas, save
from cad_exp.reporting.figures.lettering import wrapped

WIDTH, ROW, MOST = 11.0, 2.2, 12  # inches; rows at most
COLOURS = dict(zip(DICTIONARIES, (HELPS, *OKABE_ITO[:1], PALE, *OKABE_ITO[2:3], OKABE_ITO[4]), strict=True))
Metric = dict[str, Any]


def dictionaries(metrics: Sequence[Metric], path: Path | str, title: str = "") -> Path:
    """Draw one row for each place, k and width; returns `path` (PNG).

    metrics: of `pipeline.stages.features`. Left: the share of the variance that each dictionary leaves. Middle: mean
    purity of its latents for the first label, the tick is its level for permuted labels. Right: what a probe reads from
    its k most telling latents.
    """
    places = list(dict.fromkeys(m["name"].partition("@")[2] for m in metrics if m["name"].partition("@")[0] == "fvu"))
    places = places[:MOST]
    label = next((m["name"].split("@")[1] for m in metrics if m["name"].startswith("purity@")), "")
    height = 0.85 + ROW * len(places)
    figure = canvas(WIDTH, height)
    for row, place in enumerate(places):
        bottom = height - 0.75 - ROW * (row + 1) + 0.45
        size = (ROW - 0.95) / height
        tail = f"@{place}" if place else ""
        left, middle, right = (
            figure.add_axes((x / WIDTH, bottom / height, width / WIDTH, size))
            for x, width in ((1.75, 2.4), (5.0, 2.4), (8.3, 2.45))
        )
        _dots(left, _of(metrics, f"fvu{tail}"), "variance left (FVU), lower is better", place)
        _dots(middle, _of(metrics, f"purity@{label}{tail}"), f"purity of latents, {label}", "", chance=True)
        _curves(right, metrics, f"sparse_probe@{label}@", tail, f"{label} read from k latents")
        middle.set_yticklabels([])
    text = wrapped(title or "Sparse features beside their controls", int(9 * WIDTH), 1)
    figure.text(0.15 / WIDTH, 1 - 0.14 / height, text, fontsize=13, fontweight="bold", color=INK, va="top")
    under = "held-out images; bars are 95 % intervals; grey ticks: permuted labels"
    figure.text(0.15 / WIDTH, 1 - 0.45 / height, under, fontsize=8.8, color=PALE, va="top")
    return save(figure, path)


def _of(metrics: Sequence[Metric], name: str) -> dict[str, Metric]:
    return {metric["variant"]: metric for metric in metrics if metric["name"] == name}


def _dots(axes: Axes, found: dict[str, Metric], title: str, place: str, chance: bool = False) -> None:
    for row, name in enumerate(DICTIONARIES):
        metric = found.get(name)
        if metric is None:
            continue
        if metric["low"] is not None:
            axes.plot([metric["low"], metric["high"]], [row, row], color=COLOURS[name], linewidth=1.6)
        axes.plot(metric["value"], row, "o", color=COLOURS[name], markersize=6)
        axes.annotate(
            f"{metric['value']:.2f}".replace("0.", ".", 1),
            (metric["value"], row),
            (0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            color=INK,
        )
        if chance and metric["definition"].get("chance") is not None:
            level = metric["definition"]["chance"]
            axes.plot([level, level], [row - 0.3, row + 0.3], color="#9ca3af", linewidth=2)
    axes.set_ylim(len(DICTIONARIES) - 0.5, -0.7)
    axes.set_yticks(range(len(DICTIONARIES)), DICTIONARIES, fontsize=8)
    axes.set_xlim(0, max(1.0, *(metric["value"] * 1.08 for metric in found.values())) if found else 1.0)
    axes.set_title(f"{place}\n{title}" if place else title, fontsize=9, color=INK, loc="left")
    _plain(axes)


def _curves(axes: Axes, metrics: Sequence[Metric], head: str, tail: str, title: str) -> None:
    for name in DICTIONARIES:
        found = {}
        for metric in metrics:
            if metric["variant"] == name and metric["name"].startswith(head) and metric["name"].endswith(tail):
                middle = metric["name"].removeprefix(head)
                middle = middle.removesuffix(tail) if tail else middle
                if middle.isdigit():
                    found[int(middle)] = metric
        ks = sorted(found)
        width = 2.2 if name == AUTOENCODER else 1.2
        axes.plot(ks, [found[k]["value"] for k in ks], "o-", color=COLOURS[name], linewidth=width, markersize=3.5)
        if ks:
            axes.axhline(found[ks[0]]["definition"]["chance"], color="#9ca3af", linewidth=1)
    axes.set_xscale("log", base=2)
    ticks = [1, 2, 4, 8, 16]
    axes.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=8)
    axes.set_ylim(0, 1.02)
    axes.set_title(title, fontsize=9, color=INK, loc="left")
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#d1d5db")
    axes.tick_params(length=2, labelsize=8, colors=INK)
    axes.grid(axis="x", color="#f3f4f6")
    axes.set_axisbelow(True)
