"""The images before the edit, after it and after a random one: of each prompt and seed one strip.

Only files of the run's `images/` are read, where explicit images are as the run was told to keep them. They are
covered here once more: no file that somebody laid there later is shown as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cad_exp.data.requests import ImageRequest
from cad_exp.evaluation import redaction
from cad_exp.evaluation.variants import VARIANTS
from cad_exp.reporting import contact_sheet
from cad_exp.reporting.html.pictures import COVERED, Picture, side_by_side
from cad_exp.reporting.html.source import Source

MOST = 120  # strips of one report
OF_CONCEPT = 48  # of them, at most of the concept's prompts
SIDES = (176, 112, 64)  # pixels of an image, at most; the first for which there is room
ROOM = 2_500_000  # characters of all strips together
TITLES = {"unedited": "before", "edited": "edited", "random": "random edit"}


@dataclass(frozen=True)
class Strip:
    """One prompt and seed. change: how far the edit moved the image; covered: how, if it is."""

    prompt: str
    seed: int
    concept: bool
    picture: Picture
    change: float | None
    covered: str


@dataclass(frozen=True)
class Gallery:
    """strips: in the order of the prompts; by: what `change` measures; of: so many there are in all."""

    variants: list[str]
    strips: list[Strip]
    prompts: list[str]
    by: str
    of: int
    covered: str


def gallery(source: Source) -> Gallery | None:
    """Return the strips of a run; None for a run without images."""
    rows = _requests(source)
    judged = {name for row in rows for name in row.variants}
    variants = [name for name in VARIANTS if (source.folder / "images" / name).is_dir() or name in judged]
    if not variants or not rows:
        return None
    strips = _strips(source, variants, [rows[number] for number in even(rows)])
    perceptual = any(row.distance is not None for row in rows)
    by = "perceptual distance to the image before" if perceptual else "difference of pixels to the image before"
    prompts = list(dict.fromkeys(strip.prompt for strip in strips))
    how = next((strip.covered for strip in strips if strip.covered), "")
    return Gallery([TITLES[name] for name in variants], strips, prompts, by, len(rows), how)


def _strips(source: Source, variants: list[str], rows: list[Shown]) -> list[Strip]:
    """Return the strips, as large as the report has room for."""
    found: list[Strip] = []
    for side in SIDES:
        reader = Reader(source, side)
        found = [_strip(reader, variants, row) for row in rows]
        if sum(len(strip.picture.uri) for strip in found) <= ROOM:
            break
    return found


@dataclass(frozen=True)
class Shown:
    """A request of the run. distance: of its edited image to the one before, where it is known; variants: judged."""

    request: ImageRequest
    distance: float | None
    variants: tuple[str, ...]


def _requests(source: Source) -> list[Shown]:
    """Return what was asked for, by the records; without a judge by the names of the files."""
    records = source.table("records.parquet")
    if records is None:
        return _by_name(source)
    keys = ["purpose", "prompt", "seed", "row"]
    said_of: dict[tuple[Any, ...], dict[str, dict[Any, Any]]] = {}
    for record in records.to_dict("records"):
        said_of.setdefault(tuple(record[key] for key in keys), {})[str(record["variant"])] = record
    found = []
    for (purpose, prompt, seed, number), said in said_of.items():
        first = next(iter(said.values()))
        what = (str(first["kind"]), str(first["label"]))
        asked = ImageRequest(str(purpose), str(prompt), int(seed), *what, row=str(number))
        found.append(Shown(asked, _finite(said.get("edited", {}).get("perceptual_distance")), tuple(said)))
    return found


def _by_name(source: Source) -> list[Shown]:
    """Name the requests by their files: words of the prompt, and the seed."""
    found = []
    kind = str(source.setting("concept", "kind") or "")
    for file in sorted((source.folder / "images" / VARIANTS[0]).glob("*/*.png")):
        words, _, seed = file.stem.rpartition("-")
        purpose = file.parent.name
        asked = ImageRequest(purpose, words.replace("_", " "), int(seed) if seed.isdigit() else 0, kind, "")
        found.append(Shown(asked if purpose == "concept" else _other(asked), None, ()))
    return found


def _other(request: ImageRequest) -> ImageRequest:
    return ImageRequest(request.purpose, request.prompt, request.seed, "", "")


def even(rows: Sequence[Shown]) -> list[int]:
    """Choose so many as a report holds: the first seeds of every prompt, the concept's prompts first."""
    by_prompt: dict[tuple[bool, str], list[int]] = {}
    for number, row in enumerate(rows):
        by_prompt.setdefault((row.request.purpose != "concept", row.request.prompt), []).append(number)
    chosen: list[int] = []
    for rest, most in ((False, OF_CONCEPT), (True, MOST)):
        own = [numbers for (other, _), numbers in by_prompt.items() if other == rest]
        most = most if not rest else MOST - len(chosen)
        depth = max((len(numbers) for numbers in own), default=0)
        turns = [numbers[turn] for turn in range(depth) for numbers in own if turn < len(numbers)]
        chosen += sorted(turns[: max(0, most)])
    return chosen


class Reader:
    """Reads images of a run's folder as they may be shown."""

    def __init__(self, source: Source, side: int = SIDES[0]):
        self.source, self.side = source, side

    @cached_property
    def mode(self) -> str:
        """What becomes of explicit images: kept, blurred or dropped; dropped where the run does not say."""
        told = self.source.run.get("explicit")
        if told in redaction.MODES[1:]:
            return str(told)
        config = self.source.config
        return redaction.mode(config) if {"evaluation", "judge"} <= set(config) else "dropped"

    def how(self, request: ImageRequest) -> str:
        """Return what becomes of a request's image: kept, blurred or dropped."""
        return self.mode if request.kind in redaction.KINDS else "kept"

    def read(self, name: str, request: ImageRequest) -> Image.Image | None:
        """Return an image of the run, small enough and covered as configured; None for one that is not there."""
        file = self.source.folder / name
        if self.how(request) == "dropped" or not _inside(self.source.folder, file):
            return None
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        if self.how(request) == "blurred":
            image = redaction.blurred(image)
        image.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)  # never larger than it is
        return image


def _inside(folder: Path, file: Path) -> bool:
    """Whether it is a file of the folder itself, and no link to elsewhere."""
    return file.is_file() and file.resolve().is_relative_to(folder.resolve())


def _strip(reader: Reader, variants: list[str], row: Shown) -> Strip:
    asked = row.request
    found = [reader.read(f"images/{name}/{contact_sheet.file_name(asked)}", asked) for name in variants]
    size = next((image.size for image in found if image is not None), (64, 64))
    images = [image or Image.new("RGB", size, COVERED) for image in found]
    how = reader.how(asked)
    covered = {"kept": "", "blurred": "blurred", "dropped": "not kept"}[how]
    named = ", ".join(TITLES[name] for name in variants)
    alt = f"{asked.prompt}, seed {asked.seed}: {named}" + (f" (explicit, {covered})" if covered else "")
    change = row.distance if row.distance is not None else _difference(variants, found)
    return Strip(asked.prompt, asked.seed, asked.purpose == "concept", side_by_side(images, alt), change, covered)


def _difference(variants: list[str], found: list[Image.Image | None]) -> float | None:
    """Return the root mean square difference of the edited image to the unedited one, of 1."""
    images = dict(zip(variants, found, strict=True))
    one, other = images.get("unedited"), images.get("edited")
    if one is None or other is None:
        return None
    apart = np.asarray(one, dtype=float) - np.asarray(other, dtype=float)
    return float(np.sqrt((apart**2).mean()) / 255)


def _finite(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)
