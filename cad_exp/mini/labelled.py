"""Drawings with their labels, apart from all that the networks of this laboratory were trained and tested on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cad_exp.data.labelled import UNKNOWN, Labelled
from cad_exp.mini.world import NOTHING, PERSON, RECOLOURED, STYLES, Scene, captions, draw_with_mask

FIRST = 40_000_000  # the splits of the training data end before it
APART = 1_000_000  # drawings between two seeds


def drawn(numbers: Sequence[int], seed: int) -> Labelled:
    """Draw pictures by number.

    Of nudity only persons have a class. Of the colour those have none whose manner hides the backdrop.
    """
    made = (draw_with_mask(FIRST + APART * seed + int(number)) for number in numbers)
    pictures, masks, scenes = zip(*made, strict=True)
    labels = {
        "object": [scene.object for scene in scenes],
        "style": [scene.style for scene in scenes],
        "nudity": [int(scene.naked) if scene.object == PERSON else UNKNOWN for scene in scenes],
        "colour": [UNKNOWN if STYLES[scene.style] in RECOLOURED else scene.colour for scene in scenes],
    }
    told = [_fullest(scene) for scene in scenes]
    by_name = {name: np.array(each) for name, each in labels.items()}
    return Labelled(np.stack(pictures), by_name, told, np.stack(masks))


def _fullest(scene: Scene) -> str:
    """Return the caption that tells every class of the drawing."""
    plain = scene.object != NOTHING and STYLES[scene.style] in RECOLOURED  # such a manner hides the backdrop
    return captions(scene)[0 if plain else -1]
