"""A model that comes with a package, and says what it knows of its world."""

from pathlib import Path

import cad_exp.mini
from cad_exp.data.requests import things
from cad_exp.models.shipped import Shipped


class Little(Shipped):
    """Your own diffusers folder, inside the package; here the embedded one stands for it."""

    folder = Path(cad_exp.mini.PIPELINE)

    @classmethod
    def retention(cls) -> list[tuple[str, str, str]]:
        return things(objects=["church", "tench"], artists=[])
