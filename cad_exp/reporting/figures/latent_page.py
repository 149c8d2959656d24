"""The page of one latent: the images in which it acts most, when it acts, its labels, and the nearest prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from cad_exp.reporting.figures.canvas import HELPS, INK, PALE, canvas, percent, save
from cad_exp.reporting.figures.latents import cover, strength
from cad_exp.reporting.figures.lettering import wrapped

WIDTH, MARGIN, SIDE, GAP = 10.4, 0.2, 1.18, 0.08  # inches
IMAGES = 0.78  # from the top
FAINT, CHANCE = "#f5b08a", "#9ca3af"


@dataclass(frozen=True)
class Told:
    """The most frequent class of a label among a latent's top images.

    share: of these images, which is the purity. base: of all held-out images. chance, quantile: mean purity, and its
    99 % level, with permuted labels.
    """

    label: str
    name: str
    share: float
    base: float
    chance: float
    quantile: float


@dataclass(frozen=True)
class Named:
    """The prompts whose directions are nearest, with cosines, the nearest first.

    alike, spread: the largest cosine that 95 % of random vectors stay below, drawn alike in all directions, and as the
    tokens are spread. prompts: of the bank. first: the share of `images` held-out images that name their own prompt.
    """

    names: Sequence[tuple[str, float]]
    alike: float
    spread: float
    prompts: int
    first: float
    images: int


@dataclass(frozen=True)
class Page:
    """All that a page shows. images: (H, W, 3) uint8, the strongest first; maps: (side, side), NaN where unread.

    frequency: share of held-out images in which the latent acts. times: the timesteps in the order of denoising, or as
    they were asked for; mean, top: (times,) how strongly it acts there, in all held-out images and in those shown.
    """

    latent: int
    hookpoint: str
    images: Sequence[np.ndarray]
    maps: Sequence[np.ndarray]
    frequency: float
    times: Sequence[int]
    mean: np.ndarray
    top: np.ndarray
    labels: Sequence[Told]
    prompts: Named | None


def latent_page(page: Page, path: Path | str, model: str = "") -> Path:
    """Draw the page of a latent; returns `path` (PNG)."""
    middle = IMAGES + SIDE + 0.62  # from the top, where the two plots begin
    plots = 0.4 + 0.42 * max(len(page.labels), 2)
    lower = middle + plots + 0.85
    names = 0.32 * len(page.prompts.names) if page.prompts else 0.0
    height = lower + names + (0.7 if page.prompts else 0.0)
    figure = canvas(WIDTH, height)

    def axes(left: float, top: float, wide: float, high: float) -> Axes:
        return figure.add_axes((left / WIDTH, 1 - (top + high) / height, wide / WIDTH, high / height))

    def write(words: str, top: float, size: float, colour: str, weight: str = "normal") -> None:
        place = MARGIN / WIDTH, 1 - top / height
        figure.text(*place, words, fontsize=size, color=colour, va="top", fontweight=weight)

    of = f" of {model}" if model else ""
    write(wrapped(f"Latent {page.latent} at {page.hookpoint}{of}", 90, 1), 0.14, 13, INK, "bold")
    often = f"acts in {percent(100 * page.frequency)} of the held-out images"
    write(f"{often}; those in which it acts most, the strongest first; orange: where it acts", 0.46, 8.8, PALE)
    most = strength(page.maps)
    for column, (image, values) in enumerate(zip(page.images, page.maps, strict=True)):
        cover(axes(MARGIN + column * (SIDE + GAP), IMAGES, SIDE, SIDE), image, values, most)
    _times(axes(MARGIN + 0.45, middle, 3.5, plots), page)
    _labels(axes(6.3, middle, WIDTH - 6.3 - MARGIN, plots), page.labels)
    if page.prompts is None:
        write("no caption has two images, so there are no prompt directions", height - 0.3, 8.8, PALE)
        return save(figure, path)
    _prompts(axes(5.4, lower, WIDTH - 5.4 - MARGIN, names), page.prompts)
    told = f"{percent(100 * page.prompts.first)} of {page.prompts.images} held-out images name their own prompt first"
    bank = f"nearest of {page.prompts.prompts} prompts, by the cosine of directions" + (
        "" if math.isnan(page.prompts.first) else f"; {told}"
    )
    write(bank, height - 0.28, 8.3, PALE)
    return save(figure, path)


def _times(axes: Axes, page: Page) -> None:
    order = np.arange(len(page.times))
    axes.plot(order, page.top, "o-", color=HELPS, linewidth=2, markersize=3.5, label="the images above")
    axes.plot(order, page.mean, "o-", color=PALE, linewidth=1.4, markersize=3, label="all held-out images")
    step = max(1, math.ceil(len(order) / 6))
    axes.set_xticks(order[::step], [str(t) for t in page.times][::step])
    axes.set_ylim(0, max(float(page.top.max()), float(page.mean.max()), 1e-9) * 1.3)
    axes.set_xlabel("timestep", fontsize=8, color=INK)
    axes.legend(fontsize=7.5, frameon=False, loc="upper right", ncols=2, handlelength=1.4, columnspacing=1.0)
    _plain(axes, "when it acts: its mean value")


def _labels(axes: Axes, told: Sequence[Told]) -> None:
    for row, each in enumerate(told):
        sure = each.share > each.quantile
        axes.barh(row, each.share, 0.5, color=HELPS if sure else FAINT)
        axes.plot([each.base, each.base], [row - 0.34, row + 0.34], color=INK, linewidth=1.6)
        for level, width in ((each.chance, 1.2), (each.quantile, 2.4)):
            axes.plot([level, level], [row - 0.34, row + 0.34], color=CHANCE, linewidth=width)
        axes.text(min(each.share + 0.015, 1.02), row, f"{each.share:.2f}", fontsize=7.5, color=INK, va="center")
    axes.set_yticks(range(len(told)), [f"{each.label}: {each.name}" for each in told])
    axes.set_ylim(max(len(told), 1) - 0.5, -0.5)
    axes.set_xlim(0, 1.1)
    axes.set_xticks([0, 0.5, 1])
    under = "black: the class among all images; grey: purity of permuted labels, mean and 99 %"
    axes.set_xlabel(under, fontsize=7, color=PALE, loc="right")
    _plain(axes, "labels: share of the most frequent class above")


def _prompts(axes: Axes, named: Named) -> None:
    sure = max(named.alike, named.spread)
    for row, (_, cosine) in enumerate(named.names):
        axes.barh(row, max(cosine, 0.0), 0.55, color=HELPS if cosine > sure else FAINT)
        axes.text(0.006, row, f"{cosine:.2f}", fontsize=7.5, color="white" if cosine > sure else INK, va="center")
    for level, style in ((named.alike, "-"), (named.spread, "--")):
        axes.axvline(level, color=INK, linewidth=1.0, linestyle=style)
    axes.set_yticks(range(len(named.names)), [wrapped(name, 70, 1) for name, _ in named.names])
    axes.set_ylim(len(named.names) - 0.5, -0.5)
    axes.set_xlim(0, max([1.12 * sure, *(1.12 * cosine for _, cosine in named.names)]))
    title = "nearest prompts: cosine; 95 % of random vectors stay below the line (dashed: spread as the tokens are)"
    _plain(axes, "")
    axes.set_title(title, fontsize=8.2, color=INK, loc="right")


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9, color=INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#d1d5db")
    axes.tick_params(length=2, labelsize=8, colors=INK)
    axes.set_axisbelow(True)
