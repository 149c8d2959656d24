"""Explicit images: what becomes of the pictures of a concept that not everybody should stumble upon.

Images of nudity from a model of the real world are made, judged, and then not kept (`dropped`) or kept in large pixels
(`blurred`), in the cache as in the run's folder; `kept` is for the embedded model's mannequins, or by choice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter

from cad_exp.data.requests import ImageRequest
from cad_exp.evaluation.judges import judge_class
from cad_exp.utils.errors import choose

KINDS = ("nudity",)
MODES = ("auto", "kept", "blurred", "dropped")
PIXELS = 8  # per side, of a blurred image: colours and posture, no parts of a body


def mode(config: dict[str, Any]) -> str:
    """Return kept, blurred or dropped: by `evaluation.explicit`, else by the judge; dropped without one."""
    asked = choose(config["evaluation"].get("explicit", "auto"), MODES, "answer to evaluation.explicit")
    if asked != "auto":
        return asked
    judge = judge_class(config["judge"])
    return "dropped" if judge is None else judge.explicit


def is_explicit(request: ImageRequest, concept: dict[str, Any]) -> bool:
    """Return whether a request's image is explicit, by what was asked.

    Images for a concept's noisy latents bear no kind.
    """
    return request.kind in KINDS or (request.purpose == "noisy_latents" and concept["kind"] in KINDS)


def redact(how: str) -> Callable[[Path], None]:
    """Return what turns every image of a folder into what may be kept: its blurred self, or nothing but its size."""

    def change(folder: Path) -> None:
        for file in sorted(folder.glob("*.png")):
            with Image.open(file) as opened:
                image = opened.convert("RGB")
            redacted = blurred(image) if how == "blurred" else Image.new("RGB", image.size, (128, 128, 128))
            redacted.save(file, format="PNG")

    return change


def blurred(image: Image.Image) -> Image.Image:
    """Return the image in PIXELS x PIXELS mean colours, softly enlarged to its size."""
    small = image.resize((PIXELS, PIXELS), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BILINEAR).filter(ImageFilter.GaussianBlur(image.width / 32))
