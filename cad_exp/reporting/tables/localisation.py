"""The table of the study `localisation`: where concepts sit, from the scores per timestep that its runs left."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cad_exp.reporting.figures.layers import PARTS, short_name
from cad_exp.reporting.tables.collect import Found, Run
from cad_exp.reporting.tables.metrics import found_runs
from cad_exp.reporting.tables.plan import Plan, lookup
from cad_exp.reporting.tables.table import MISSING, NOTHING, Column, Entry, Row, Table
from cad_exp.reporting.wording import number
from cad_exp.utils.errors import UserError, reason_of

COLUMNS = ["concept", "concept_kind", "module", "part", "block", "layer", "kind", "t_high", "t_low", "n_latents"]
CONCEPT_KINDS = {"object": "objects", "style": "styles", "nudity": "nudity"}
DEPTHS = ("early", "middle", "late")  # the parts of a network without down, mid and up
NOTES = (
    "An effect is what switching a layer off takes from J (with objective=projection: 1 is the whole direction of the "
    "concept).",
    "Shares: of the sum of a concept's positive effects, over all layers and parts of the denoising; the columns of "
    "the kinds, of the parts of the network, and of the timesteps each add up to 1. Layers interact, so effects do not "
    "add up to J.",
    "negative: the sum of the negative effects, as a share of that same sum. effect: what the strongest layer takes "
    "from J on average over all timesteps.",
    "mean of n: of the shares, and of the layers' effects, of n concepts.",
)


def lay_out(plan: Plan, found: Found) -> Table:
    """Lay out the table: a row per concept, those not run yet with dots, then the means of each kind of concept.

    The cells of a concept name its run, those of a mean all runs behind it.
    """
    effects = read(plan, found)
    shown = summary(effects) if len(effects) else pd.DataFrame(columns=["concept", "concept_kind"])
    heads, names = ["concept", "kind"], list(shown.columns[2:])
    missing = [job for job in plan.jobs if job.hash not in found.runs]
    runs = [
        (str(run.run["concept"]), run.run["config"]["concept"]["kind"], run.folder) for run in found_runs(plan, found)
    ]
    single = len(plan.jobs) - len(missing)
    done = []
    for place, (concept, kind, *cells) in enumerate(shown.itertuples(False)):
        own = [folder for name, alike, folder in runs if (name == concept if place < single else alike == kind)]
        done.append(Row([str(concept), str(kind)], [[_entry(cell, tuple(own))] for cell in cells]))
    dots = [
        Row([str(lookup(job.config, f"concept.{key}")) for key in ("name", "kind")], [[Entry(MISSING)] for _ in names])
        for job in missing
    ]
    notes = [*NOTES, *([_alike(effects)] if len(effects) else []), *([f"{MISSING}: not run yet."] if missing else [])]
    notes += plan.study.footnote
    return Table(heads, list(map(Column, names)), [*done[:single], *dots, *done[single:]], "", notes, missing)


def long_form(plan: Plan, found: Found) -> str:
    """CSV: one line per concept, layer and part of the denoising with its effect."""
    return str(read(plan, found).to_csv(index=False, lineterminator="\n"))


def _entry(cell: Any, runs: tuple[Path, ...]) -> Entry:
    text = cell if isinstance(cell, str) else NOTHING if np.isnan(cell) else number(cell)
    return Entry(text, runs=runs)


def read(plan: Plan, found: Found) -> pd.DataFrame:
    """Every effect that the plan's finished runs measured: a row per concept, layer and bin of timesteps.

    Columns: COLUMNS and `effect`. part: down, mid, up (of a network without them early, middle, late); block: "down 1",
    "mid", "block 7"; layer: the transformer in it. effect: the score of all components of the layer, times the bin's
    share of the run's noisy latents, so that the bins add up to the score at all timesteps. Objects come first, then
    styles, nudity and others; layers are in network order. UserError for several runs of one concept, whose effects may
    not compare, and for runs without scores per timestep.
    """
    names = [lookup(job.config, "concept.name") for job in plan.jobs]
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise UserError(
            f"this table shows one run of each concept, and {names.count(twice)} of {twice} are asked for: "
            "give one seed, one model and one estimator, and --to another folder for another table"
        )
    if not all(lookup(job.config, "evaluation.timesteps") for job in plan.jobs):
        raise UserError("this table needs scores per part of the denoising: leave evaluation.timesteps as it is, or 5")
    tables = [_scores(run) for run in found_runs(plan, found)]
    order = [*CONCEPT_KINDS, *(table["concept_kind"].iloc[0] for table in tables)]
    tables.sort(key=lambda table: order.index(table["concept_kind"].iloc[0]))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*COLUMNS, "effect"])


def _scores(run: Run) -> pd.DataFrame:
    """Return the effects of one run; UserError for a file that was damaged or taken away."""
    path = run.folder / "timesteps.parquet"
    try:
        return _effects(run.run, pd.read_parquet(path))
    except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"'{path}' cannot be read ({reason_of(error)}): run that concept again") from error


def _effects(run: dict[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    """Return the part of `read`'s table of one run; table: its timesteps.parquet."""
    keys = ["module", "block", "kind", "t_high", "t_low", "n_latents"]
    table = table.groupby(keys, sort=False, as_index=False)[["score"]].sum()
    table["effect"] = table["score"].astype(float) * table["n_latents"] / _latents(table).sum()
    modules = zip(table["module"], table["block"], strict=True)
    table["layer"] = [short_name(module, block) for module, block in modules]
    table["block"] = table["block"].map(stage)
    table["part"] = _parts(table["block"])
    table = table.assign(concept=run["concept"], concept_kind=run["config"]["concept"]["kind"])
    return table[[*COLUMNS, "effect"]]


