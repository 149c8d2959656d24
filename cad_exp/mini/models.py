"""The two embedded models, as the registry of models finds them. Their world is imported when somebody asks for it."""

from __future__ import annotations

from collections.abc import Sequence

from cad_exp.data.labelled import Labelled
from cad_exp.data.requests import things
from cad_exp.mini import CLIP, PIPELINE, PIPELINE_DIT
from cad_exp.models.shipped import Shipped


class Mini(Shipped):
    """The UNet, which predicts noise."""

    folder = PIPELINE
    image_encoder = CLIP
    masks = True

    @classmethod
    def retention(cls) -> list[tuple[str, str, str]]:
        """Return a prompt for every object and every style of the world."""
        from cad_exp.mini.world import OBJECTS, STYLES

        return things(OBJECTS, STYLES[1:])

    @classmethod
    def classes(cls) -> dict[str, list[str]]:
        """Return what a drawing shows: its object, style, nudity and backdrop."""
        from cad_exp.mini.world import COLOURS, LABELS, STYLES

        return {"object": LABELS, "style": STYLES, "nudity": ["clothed", "naked"], "colour": COLOURS}

    @classmethod
    def drawn(cls, numbers: Sequence[int], seed: int) -> Labelled:
        """Draw pictures that no network of this laboratory was trained on, with their labels and a full caption."""
        from cad_exp.mini.labelled import drawn

        return drawn(numbers, seed)

    @classmethod
    def captions(cls) -> list[str]:
        """Return every caption of the world."""
        from cad_exp.mini.world import all_captions

        return all_captions()


class MiniDit(Mini):
    """The transformer, which predicts a flow."""

    folder = PIPELINE_DIT
