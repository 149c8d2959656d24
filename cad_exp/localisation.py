"""Where concepts sit, from the runs of a sweep: `python -m cad_exp.localisation FOLDER`.

The runs have scores per timestep (`evaluation.timesteps=5`, as in experiments/localisation.yaml). The result is one
table, one picture, and every cell of them as CSV.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import terminal
from .errors import UserError
from .figures import INK, KIND_COLOURS, PALE, PARTS, SIGNED, _canvas, _percent, _save, _separate, short_name
from .tables.collect import read_all
from .tables.plan import lookup
from .tables.write import folder as make
from .tables.write import markdown_table, save

COLUMNS = ["concept", "concept_kind", "module", "part", "block", "layer", "kind", "t_high", "t_low", "n_probes"]
CONCEPT_KINDS = {"object": "objects", "style": "styles", "nudity": "nudity"}
DEPTHS = ("early", "middle", "late")  # the parts of a network without down, mid and up
# Effects compare only where these agree: keys of `run`, then of its config.
SAME = ("model", "granularity", "objective", "estimator")
SAME_SETTINGS = ("objective.removal", "probes.samples", "probes.steps", "probes.guidance", "seed")
OUTSTANDING = 1.5  # times its even share: from there on a part of the denoising is worth a line
LEFT, PANEL, GAP, GROUP_GAP, ABOVE, BELOW = 2.75, 1.5, 0.14, 0.3, 1.02, 0.88  # inches in the picture
NOTE = """\
An effect is what switching a layer off takes from J (with objective=projection: 1 is the whole direction of the
concept). Shares: of the sum of a concept's positive effects, over all layers and parts of the denoising; the columns of
the kinds, of the parts of the network, and of the timesteps each add up to 1. Layers interact, so effects do not add up
to J. negative: the sum of the negative effects, as a share of that same sum. effect: what the strongest layer takes
from J on average over all timesteps. mean of n: of the shares, and of the layers' effects, of n concepts."""


def collect(folder: str | Path) -> pd.DataFrame:
    """Every effect that the finished runs below `folder` measured: a row per concept, layer and bin of timesteps.

    Columns: COLUMNS and `effect`. part: down, mid, up (of a network without them early, middle, late); block: "down 1",
    "mid", "block 7"; layer: the transformer in it. effect: the score of all components of the layer, times the bin's
    share of the run's probes, so that the bins add up to the score at all timesteps. Objects come first, then styles,
    nudity and others; layers are in network order. UserError if nothing is there, or if the runs do not compare.
    """
    found = [(each.run, each.folder / "timesteps.parquet") for each in read_all([folder])[0] if each.complete]
    runs = [(run, _scores(run, scores)) for run, scores in found if scores.exists()]
    if not runs:
        raise UserError(
            f"no finished run below '{folder}' has scores per timestep: "
            "run python -m cad_exp -m experiment=localisation, or any run with evaluation.timesteps=5"
        )
    for name in SAME:
        _agree(runs, f"the {name}", lambda run, _, name=name: str(run.get(name)))
    for key in SAME_SETTINGS:
        _agree(runs, key, lambda run, _, key=key: str(lookup(run["config"], key)))
    _agree(runs, "the number of parts of the denoising", lambda _, table: table["t_high"].nunique())
    _agree(runs, "the timesteps of the parts", lambda _, table: ", ".join(_whens(table).unique()))
    _agree(runs, "the layers", lambda _, table: tuple(table["module"].unique()), counted=True)
    names = [run["concept"] for run, _ in runs]
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise UserError(f"{names.count(twice)} runs below '{folder}' are of {twice}: give the folder of one sweep")
    order = [*CONCEPT_KINDS, *(table["concept_kind"].iloc[0] for _, table in runs)]
    runs.sort(key=lambda each: order.index(each[1]["concept_kind"].iloc[0]))
    return pd.concat([table for _, table in runs], ignore_index=True)


def _scores(run: dict[str, Any], path: Path) -> pd.DataFrame:
    """The effects of one run; UserError for a file that was damaged."""
    try:
        return _effects(run, pd.read_parquet(path))
    except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"{path} cannot be read ({type(error).__name__}): run that concept again") from error


