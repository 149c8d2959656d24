"""Pictures that can be read without having read the code: where a concept sits in the network, and what an edit did.

matplotlib's object interface with the Agg canvas: no window, no global state, the same on every machine.
"""

import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cad_exp.reporting.figures.lettering import letter, wrapped
from cad_exp.reporting.summary import UNITS
from cad_exp.utils.io import atomic

HELPS, SUPPRESSES = "#c2410c", "#1d4ed8"
KIND_COLOURS = {
    "self-attention": "#7c3aed",
    "cross-attention": "#0f766e",
    "joint-attention": "#0369a1",
    "feed-forward": "#a16207",
    "feed-forward-in": "#4d7c0f",
    "text-attention": "#be185d",
    "text-feed-forward": "#7f1d1d",
}
# Told apart by colour-blind readers too: Okabe and Ito, Color Universal Design (2008); yellow, pale on white, is last.
OKABE_ITO = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#000000", "#f0e442")
INK, PALE = "#1f2937", "#6b7280"
SIGNED = LinearSegmentedColormap.from_list("signed", [SUPPRESSES, "#93b4f5", "#f8f8f7", "#f5b08a", HELPS])
PARTS = ("down", "mid", "up")
STRIP = 200  # cells of a heat strip
SORTED_EXACTLY = 1_000_000  # longer layers are thinned out before they are sorted for the strip
DPI = 130


def attribution_map(
    attribution: Any,
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
    return _save(attribution_figure(attribution, granularity, title, verdict, stable), path)


def attribution_figure(
    attribution: Any, granularity: str, title: str = "", verdict: str = "", stable: bool | None = None
) -> Figure:
    """The picture of `attribution_map` as a figure."""
    layers = _layers(attribution, granularity)
    total = sum(np.abs(layer["scores"]).sum() for layer in layers) or 1.0
    for layer in layers:
        layer["helps"] = 100 * np.clip(layer["scores"], 0, None).sum() / total
        layer["suppresses"] = 100 * np.clip(layer["scores"], None, 0).sum() / total
    told = textwrap.wrap(verdict, 165)
    height, above = 2.7 + 0.27 * max(len(layers), 5) + 0.2 * len(told), 1.45 + 0.2 * len(told)
    figure = _canvas(12.5, height)
    place = {"left": 0.225, "right": 0.975, "top": 1 - above / height, "bottom": 1.05 / height, "wspace": 0.05}
    bars, strips = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1.2], gridspec_kw=place)
    _draw_bars(bars, layers)
    _draw_strips(strips, layers, granularity)
    title = title or f"Where the concept sits: {_units(granularity)}"
    _head(figure, title, _takeaway(layers, granularity, stable), told)
    _key(figure, layers)
    return figure


def _units(granularity: str) -> str:
    """What a person calls the components; those of other spaces than the four granularities by their own name."""
    return UNITS.get(granularity, f"{granularity}s")


def _layers(attribution: Any, granularity: str) -> list[dict[str, Any]]:
    """Per layer, in network order: module, block, kind, part (down, mid, up or ""), name, scores (float64 array)."""
    table, scores = attribution.tables[granularity], np.asarray(attribution.scores[granularity].double())
    found = []
    for module, rows in table.groupby("module", sort=False):
        if len(table) == len(scores):
            own = scores[rows["index"].to_numpy()]
        else:  # weights: one table row per matrix, a range of the score vector
            own = np.concatenate([scores[a:b] for a, b in zip(rows["start"], rows["stop"], strict=True)])
        block, kind = str(rows["block"].iloc[0]), str(rows["kind"].iloc[0])
        part = next((part for part in PARTS if block.startswith(part)), "")
        found.append(
            {
                "module": module,
                "block": block,
                "kind": kind,
                "part": part,
                "name": short_name(str(module), block),
                "scores": own,
            }
        )
    # A UNet lists its middle after both sides; the signal passes down, mid, up.
    return sorted(found, key=lambda layer: PARTS.index(layer["part"]) if layer["part"] else -1)


