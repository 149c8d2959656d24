"""The two embedded models, as the registry of models finds them. Their world is imported when somebody asks for it."""

from __future__ import annotations

from cad_exp.data.requests import things
from cad_exp.mini import PIPELINE, PIPELINE_DIT
from cad_exp.models.shipped import Shipped


class Mini(Shipped):
    """The UNet, which predicts noise."""

    folder = PIPELINE

    @classmethod
    def retention(cls) -> list[tuple[str, str, str]]:
        """Return a prompt for every object and every style of the world."""
        from cad_exp.mini.world import OBJECTS, STYLES

        return things(OBJECTS, STYLES[1:])

    @classmethod
    def captions(cls) -> list[str]:
        """Return every caption of the world."""
        from cad_exp.mini.world import all_captions

        return all_captions()


class MiniDit(Mini):
    """The transformer, which predicts a flow."""

    folder = PIPELINE_DIT