def _effects(run: dict[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    """The part of `collect`'s table of one run; table: its timesteps.parquet."""
    keys = ["module", "block", "kind", "t_high", "t_low", "n_probes"]
    table = table.groupby(keys, sort=False, as_index=False)["score"].sum()
    table["effect"] = table["score"].astype(float) * table["n_probes"] / _probes(table).sum()
    modules = zip(table["module"], table["block"], strict=True)
    table["layer"] = [short_name(module, block) for module, block in modules]
    table["block"] = table["block"].map(stage)
    table["part"] = _parts(table["block"])
    table = table.assign(concept=run["concept"], concept_kind=run["config"]["concept"]["kind"])
    return table[[*COLUMNS, "effect"]]


def _probes(table: pd.DataFrame) -> pd.Series:
    """The number of probes of each bin, by its t_high."""
    return table.groupby("t_high", sort=False)["n_probes"].first()


def _agree(runs: list[tuple[Any, pd.DataFrame]], what: str, of: Callable[..., Any], counted: bool = False) -> None:
    """UserError that says which concept has what, unless it is the same for all."""
    found: dict[Any, list[str]] = {}
    for run, table in runs:
        found.setdefault(of(run, table), []).append(run["concept"])
    if len(found) > 1:
        said = "; ".join(
            f"{len(value) if counted else value} ({', '.join(sorted(set(names)))})" for value, names in found.items()
        )
        raise UserError(f"the runs differ in {what}: {said}. Give the folder of runs that agree in it")


def stage(block: str) -> str:
    """What a person calls the stage of a block: "up_blocks.2.attentions.0" is "up 2", "transformer_blocks.7" "block 7".

    The middle of a UNet is "mid"; "single_transformer_blocks.7" is "single block 7"; another name stays, as words.
    """
    if block.startswith("mid_block"):
        return "mid"
    if sides := re.match(r"(down|up)_blocks\.(\d+)", block):
        return f"{sides[1]} {sides[2]}"
    if numbered := re.match(r"(?:(\w+)_)?transformer_blocks\.(\d+)", block):
        return f"{numbered[1] or ''} block {numbered[2]}".strip().replace("_", " ")
    return short_name(block, block)


def _parts(blocks: pd.Series) -> list[str]:
    """down, mid or up for each stage; where a network has no such sides, the third of its depth."""
    order = list(blocks.unique())
    if all(name.startswith(PARTS) for name in order):
        return [name.split()[0] for name in blocks]
    return [DEPTHS[3 * order.index(name) // len(order)] for name in blocks]


def _whens(table: pd.DataFrame) -> pd.Series:
    """The name of each row's bin: "999–800"."""
    high, low = table["t_high"].astype(str), table["t_low"].astype(str)
    return high.where(high == low, high + "–" + low)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Where each concept sits: a row per concept of `collect`'s table, then the mean of each kind of concept.

    Columns: concept, concept_kind; shares of the sum of the concept's positive effects, over its layers and bins: per
    kind of module, per part of the network, per bin of timesteps ("t 999–800"), each group in 0..1 with sum 1 (NaN if
    no effect is positive); negative: the sum of the negative effects, as a share of that same sum (0 or more, it may
    exceed 1); strongest layer, and its effect over all timesteps, in units of J. The effects of single layers do not
    add up to that of all (layers interact), so no share is one of J. In a mean row the shares and `negative` are means
    over concepts, the strongest layer is that of the mean effect.
    """
    rows = pd.DataFrame([_shares(own) | _strongest(own) for _, own in table.groupby("concept", sort=False)])
    means = []
    for kind, own in rows.groupby("concept_kind", sort=False):
        alike = table[table["concept_kind"] == kind]
        numbers = own.drop(columns="effect").select_dtypes("number").mean().to_dict()
        name = {"concept": f"mean of {len(own)}", "concept_kind": kind}
        means.append(name | numbers | _strongest(alike))
    return pd.concat([rows, pd.DataFrame(means)[rows.columns]], ignore_index=True)


def _shares(own: pd.DataFrame) -> dict[str, Any]:
    """The shares of one concept: those of the kinds of module, of the parts, of the bins, then the negative."""
    positive, found = own["effect"].clip(lower=0), own[["concept", "concept_kind"]].iloc[0].to_dict()
    total = positive.sum() or np.nan
    for group in _groups(own):
        found |= (positive.groupby(group, sort=False).sum() / total).to_dict()
    return found | {"negative": -own["effect"].clip(upper=0).sum() / total}


def _groups(table: pd.DataFrame) -> list[pd.Series]:
    """Three ways to group rows; each as the name of every row's group: kind of module, part of network, "t 999–800"."""
    return [table["kind"], table["part"], "t " + _whens(table)]


def _strongest(own: pd.DataFrame) -> dict[str, Any]:
    """The layer with the largest effect over all timesteps, in the mean over the table's concepts."""
    effects = own.groupby("module", sort=False)["effect"].sum() / own["concept"].nunique()
    first = _layer(own, effects.idxmax())
    return {"strongest layer": f"{first['layer']} {first['kind']}", "effect": effects.max()}


def _layer(own: pd.DataFrame, module: Any) -> pd.Series:
    return own[own["module"] == module].iloc[0]


def _alike(table: pd.DataFrame) -> str:
    """What the shares would be if all layers counted alike, as a sentence."""
    layers = table.drop_duplicates("module")
    said = [f"{name} {number:.2f}" for key in ("kind", "part") for name, number in _fractions(layers[key])]
    return f"If all {len(layers)} layers counted alike: {', '.join(said)}, each timestep column {_even(table)}."


def _fractions(column: pd.Series) -> list[tuple[str, float]]:
    return list((column.groupby(column, sort=False).size() / len(column)).items())


def _even(table: pd.DataFrame) -> str:
    sizes = (_probes(table) / _probes(table).sum()).round(2).unique()
    return " or ".join(f"{size:.2f}" for size in sizes)


def draw(table: pd.DataFrame, path: Path | str, title: str = "", across: int = 6) -> Path:
    """Draw one heat map per concept, layers by parts of the denoising, on one scale; returns `path` (PNG).

    table: of `collect`. A cell is the layer's effect in that part alone. `across` panels stand side by side, concepts
    of one kind together. The lines above a panel name its largest shares (`takeaway`).
    """
    probes = table.groupby(["concept", "module"])["n_probes"].transform("sum")
    table = table.assign(cell=table["effect"] * probes / table["n_probes"], when=_whens(table))
    panels = [own for _, own in table.groupby("concept", sort=False)]
    lines = [panels[start : start + across] for start in range(0, len(panels), across)]
    body = 0.19 * max(table["module"].nunique(), 5)
    width = max(LEFT + max(map(len, lines)) * (PANEL + GROUP_GAP) + 0.9, 9.6)
    height = 0.75 + len(lines) * (ABOVE + body + BELOW)
    figure = _canvas(width, height)
    # A few cells are far beyond all others: they get the last colour, or the rest would be pale.
    reach = float(table["cell"].abs().quantile(0.98)) or float(table["cell"].abs().max()) or 1.0
    for number, line in enumerate(lines):
        bottom = height - 0.75 - (number + 1) * (ABOVE + body) - number * BELOW
        image, end = _line(figure, line, bottom, body, reach)
        if number == 0:
            _scale(figure, image, figure.add_axes(((end + 0.2) / width, bottom / height, 0.13 / width, body / height)))
    head = {"fontsize": 13, "fontweight": "bold", "color": INK, "va": "top"}
    figure.text(0.15 / width, 1 - 0.12 / height, title or "Where concepts sit", **head)
    said = (
        "Orange layers make the concept in that part of the denoising, blue ones suppress it: what switching the layer "
        "off takes from J.\nPercentages: of the sum of the concept's positive effects."
    )
    figure.text(0.15 / width, 1 - 0.4 / height, said, fontsize=8.8, color=PALE, va="top")
    return _save(figure, path)


def _line(figure: Any, panels: list[pd.DataFrame], bottom: float, body: float, reach: float) -> tuple[Any, float]:
    """Panels side by side from `bottom` (inches) up, under the names of their groups; an image and the right end."""
    width, height = figure.get_size_inches()
    x, group = LEFT, None
    for place, own in enumerate(panels):
        kind = own["concept_kind"].iloc[0]
        x += (GAP if kind == group else GROUP_GAP) * (place > 0)
        axes = figure.add_axes((x / width, bottom / height, PANEL / width, body / height))
        image = _panel(axes, own, reach, labelled=place == 0)
        if kind != group:
            name, y = CONCEPT_KINDS.get(kind, kind), (bottom + body + ABOVE - 0.12) / height
            figure.text(x / width, y, name, fontsize=10.5, fontweight="bold", color=INK, va="center")
        x, group = x + PANEL, kind
    below = "timesteps of the denoising: noise on the left, the finished image on the right"
    figure.text(LEFT / width, (bottom - 0.72) / height, below, fontsize=8.5, color=INK)
    return image, x


def _panel(axes: Any, own: pd.DataFrame, reach: float, labelled: bool) -> Any:
    """The heat map of one concept; its name and its largest shares stand above it."""
    layers = own.drop_duplicates("module")[["part", "layer", "kind"]].to_dict("records")
    cells = own.pivot_table(index="module", columns="when", values="cell", sort=False)
    image = axes.imshow(cells, cmap=SIGNED, vmin=-reach, vmax=reach, aspect="auto", interpolation="nearest")
    _separate(axes, layers)
    axes.set_xticks(range(len(cells.columns)), cells.columns, rotation=55, ha="right", rotation_mode="anchor")
    axes.set_yticks([])
    if labelled:
        axes.set_yticks(range(len(layers)), [f"{layer['layer']}  {layer['kind']}" for layer in layers])
        for tick, layer in zip(axes.get_yticklabels(), layers, strict=True):
            tick.set_color(KIND_COLOURS.get(layer["kind"], INK))
    axes.tick_params(length=0, labelsize=8)
    axes.tick_params(axis="x", labelsize=7)
    concept = str(own["concept"].iloc[0]).replace("_", " ")
    axes.annotate(takeaway(own), (0, 1), (0, 3), "axes fraction", "offset points", fontsize=7.2, color=PALE)
    axes.annotate(concept, (0, 1), (0, 43), "axes fraction", "offset points", fontsize=9.5, color=INK)
    return image


def takeaway(own: pd.DataFrame) -> str:
    """What one concept is made by, each with its share, on up to four lines: the largest kind of module, the strongest
    layer (on two lines), and the largest part of the denoising where it stands out.

    Shares are of the sum of its positive effects, as in `summary`.
    """
    positive = own["effect"].clip(lower=0) / own["effect"].clip(lower=0).sum()
    if not positive.any():
        return "no positive effect"
    kinds, parts = (positive.groupby(group, sort=False).sum() for group in (own["kind"], _whens(own)))
    module = own.groupby("module", sort=False)["effect"].sum().idxmax()
    first, share = _layer(own, module), positive[own["module"] == module].sum()
    lines = [f"{kinds.idxmax()}: {_percent(100 * kinds.max())}"]
    lines += [f"{first['layer']},", f"{first['kind']}: {_percent(100 * share)}"]
    probes = own.groupby(_whens(own), sort=False)["n_probes"].first()
    if parts.max() >= OUTSTANDING * probes[parts.idxmax()] / probes.sum():
        lines.append(f"t = {parts.idxmax()}: {_percent(100 * parts.max())}")
    return "\n".join(lines)


def _scale(figure: Any, image: Any, axes: Any) -> None:
    bar = figure.colorbar(image, cax=axes, extend="both", extendfrac=0.02)
    bar.set_label("effect on J, one scale for all", fontsize=8.5, color=INK)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m cad_exp.localisation", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder of a sweep")
    parser.add_argument("--to", type=Path, help="where to write; as a default into the same folder")
    given = parser.parse_args(arguments)
    try:
        print(write(collect(given.folder), given.to or given.folder))
    except UserError as error:
        terminal.error(str(error))
        return 1
    return 0


def write(table: pd.DataFrame, folder: Path) -> str:
    """Leave localisation.md, .csv (every cell of the table) and .png in `folder`; returns the Markdown."""
    shown = summary(table)
    for column in shown.select_dtypes("number"):
        shown[column] = shown[column].map(terminal.number)
    texts = shown.astype(str).to_numpy().tolist()
    text = f"{markdown_table(list(shown.columns), texts)}\n\n{NOTE}\n{_alike(table)}"
    save(text + "\n", make(folder) / "localisation.md")
    save(table.to_csv(index=False), folder / "localisation.csv")
    draw(table, folder / "localisation.png")
    return text


if __name__ == "__main__":
    sys.exit(main())