def short_name(module: str, block: str) -> str:
    """The name of "up_blocks.1.attentions.0" is "up 1, transformer 0"; its second inner block adds ".1"."""
    inner = re.search(r"transformer_blocks\.(\d+)", module)
    inner_number = f".{inner[1]}" if inner and inner[1] != "0" else ""
    sides = re.match(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)", block)
    if sides:
        return f"{sides[1]} {sides[2]}, transformer {sides[3]}{inner_number}"
    middle = re.match(r"mid_block\.attentions\.(\d+)", block)
    if middle:
        return f"mid, transformer {middle[1]}{inner_number}"
    return re.sub(r"[_.]", " ", block)


def _draw_bars(axes: Any, layers: list[dict[str, Any]]) -> None:
    places = np.arange(len(layers))
    axes.barh(places, [layer["helps"] for layer in layers], color=HELPS, height=0.72)
    axes.barh(places, [layer["suppresses"] for layer in layers], color=SUPPRESSES, height=0.72)
    reach = 1.08 * max(max(layer["helps"], -layer["suppresses"]) for layer in layers) or 1.0
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g} %")
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_yticks(places, [f"{layer['name']}  {layer['kind']}" for layer in layers], fontsize=8.5)
    for tick, layer in zip(axes.get_yticklabels(), layers, strict=True):
        tick.set_color(KIND_COLOURS.get(layer["kind"], INK))
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
    _separate(axes, layers)


def _draw_strips(axes: Any, layers: list[dict[str, Any]], granularity: str) -> None:
    strips = [strip(layer["scores"]) for layer in layers]
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
    single = all(len(layer["scores"]) == 1 for layer in layers)
    counts = sorted({len(layer["scores"]) for layer in layers})
    count = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    what = "the layer's score" if single else f"its {count} {_units(granularity)}, sorted by score"
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
    _separate(axes, layers)


