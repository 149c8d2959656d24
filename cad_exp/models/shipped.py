"""A model that a package ships: where its diffusers folder is, and what it knows of its world."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class Shipped:
    """One name of `model.path`, registered as `cad_exp.model`. Nothing of it loads torch.

    folder: of the pipeline. image_encoder: of a transformers CLIP that knows the model's world, if there is one. masks:
    whether its drawings, if it has any, say where their object is.
    """

    folder: Path
    image_encoder: Path | None = None
    masks: bool = False

    @classmethod
    def retention(cls) -> list[tuple[str, str, str]]:
        """Return (prompt, kind, label) of what an edit of the model should leave alone (data/requests.py)."""
        raise NotImplementedError

    @classmethod
    def classes(cls) -> dict[str, list[str]]:
        """Names of the classes of every label that its drawings have; without a world of drawings, nothing."""
        return {}

    @classmethod
    def captions(cls) -> Iterable[str] | None:
        """Return every caption that the model was trained with; None where nobody knows."""
        return None
