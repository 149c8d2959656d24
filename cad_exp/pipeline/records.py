"""Bring together what the judges said of every image of a run, and what its metrics compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cad_exp.evaluation import erasure
from cad_exp.evaluation.distances import Statistics
from cad_exp.evaluation.judge_sources import reference_digest
from cad_exp.evaluation.judges.base import Judge as AnyJudge
from cad_exp.evaluation.judges.inception import read_statistics
from cad_exp.evaluation.outliers import FEWEST, QUANTILE, World, spread
from cad_exp.pipeline.runtime import Runtime
from cad_exp.pipeline.stages.images import GivenImages
from cad_exp.pipeline.stages.judge import Judge
from cad_exp.pipeline.stages.judgements import Drawings, FolderFeatures
from cad_exp.pipeline.tasks.attribute import Attribute

Config = dict[str, Any]
Reference = np.ndarray | Statistics | None


def records(runtime: Runtime, graph: Attribute, config: Config) -> erasure.Records:
    """Return one row per image and variant, their features, and the reference of FID and KID."""
    assert graph.judge is not None
    judge = runtime.get(graph.judge)
    said: dict[str, pd.DataFrame] = {}
    features: list[np.ndarray] = []
    for variant, node in graph.judged.items():
        said[variant], parts = runtime.get(node)
        features += parts
    asked = "quality" in config["evaluation"]["metrics"] and "features" in judge.definitions
    reference, words = _reference(runtime, graph, config) if asked else (None, "")
    seen, table = np.concatenate(features), erasure.tabulate(graph.requests, said, judge)
    table["outside"], world_is = _outside(judge, table, seen)
    thresholds = (judge.threshold, judge.thresholds)

    def look(variant: str, numbers: list[int]) -> np.ndarray:
        return graph.pictures[variant].some(runtime, numbers)

    told = (judge.definitions, reference, words, *thresholds)
    return erasure.Records(table, seen, *told, world_is=world_is, look=look)


def _outside(judge: AnyJudge, table: pd.DataFrame, features: np.ndarray) -> tuple[np.ndarray, str]:
    """Return 1 for every image that nothing in the world resembles, else 0 (NaN: not known), and the rule in words.

    The world of some judges is drawn; that of all others is what the unedited model makes, whose image of the same
    prompt and seed is not looked at.
    """
    unknown, rule = np.full(len(table), np.nan), f"farther than {100 * QUANTILE:.0f} % of these from the others"
    if "features" not in judge.definitions:
        return unknown, ""
    if judge.draws:
        known = judge.world()
        if known is None:
            return unknown, ""
        what = f"{len(known)} drawings of the whole {judge.world_is}, {rule}"
        return World.of(known).outside(features).astype(float), f"judged by {what}"
    plain = (table["variant"] == "unedited").to_numpy()
    if plain.sum() < FEWEST:
        return unknown, ""
    row = table.groupby("variant", sort=False).cumcount().to_numpy()
    kept, own = spread(int(plain.sum())), np.full(plain.sum(), -1)
    own[kept] = np.arange(len(kept))
    what = f"{len(kept)} of the unedited model's images of other prompts and seeds, {rule}"
    return World.of(features[plain][kept]).outside(features, own[row]).astype(float), f"judged by {what}"


def _reference(runtime: Runtime, graph: Attribute, config: Config) -> tuple[Reference, str]:
    """Return what FID and KID compare with, and its name.

    It is the config's, or drawings of a drawn world; None: nothing.
    """
    assert graph.judge is not None
    judge = runtime.get(graph.judge)
    if not judge.draws:
        given = judge.reference()
        return _given(runtime, graph.judge, given) if given else (None, "")
    drawn = dict.fromkeys((each.kind, each.label) for each in graph.requests if each.purpose == "retention")
    if not set(judge.drawable()).issuperset(drawn):  # captions of a prompt set: there are no drawings of them
        return None, ""
    how = (config["evaluation"]["reference_samples"], config["evaluation"]["seed"])
    found = runtime.all([Drawings(graph.judge, *each, *how) for each in drawn], "reference")
    return np.concatenate(found), f"drawings of the {judge.world_is} that show what the prompts name"


def _given(runtime: Runtime, judge: Judge, place: Path) -> tuple[Reference, str]:
    """Return the statistics of a file, or the features of all images of a folder."""
    name = f"{place.name} {reference_digest(str(place))}"
    if place.is_file():
        return read_statistics(place), f"stored statistics {name}"
    images = GivenImages(str(place), "judge.inception.reference", 2)
    return runtime.get(FolderFeatures(judge, images)), f"folder {name}"
