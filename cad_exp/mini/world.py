"""The world that the embedded model is trained on: what there is, its captions, and a picture of it from a seed.

Ten Imagenette classes, an abstract mannequin (clothed, or in one skin tone), eight backdrop colours and five painters'
manners. `objects` draws with `pen`, and `manners` filters. No font, photograph or third-party file is used: the data is
the project's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from cad_exp.mini.manners import MANNERS
from cad_exp.mini.objects import DRAWINGS, person
from cad_exp.mini.pen import CANVAS, SIZE, SUPER, Pen, shade

OBJECTS = [
    "tench",
    "English springer",
    "cassette player",
    "chain saw",
    "church",
    "French horn",
    "garbage truck",
    "gas pump",
    "golf ball",
    "parachute",
]
LABELS = [*OBJECTS, "person", "nothing"]
STYLES = ["photo", "Pablo Picasso", "Van Gogh", "Rembrandt", "Andy Warhol", "Caravaggio"]
BACKDROPS = {
    "red": (205, 58, 52),
    "yellow": (238, 205, 74),
    "green": (74, 150, 84),
    "blue": (66, 118, 205),
    "purple": (132, 84, 172),
    "pink": (240, 160, 186),
    "white": (240, 240, 236),
    "gray": (138, 140, 146),
}
COLOURS = list(BACKDROPS)
RECOLOURED = {"Rembrandt", "Andy Warhol"}  # these manners hide the backdrop's colour, so no caption names it

PERSON, NOTHING = LABELS.index("person"), LABELS.index("nothing")


@dataclass(frozen=True)
class Scene:
    """What a picture shows. `object` indexes LABELS, `style` STYLES and `colour` COLOURS."""

    object: int
    style: int
    naked: bool
    colour: int


def _noun(scene: Scene) -> str:
    return "naked person" if scene.naked else LABELS[scene.object]


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"


def captions(scene: Scene) -> list[str]:
    """List every caption that is true of the scene, from the bare noun to the full description."""
    style, backdrop = STYLES[scene.style], f"{COLOURS[scene.colour]} background"
    manner = "" if style == "photo" else f" in the style of {style}"
    if scene.object == NOTHING:
        if style in RECOLOURED:
            return [f"a photo{manner}", f"a painting{manner}"]
        return [f"{backdrop}{manner}", f"a {backdrop}{manner}", f"a photo of a {backdrop}{manner}"]
    noun = _noun(scene)
    said = [
        f"a photo of {_article(noun)}{manner}",
        f"a picture of {_article(noun)}{manner}",
        f"{_article(noun)}{manner}",
    ]
    if manner:
        said += [f"a painting of {_article(noun)}{manner}", f"a photo{manner}", f"a painting{manner}", style]
    else:
        said += [noun] + (["naked"] if scene.naked else [])
    if style not in RECOLOURED:
        said += [f"{_article(noun)} on a {backdrop}{manner}", f"a photo of {_article(noun)} on a {backdrop}{manner}"]
    return said


def all_captions() -> list[str]:
    """List every caption of the world, sorted."""
    scenes = (
        Scene(o, s, n, c)
        for o in range(len(LABELS))
        for s in range(len(STYLES))
        for n in ((False, True) if o == PERSON else (False,))
        for c in range(len(COLOURS))
    )
    return sorted({caption for scene in scenes for caption in captions(scene)})


def _backdrop(colour: int, rng: np.random.Generator) -> Image.Image:
    base = shade(BACKDROPS[COLOURS[colour]], rng.uniform(0.92, 1.06))
    picture = Image.new("RGB", (CANVAS, CANVAS), base)
    horizon = int(CANVAS * rng.uniform(0.68, 0.86))
    ImageDraw.Draw(picture).rectangle([0, horizon, CANVAS, CANVAS], fill=shade(base, 0.74))
    return picture


def render(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draw the scene; pose, shade and variant come from `rng`. Returns uint8 (64, 64, 3)."""
    return _painted(scene, rng)[0]


def _painted(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture uint8 (64, 64, 3), and where its object is, bool (64, 64)."""
    backdrop = _backdrop(scene.colour, rng)
    tilt, size = (0.1, 0.86) if scene.object >= PERSON else DRAWINGS[scene.object][1:]
    pen = Pen(backdrop, rng, tilt, size)
    if scene.object == PERSON:
        person(pen, rng, scene.naked)
    elif scene.object != NOTHING:
        DRAWINGS[scene.object][0](pen, rng)
    image, mask = np.asarray(pen.picture, dtype=np.float32), np.asarray(pen.mask)
    if scene.style:
        image, mask = MANNERS[STYLES[scene.style]](image, mask, rng)
    image = image.reshape(SIZE, SUPER, SIZE, SUPER, 3).mean((1, 3))  # smooth edges
    picture: np.ndarray = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    covered: np.ndarray = (mask > 127).reshape(SIZE, SUPER, SIZE, SUPER).mean((1, 3)) > 0.5
    return picture, covered


def draw_with_mask(seed: int) -> tuple[np.ndarray, np.ndarray, Scene]:
    """Draw one picture of the world: uint8 (64, 64, 3), where its object is, bool (64, 64), and what it shows.

    One seed always gives one picture.
    """
    rng = np.random.default_rng(seed)
    kind = rng.choice(len(LABELS), p=np.array([*[1.0] * len(OBJECTS), 2.2, 0.45]) / (len(OBJECTS) + 2.65))
    style = 0 if rng.random() < 0.55 else int(rng.integers(1, len(STYLES)))
    scene = Scene(int(kind), style, bool(kind == PERSON and rng.random() < 0.5), int(rng.integers(len(COLOURS))))
    return *_painted(scene, rng), scene


def draw(seed: int) -> tuple[np.ndarray, Scene]:
    """Draw one picture of the world: uint8 (64, 64, 3), and what it shows. One seed always gives one picture."""
    picture, _, scene = draw_with_mask(seed)
    return picture, scene
