"""What one component alone does to images: the same prompts and seeds, with only this component switched off."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from PIL import Image

from cad_exp.data.requests import ImageRequest
from cad_exp.reporting import contact_sheet
from cad_exp.reporting.html.components import named
from cad_exp.reporting.html.gallery import Reader
from cad_exp.reporting.html.pictures import COVERED, Picture, side_by_side
from cad_exp.reporting.html.source import Source

TABLE = "counterfactuals.parquet"


@dataclass(frozen=True)
class Pair:
    """The image before, and with one component switched off. caption: prompt and seed."""

    caption: str
    picture: Picture


@dataclass(frozen=True)
class Off:
    """A component that was switched off alone."""

    name: str
    score: float
    makes: bool
    pairs: list[Pair]


def counterfactuals(source: Source) -> list[Off] | None:
    """Return the components that were switched off alone; None where none were."""
    table = source.table(TABLE)
    if table is None or table.empty:
        return None
    reader, names = Reader(source), named(source)
    found = []
    for _, own in table.groupby("component", sort=False):
        component, score = int(own["component"].iloc[0]), float(own["score"].iloc[0])
        name = str(own["name"].iloc[0])
        if names is not None and 0 <= component < len(names.names):
            name = f"{names.layers[component]} · {names.names[component]}"
        pairs = [_pair(reader, name, row) for _, row in own.iterrows()]
        found.append(Off(name, score, score > 0, pairs))
    return found


def _pair(reader: Reader, name: str, row: pd.Series) -> Pair:
    prompt, seed = str(row["prompt"]), int(row["seed"])
    asked = ImageRequest(str(row["purpose"]), prompt, seed, str(row["kind"]), str(row["label"]), row=str(row["row"]))
    files = (f"images/unedited/{contact_sheet.file_name(asked)}", str(row["file"]))
    images = [reader.read(file, asked) for file in files]
    size = next((image.size for image in images if image is not None), (64, 64))
    alt = f"{prompt}, seed {seed}: before, and with only {name} switched off"
    shown = [image or Image.new("RGB", size, COVERED) for image in images]
    return Pair(f"{prompt}, seed {seed}", side_by_side(shown, alt))