def strip(scores: np.ndarray) -> np.ndarray:
    """The scores in falling order; of more than 200, those at 200 evenly spaced ranks, both ends included."""
    if len(scores) > SORTED_EXACTLY:
        scores = np.concatenate([scores[:: len(scores) // SORTED_EXACTLY + 1], [scores.max(), scores.min()]])
    falling = np.sort(scores)[::-1]
    return falling if len(falling) <= STRIP else falling[np.linspace(0, len(falling) - 1, STRIP).round().astype(int)]


def _separate(axes: Any, layers: list[dict[str, Any]]) -> None:
    """Thin lines where down becomes mid and mid becomes up."""
    for row in range(1, len(layers)):
        if layers[row]["part"] != layers[row - 1]["part"]:
            axes.axhline(row - 0.5, color=PALE, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, labelsize=8.5)


def _takeaway(layers: list[dict[str, Any]], granularity: str, stable: bool | None = None) -> str:
    """What the picture shows, in numbers; who is the strongest only where another estimate would say the same."""
    first = max(layers, key=lambda layer: layer["helps"])
    last = min(layers, key=lambda layer: layer["suppresses"])
    helps, hinders = sum(layer["helps"] for layer in layers), -sum(layer["suppresses"] for layer in layers)
    count = sum(len(layer["scores"]) for layer in layers)
    kinds = sorted(
        {layer["kind"] for layer in layers}, key=lambda kind: -sum(x["helps"] for x in layers if x["kind"] == kind)
    )
    shares = {kind: sum(layer["helps"] for layer in layers if layer["kind"] == kind) / (helps or 1) for kind in kinds}
    counted = "" if count == len(layers) else f"{count:,} {_units(granularity)} in "
    text = (
        f"{counted}{len(layers)} layers. A score estimates how much the concept weakens when the component is "
        f"switched off. {_percent(helps)} of all influence makes the concept, {_percent(hinders)} suppresses it. "
    )
    if stable is False:
        return text + "Another estimate would rank the components otherwise, so none is named as the strongest."
    text += f"Strongest maker: {first['name']} {first['kind']} ({_percent(first['helps'])})"
    if last["suppresses"] < 0:
        text += f"; strongest suppressor: {last['name']} {last['kind']} ({_percent(-last['suppresses'])})"
    if len(kinds) > 1:
        text += ". Of what makes it: " + ", ".join(f"{kind} {_percent(100 * shares[kind])}" for kind in kinds)
    return text + "."


def _percent(value: float) -> str:
    return "under\u00a01\u00a0%" if 0 < value < 0.5 else f"{value:.0f}\u00a0%"  # no line break inside


def _head(figure: Figure, title: str, text: str, verdict: list[str]) -> None:
    width, height = figure.get_size_inches()
    name = wrapped(title, int(8 * width), 1)
    figure.text(0.012, 1 - 0.14 / height, name, fontsize=14, fontweight="bold", color=INK, va="top")
    look = {"color": INK, "va": "top", "linespacing": 1.35}
    figure.text(0.012, 1 - 0.47 / height, "\n".join(verdict), fontsize=9.5, fontweight="bold", **look)
    below = 0.45 + 0.2 * len(verdict)
    figure.text(0.012, 1 - below / height, textwrap.fill(text, 185), fontsize=8.8, **look | {"color": PALE})


def _key(figure: Figure, layers: list[dict[str, Any]]) -> None:
    height = figure.get_figheight()
    kinds = [
        Patch(color=colour, label=kind)
        for kind, colour in KIND_COLOURS.items()
        if any(x["kind"] == kind for x in layers)
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


VARIANT_TITLES = {"unedited": "unedited model", "edited": "edited", "random": "random edit of equal budget"}


def before_after(images: dict[str, dict[str, np.ndarray]], path: Path | str, title: str = "") -> Path:
    """Draw one row per prompt and one block of columns per variant, seeds in equal places; returns `path` (PNG).

    `images`: variant -> prompt -> uint8 array (k, H, W, 3). Small pictures are enlarged by whole factors, unsmoothed.
    A prompt or a picture that a variant lacks stays empty.
    """
    variants = list(images)
    prompts = list(dict.fromkeys(prompt for by_prompt in images.values() for prompt in by_prompt))
    columns = max(len(pictures) for by_prompt in images.values() for pictures in by_prompt.values())
    cell, gap, label, top = 0.92, 0.22, 1.55, 0.95  # inches
    block = columns * cell
    width = label + len(variants) * (block + gap)
    figure = _canvas(width, top + len(prompts) * cell + 0.1)
    height = figure.get_figheight()
    figure.text(
        0.12 / width,
        1 - 0.12 / height,
        wrapped(title or "Before and after the edit", int(8 * width), 1),
        fontsize=13,
        fontweight="bold",
        color=INK,
        va="top",
    )
    figure.text(
        0.12 / width,
        1 - 0.4 / height,
        "Same prompts and same seeds in every block.",
        fontsize=8.8,
        color=PALE,
        va="top",
    )
    for number, variant in enumerate(variants):
        left = label + number * (block + gap)
        figure.text(
            (left + block / 2) / width,
            1 - (top - 0.08) / height,
            VARIANT_TITLES.get(variant, variant),
            ha="center",
            va="bottom",
            fontsize=10.5,
            color=INK,
            fontweight="bold" if variant == "edited" else "normal",
        )
        for row, prompt in enumerate(prompts):
            bottom = height - top - (row + 1) * cell
            for column, picture in enumerate(images[variant].get(prompt, ())):
                axes = figure.add_axes(
                    ((left + column * cell) / width, bottom / height, 0.96 * cell / width, 0.96 * cell / height)
                )
                axes.imshow(enlarge(picture), interpolation="antialiased")
                axes.set_axis_off()
    for row, prompt in enumerate(prompts):
        middle = height - top - (row + 0.5) * cell
        figure.text(
            (label - 0.12) / width,
            middle / height,
            wrapped(prompt, 18, 5),
            ha="right",
            va="center",
            fontsize=9,
            color=INK,
        )
    return _save(figure, path)


def enlarge(picture: np.ndarray, least: int = 128) -> np.ndarray:
    """Repeat the pixels of an (H, W, 3) picture by the smallest whole factor that gives at least `least` rows."""
    factor = max(1, -(-least // picture.shape[0]))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _canvas(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path | str) -> Path:
    letter(figure)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")
    return Path(path)
