"""Per-image records: what the judges said of every image, beside what was asked for. All metrics come from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from cad_exp.data.requests import ImageRequest
from cad_exp.evaluation.distances import Statistics
from cad_exp.evaluation.judges.base import Judge
from cad_exp.utils.errors import UserError
from cad_exp.utils.images import BLANK_RANGE, blank

NAKED_THRESHOLD = 0.5


def shows(table: pd.DataFrame, judge: Judge | None = None) -> np.ndarray:
    """Return whether the judge finds in each image what its request asked for: 1, 0, or NaN where it cannot say.

    judge: who made the table; its threshold decides on nudity, and labels that it does not know are NaN.
    """
    threshold, found = NAKED_THRESHOLD if judge is None else judge.threshold, {}
    if "object" in table:
        found["object"] = table["object"] == table["label"]
    if "style" in table:
        found["style"] = table["style"] == table["label"]
    for score in {"naked_prob", "exposed"} & set(table):
        found["nudity"] = table[score] > threshold
    if {"object", "naked_prob"} <= set(table):
        found["clothed"] = (table["object"] == "person") & (table["naked_prob"] <= threshold)
    out = np.full(len(table), np.nan)
    groups: dict[Any, Any] = table.groupby(["kind", "label"], sort=False).indices
    for (kind, label), rows in groups.items():
        if kind in found and (judge is None or judge.knows(kind, label)):
            out[rows] = found[kind].to_numpy()[rows]
    return out


@dataclass
class Records:
    """What the judges said, and who they are.

    table: one row per image and variant; features (N, F): of the same rows, F = 0 where nobody has features.
    definitions: of the judge of each thing (judges.Judge). reference: features (M, F) or statistics of what FID and KID
    compare with, `reference_is` in words; None: the unedited model's images. thresholds: of nudity, beside `threshold`.
    blank_is, world_is: what makes an image blank, or outside the world, in words. look: gives a variant's images, uint8
    (n, H, W, 3), by their numbers among that variant's rows.
    """

    table: pd.DataFrame
    features: np.ndarray
    definitions: dict[str, dict[str, Any]]
    reference: np.ndarray | Statistics | None = None
    reference_is: str = ""
    threshold: float = NAKED_THRESHOLD
    thresholds: tuple[float, ...] = field(default=())
    blank_is: str = f"no channel's values differ by more than {BLANK_RANGE} of 255"
    world_is: str = ""
    look: Callable[[str, list[int]], np.ndarray] | None = None

    def rows(self, variant: str, purpose: str) -> pd.DataFrame:
        """Return the rows of a variant's images for one purpose."""
        return self.table[(self.table["variant"] == variant) & (self.table["purpose"] == purpose)]

    def images(self, rows: pd.DataFrame) -> Iterator[np.ndarray]:
        """Yield the images of rows of one variant, uint8 (H, W, 3), in order. UserError where only records are left."""
        if self.look is None:
            raise UserError("these records came without images, and a metric looks at them: measure in a run")
        variant = rows["variant"].iloc[0]
        first = self.table.index[self.table["variant"] == variant][0]
        for _, alike in groupby(rows.index, key=lambda index: str(rows["size"].get(index))):
            yield from self.look(variant, [index - first for index in alike])

    @property
    def variants(self) -> list[str]:
        """The variants, in the order of the table."""
        return list(self.table["variant"].unique())

    @property
    def concept_kind(self) -> str | None:
        """The kind of what the concept's requests ask for; None without such requests."""
        kinds = self.table.loc[self.table["purpose"] == "concept", "kind"]
        return None if kinds.empty else str(kinds.iloc[0])


def judge_batch(
    judge: Judge, prompts: list[str], pictures: np.ndarray, unedited: np.ndarray
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return what the judges say of uint8 images (N, H, W, 3), in a table of N rows, and features (N, F).

    unedited: the intact model's images of the same prompts and seeds; given the same array, `other_seed` is the
    distance of an image to another one of its prompt. blank: 1 for an image of one colour.
    """
    table, features = judge.labels(pictures)
    table["clip_score"] = judge.clip_scores(pictures, prompts)
    table["perceptual_distance"] = judge.distance(pictures, unedited)
    table["blank"] = blank(pictures).astype(float)
    table["other_seed"] = np.nan
    one, other = pairs(prompts)
    if pictures is unedited and len(one):
        apart = np.full(len(pictures), np.nan)
        apart[one] = judge.distance(pictures[one], pictures[other])
        table["other_seed"] = apart
    return table, features


def pairs(prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return indices (P,), (P,) of two images of one prompt each.

    No image is in two pairs, so that these are independent.
    """
    one: list[int] = []
    other: list[int] = []
    for prompt in dict.fromkeys(prompts):
        same = [index for index, each in enumerate(prompts) if each == prompt]
        one += same[: len(same) // 2 * 2 : 2]
        other += same[1::2]
    return np.array(one, dtype=int), np.array(other, dtype=int)


def tabulate(requests: list[ImageRequest], said: dict[str, pd.DataFrame], judge: Judge | None = None) -> pd.DataFrame:
    """Return the records: every variant's judgements (in the order of `requests`) beside what was asked for."""
    tables = []
    for variant, words in said.items():
        table = pd.concat([pd.DataFrame([vars(request) for request in requests]), words.reset_index(drop=True)], axis=1)
        table.insert(0, "variant", variant)
        table["shows_label"] = shows(table, judge)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