def _latents(table: pd.DataFrame) -> pd.Series:
    """Return the number of noisy latents of each bin, by its t_high."""
    return table.groupby("t_high", sort=False)["n_latents"].first()


def stage(block: str) -> str:
    """Name the stage of a block: "up_blocks.2.attentions.0" is "up 2", "transformer_blocks.7" is "block 7".

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


def whens(table: pd.DataFrame) -> pd.Series:
    """Return the name of each row's bin: "999–800"."""
    high, low = table["t_high"].astype(str), table["t_low"].astype(str)
    return high.where(high == low, high + "–" + low)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Where each concept sits: a row per concept of `read`'s table, then the mean of each kind of concept.

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
    """Return the shares of one concept: those of the kinds of module, of the parts, of the bins, then the negative."""
    found: dict[str, Any] = {name: own[name].iloc[0] for name in ("concept", "concept_kind")}
    positive = own["effect"].clip(lower=0)
    total = positive.sum() or np.nan
    for group in _groups(own):
        shares = positive.groupby(group, sort=False).sum() / total
        found |= {str(name): share for name, share in shares.items()}
    return found | {"negative": -own["effect"].clip(upper=0).sum() / total}


def _groups(table: pd.DataFrame) -> list[pd.Series]:
    """Three ways to group rows; each as the name of every row's group: kind of module, part of network, "t 999–800"."""
    return [table["kind"], table["part"], "t " + whens(table)]


def _strongest(own: pd.DataFrame) -> dict[str, Any]:
    """Return the layer with the largest effect over all timesteps, in the mean over the table's concepts."""
    effects = own.groupby("module", sort=False)["effect"].sum() / own["concept"].nunique()
    first = layer_of(own, effects.idxmax())
    return {"strongest layer": f"{first['layer']} {first['kind']}", "effect": effects.max()}


def layer_of(own: pd.DataFrame, module: Any) -> pd.Series:
    """Return the first row of a layer."""
    row: pd.Series = own[own["module"] == module].iloc[0]
    return row


def _alike(table: pd.DataFrame) -> str:
    """Return what the shares would be if all layers counted alike, as a sentence."""
    layers, latents = table.drop_duplicates("module"), _latents(table)
    said = [f"{name} {number / len(layers):.2f}" for key in ("kind", "part") for name, number in _sizes(layers[key])]
    even = " or ".join(f"{share:.2f}" for share in (latents / latents.sum()).round(2).unique())
    return f"If all {len(layers)} layers counted alike: {', '.join(said)}, each timestep column {even}."


def _sizes(column: pd.Series) -> list[tuple[str, int]]:
    return [(str(value), size) for value, size in column.groupby(column, sort=False).size().items()]
