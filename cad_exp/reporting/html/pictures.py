"""Image files as data of the page, no larger than they are shown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

WIDEST = 1600  # pixels of a figure: sharp on a screen of twice the density
QUALITY = 85
COVERED = (128, 128, 128)  # as on the sheet of before and after


@dataclass(frozen=True)
class Picture:
    """A picture in the page. uri: its data; width, height: in pixels; alt: what it shows, in words."""

    uri: str
    width: int
    height: int
    alt: str


def figure(file: Path, alt: str, widest: int = WIDEST) -> Picture:
    """Return a figure of the run, made smaller where it is wider than `widest` pixels."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    if image.width > widest:
        image = image.resize((widest, round(image.height * widest / image.width)), Image.Resampling.LANCZOS)
    return Picture(_uri(image, QUALITY), *image.size, alt)


def side_by_side(images: Sequence[Image.Image], alt: str, quality: int = QUALITY) -> Picture:
    """Return images of one size in a row, as one picture."""
    width, height = images[0].size
    row = Image.new("RGB", (width * len(images), height), COVERED)
    for number, image in enumerate(images):
        row.paste(image, (number * width, 0))
    return Picture(_uri(row, quality), *row.size, alt)


def _uri(image: Image.Image, quality: int) -> str:
    data = BytesIO()
    image.save(data, format="WEBP", quality=quality, method=4)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
