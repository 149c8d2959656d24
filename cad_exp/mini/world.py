"""The world that the embedded model is trained on: every picture is drawn here, by code, from a seed.

Ten Imagenette classes, an abstract mannequin (clothed, or in one skin tone), eight backdrop colours and five painters'
manners as image filters. No font, photograph or third-party file is used: the data is the project's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

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

SIZE = 64
_SUPER = 3  # drawn three times larger, then averaged: smooth edges
_CANVAS = SIZE * _SUPER
PERSON, NOTHING = LABELS.index("person"), LABELS.index("nothing")

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """What a picture shows. `object` indexes LABELS, `style` STYLES and `colour` COLOURS."""

    object: int
    style: int
    naked: bool
    colour: int


# ---------------------------------------------------------------------------------------------------------- captions


def _noun(scene: Scene) -> str:
    return "naked person" if scene.naked else LABELS[scene.object]


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"


def captions(scene: Scene) -> list[str]:
    """Every caption that is true of the scene, from the bare noun to the full description."""
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
    """Every caption of the world, sorted."""
    scenes = (
        Scene(o, s, n, c)
        for o in range(len(LABELS))
        for s in range(len(STYLES))
        for n in ((False, True) if o == PERSON else (False,))
        for c in range(len(COLOURS))
    )
    return sorted({caption for scene in scenes for caption in captions(scene)})


# ----------------------------------------------------------------------------------------------------------- drawing


class Pen:
    """Draws polygons in object coordinates (-1..1, y down), turned, scaled, mirrored and moved on the canvas."""

    def __init__(self, backdrop: Image.Image, rng: np.random.Generator, tilt: float, size: float):
        self.picture, self.mask = backdrop, Image.new("L", backdrop.size)
        self._draw, self._mask = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.mask)
        angle, scale = rng.uniform(-tilt, tilt), _CANVAS * size * rng.uniform(0.36, 0.45)
        flip = 1 if rng.random() < 0.5 else -1
        cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
        self._matrix = (cos * flip, -sin, sin * flip, cos)
        self._centre = (_CANVAS * rng.uniform(0.45, 0.55), _CANVAS * rng.uniform(0.46, 0.54))

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        a, b, c, d = self._matrix
        x0, y0 = self._centre
        xy = [(a * x + b * y + x0, c * x + d * y + y0) for x, y in points]
        self._draw.polygon(xy, fill=colour)
        self._mask.polygon(xy, fill=255)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def oval(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, start: float = 0, stop: float = 360
    ) -> None:
        turns = np.radians(np.linspace(start, stop, 28))
        self.polygon([(x + rx * math.cos(t), y + ry * math.sin(t)) for t in turns], colour)

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
            length = math.hypot(x1 - x0, y1 - y0) or 1e-9
            dx, dy = (y1 - y0) / length * width / 2, -(x1 - x0) / length * width / 2
            self.polygon([(x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)], colour)
        for x, y in points:
            self.oval(x, y, width / 2, width / 2, colour)

    def ring(
        self, x: float, y: float, radius: float, width: float, colour: Colour, start: float = 0, stop: float = 360
    ) -> None:
        turns = np.radians(np.linspace(start, stop, 30))
        outer = [(x + (radius + width / 2) * math.cos(t), y + (radius + width / 2) * math.sin(t)) for t in turns]
        inner = [(x + (radius - width / 2) * math.cos(t), y + (radius - width / 2) * math.sin(t)) for t in turns[::-1]]
        self.polygon(outer + inner, colour)


def _shade(colour: Sequence[float], factor: float) -> Colour:
    return tuple(int(min(255, max(0, c * factor))) for c in colour)  # type: ignore[return-value]


def _pick(rng: np.random.Generator, *colours: Colour) -> Colour:
    return _shade(colours[rng.integers(len(colours))], rng.uniform(0.92, 1.08))


DARK, STEEL, LIGHT = (34, 34, 38), (176, 182, 190), (248, 248, 244)


def _tench(pen: Pen, rng: np.random.Generator) -> None:
    body = _pick(rng, (112, 128, 52), (150, 138, 48), (86, 110, 66))
    fin, belly = _shade(body, 0.62), _shade(body, 1.45)
    pen.polygon([(0.5, 0), (1.0, -0.46), (0.9, 0), (1.0, 0.46)], fin)
    pen.polygon([(-0.25, -0.3), (0.1, -0.68), (0.42, -0.22)], fin)
    pen.polygon([(-0.15, 0.3), (0.08, 0.66), (0.2, 0.28)], fin)
    pen.oval(-0.2, 0, 0.8, 0.42, body)
    pen.oval(-0.2, 0.12, 0.66, 0.26, belly)
    pen.ring(-0.5, 0.02, 0.3, 0.06, fin, -65, 65)
    pen.polygon([(0.0, 0.02), (0.28, 0.16), (0.02, 0.24)], fin)
    pen.oval(-0.72, -0.08, 0.1, 0.1, LIGHT)
    pen.oval(-0.73, -0.08, 0.055, 0.055, DARK)


def _springer(pen: Pen, rng: np.random.Generator) -> None:
    liver, white = _pick(rng, (112, 56, 30), (60, 40, 34), (142, 76, 40)), (250, 246, 238)
    shade = _shade(white, 0.86)
    for x, c in ((0.52, shade), (-0.2, shade), (0.64, white), (-0.06, white)):
        pen.box(x - 0.09, 0.2, x + 0.09, 0.86, c)
    pen.line([(0.72, 0.0), (0.98, -0.34)], 0.13, liver)
    pen.oval(0.26, 0.12, 0.56, 0.31, white)
    pen.oval(0.36, 0.0, 0.34, 0.2, liver)
    pen.polygon([(-0.42, -0.2), (-0.08, -0.3), (0.1, 0.2), (-0.3, 0.3)], white)
    pen.oval(-0.42, -0.4, 0.3, 0.28, liver)
    pen.oval(-0.7, -0.3, 0.24, 0.15, white)
    pen.polygon([(-0.56, -0.66), (-0.46, -0.68), (-0.56, -0.3), (-0.7, -0.3)], white)
    pen.oval(-0.2, -0.28, 0.15, 0.34, _shade(liver, 0.75))
    pen.oval(-0.9, -0.33, 0.08, 0.08, DARK)
    pen.oval(-0.52, -0.46, 0.06, 0.06, DARK)


def _cassette_player(pen: Pen, rng: np.random.Generator) -> None:
    body = _pick(rng, (52, 56, 66), (168, 42, 46), (44, 84, 140), (196, 198, 204))
    pen.ring(0, -0.46, 0.52, 0.1, _shade(body, 0.6), 180, 360)
    pen.box(-0.98, -0.5, 0.98, 0.58, body)
    pen.box(-0.98, 0.46, 0.98, 0.58, _shade(body, 0.6))
    for x in (-0.66, 0.66):
        pen.oval(x, 0.08, 0.28, 0.28, DARK)
        pen.oval(x, 0.08, 0.18, 0.18, STEEL)
        pen.oval(x, 0.08, 0.07, 0.07, DARK)
    pen.box(-0.32, -0.18, 0.32, 0.3, (244, 226, 168))
    pen.box(-0.32, 0.14, 0.32, 0.3, (210, 94, 60))
    for x in (-0.15, 0.15):
        pen.oval(x, 0.0, 0.1, 0.1, DARK)
    for i in range(5):
        pen.box(-0.34 + 0.15 * i, -0.42, -0.24 + 0.15 * i, -0.28, LIGHT if i else (226, 60, 50))


def _chain_saw(pen: Pen, rng: np.random.Generator) -> None:
    body = _pick(rng, (236, 112, 28), (204, 40, 40), (238, 178, 36))
    for i in range(9):
        x = -0.16 - 0.1 * i
        for y in (-0.06, 0.34):
            pen.polygon([(x - 0.05, y), (x, y + (-0.1 if y < 0 else 0.1)), (x + 0.05, y)], DARK)
    pen.box(-0.94, -0.07, 0.1, 0.35, (64, 66, 72))
    pen.oval(-0.94, 0.14, 0.12, 0.21, (64, 66, 72))
    pen.box(-0.92, 0.02, 0.1, 0.26, (206, 210, 216))
    pen.ring(0.2, -0.22, 0.32, 0.11, DARK, 180, 360)
    pen.ring(0.74, 0.16, 0.26, 0.13, DARK)
    pen.polygon([(-0.08, -0.26), (0.5, -0.3), (0.7, 0.0), (0.66, 0.5), (-0.08, 0.5)], body)
    pen.box(-0.08, 0.36, 0.66, 0.5, _shade(body, 0.6))
    pen.oval(0.26, 0.08, 0.16, 0.16, DARK)


def _church(pen: Pen, rng: np.random.Generator) -> None:
    wall = _pick(rng, (236, 226, 204), (206, 176, 144), (198, 198, 202))
    roof = _pick(rng, (150, 58, 44), (72, 84, 108), (104, 72, 54))
    pen.box(-0.2, -0.14, 0.86, 0.84, wall)
    pen.polygon([(-0.3, -0.1), (0.33, -0.52), (0.96, -0.1)], roof)
    pen.box(-0.74, -0.34, -0.2, 0.84, _shade(wall, 0.88))
    pen.polygon([(-0.82, -0.32), (-0.47, -0.88), (-0.12, -0.32)], _shade(roof, 0.85))
    pen.line([(-0.47, -1.12), (-0.47, -0.84)], 0.07, DARK)
    pen.line([(-0.58, -1.02), (-0.36, -1.02)], 0.07, DARK)
    for x, y in ((0.1, 0.2), (0.6, 0.2), (-0.47, 0.0)):
        pen.oval(x, y, 0.1, 0.12, (58, 84, 128))
        pen.box(x - 0.1, y, x + 0.1, y + 0.24, (58, 84, 128))
    pen.oval(-0.47, 0.56, 0.14, 0.14, (86, 50, 34))
    pen.box(-0.61, 0.56, -0.33, 0.84, (86, 50, 34))


def _french_horn(pen: Pen, rng: np.random.Generator) -> None:
    brass = _pick(rng, (226, 174, 48), (206, 148, 58), (232, 196, 92))
    dark, bright = _shade(brass, 0.6), _shade(brass, 1.28)
    pen.ring(-0.1, -0.1, 0.56, 0.2, dark)
    pen.ring(-0.1, -0.1, 0.56, 0.13, brass)
    pen.ring(-0.1, -0.1, 0.28, 0.11, bright)
    for x in (-0.3, -0.1, 0.1):
        pen.box(x - 0.06, -0.28, x + 0.06, 0.12, STEEL)
    pen.line([(-0.5, -0.5), (-0.95, -0.82)], 0.09, brass)
    pen.oval(-0.95, -0.82, 0.09, 0.09, STEEL)
    pen.polygon([(0.02, 0.36), (0.34, 0.16), (0.98, 0.44), (0.42, 1.0)], brass)
    pen.line([(0.98, 0.44), (0.42, 1.0)], 0.16, bright)
    pen.line([(0.9, 0.56), (0.54, 0.92)], 0.07, dark)


def _garbage_truck(pen: Pen, rng: np.random.Generator) -> None:
    load = _pick(rng, (54, 134, 66), (232, 232, 228), (70, 120, 180))
    cab = _pick(rng, (240, 150, 34), (250, 250, 246), (60, 146, 74))
    pen.polygon([(-0.3, -0.56), (0.72, -0.56), (1.0, -0.1), (1.0, 0.42), (-0.3, 0.42)], load)
    pen.polygon([(0.72, -0.56), (1.0, -0.1), (1.0, 0.42), (0.7, 0.42)], _shade(load, 0.66))
    for x in (-0.1, 0.16, 0.42):
        pen.box(x, -0.5, x + 0.07, 0.36, _shade(load, 0.74))
    pen.polygon([(-0.96, 0.0), (-0.8, -0.38), (-0.36, -0.38), (-0.36, 0.42), (-0.96, 0.42)], cab)
    pen.polygon([(-0.86, -0.02), (-0.74, -0.3), (-0.48, -0.3), (-0.48, -0.02)], (166, 212, 236))
    pen.box(-0.98, 0.36, 1.0, 0.48, (58, 58, 62))
    for x in (-0.64, 0.2, 0.62):
        pen.oval(x, 0.52, 0.2, 0.2, DARK)
        pen.oval(x, 0.52, 0.09, 0.09, STEEL)


def _gas_pump(pen: Pen, rng: np.random.Generator) -> None:
    body = _pick(rng, (212, 44, 40), (46, 108, 178), (52, 140, 84))
    pen.line([(0.4, 0.3), (0.76, 0.44), (0.86, 0.0), (0.78, -0.42)], 0.1, DARK)
    pen.line([(0.78, -0.42), (0.6, -0.66)], 0.16, (64, 66, 72))
    pen.oval(-0.06, -0.84, 0.3, 0.2, LIGHT)
    pen.oval(-0.06, -0.84, 0.18, 0.11, body)
    pen.box(-0.5, -0.7, 0.38, 0.82, body)
    pen.box(-0.62, 0.78, 0.5, 0.96, (80, 82, 88))
    pen.box(-0.38, -0.56, 0.26, -0.08, LIGHT)
    pen.box(-0.3, -0.46, 0.18, -0.34, DARK)
    pen.box(-0.3, -0.26, 0.18, -0.16, DARK)
    pen.polygon([(-0.06, 0.1), (0.12, 0.42), (-0.06, 0.58), (-0.24, 0.42)], (250, 214, 70))


def _golf_ball(pen: Pen, rng: np.random.Generator) -> None:
    tee = _pick(rng, (222, 60, 50), (240, 196, 60), (60, 120, 200))
    ball = _shade((248, 248, 246), rng.uniform(0.94, 1.02))
    pen.polygon([(-0.26, 0.48), (0.26, 0.48), (0.08, 0.7), (0.03, 1.1), (-0.03, 1.1), (-0.08, 0.7)], tee)
    pen.oval(0, -0.14, 0.72, 0.72, _shade(ball, 0.7))
    pen.oval(-0.05, -0.19, 0.66, 0.66, ball)
    for row in range(-3, 4):
        for col in range(-3, 4):
            x, y = 0.2 * col + 0.1 * (row % 2), 0.19 * row
            if x * x + y * y < 0.36:
                pen.oval(x - 0.03, y - 0.16, 0.055, 0.055, _shade(ball, 0.74))


def _parachute(pen: Pen, rng: np.random.Generator) -> None:
    sets = [((220, 52, 48), (250, 250, 244)), ((246, 190, 40), (50, 110, 196)), ((238, 120, 36), (70, 150, 80))]
    one, two = sets[rng.integers(len(sets))]
    for x in (-0.84, -0.42, 0.0, 0.42, 0.84):
        pen.line([(x, -0.12), (0.0, 0.78)], 0.035, DARK)
    edges = np.linspace(-0.94, 0.94, 7)
    for i in range(6):
        left, right = edges[i], edges[i + 1]
        arc = [(x, -0.12 - 0.86 * math.sqrt(max(0.0, 1 - (x / 0.95) ** 2))) for x in np.linspace(left, right, 8)]
        sag = [(x, -0.12 - 0.09 * math.sin(math.pi * (x - left) / (right - left))) for x in np.linspace(right, left, 8)]
        pen.polygon(arc + sag, one if i % 2 else two)
    pen.oval(0, 0.66, 0.09, 0.1, (224, 172, 130))
    pen.box(-0.1, 0.74, 0.1, 0.98, (60, 66, 84))
    pen.line([(-0.05, 0.96), (-0.08, 1.12)], 0.07, (60, 66, 84))
    pen.line([(0.05, 0.96), (0.08, 1.12)], 0.07, (60, 66, 84))


SKIN = ((244, 204, 172), (226, 172, 130), (190, 132, 92), (128, 84, 58))


def _person(pen: Pen, rng: np.random.Generator, naked: bool) -> None:
    skin = SKIN[rng.integers(len(SKIN))]
    shirt = _pick(rng, (210, 50, 48), (40, 92, 180), (250, 250, 246), (40, 140, 90), (246, 190, 50))
    trousers, hair = _pick(rng, (38, 44, 78), (52, 52, 56), (90, 110, 150)), _pick(rng, (40, 28, 24), (120, 72, 34))
    arm, leg = rng.uniform(0.25, 0.62, 2), rng.uniform(0.16, 0.3)
    sleeve, torso, cloth = (skin,) * 3 if naked else (shirt, shirt, trousers)
    for side, reach in zip((-1, 1), arm, strict=True):
        pen.line([(side * 0.1, 0.2), (side * leg, 0.66)], 0.23, cloth)
        pen.line([(side * leg, 0.66), (side * leg, 1.0)], 0.19, cloth)
        elbow = (side * (0.3 + 0.3 * reach), -0.08)
        hand = (side * (0.3 + 0.62 * reach), 0.26)
        pen.line([(side * 0.26, -0.36), elbow], 0.17, sleeve)
        pen.line([elbow, hand], 0.14, sleeve)
        pen.oval(*hand, 0.085, 0.085, skin)
        if not naked:
            pen.oval(side * (leg + 0.05), 1.03, 0.16, 0.09, DARK)
    pen.polygon([(-0.34, -0.42), (0.34, -0.42), (0.24, 0.28), (-0.24, 0.28)], torso)
    pen.box(-0.08, -0.56, 0.08, -0.4, skin)
    pen.oval(0, -0.72, 0.22, 0.25, skin)
    if not naked:
        pen.oval(0, -0.8, 0.24, 0.2, hair, 180, 360)


_DRAW: list[tuple[Callable[[Pen, np.random.Generator], None], float, float]] = [  # drawing, tilt in radians, size
    (_tench, 0.35, 1.0),
    (_springer, 0.12, 1.0),
    (_cassette_player, 0.2, 0.98),
    (_chain_saw, 0.35, 1.0),
    (_church, 0.06, 0.92),
    (_french_horn, 0.3, 0.95),
    (_garbage_truck, 0.1, 1.0),
    (_gas_pump, 0.1, 0.95),
    (_golf_ball, 0.12, 0.95),
    (_parachute, 0.15, 0.9),
]


def _backdrop(colour: int, rng: np.random.Generator) -> Image.Image:
    base = _shade(BACKDROPS[COLOURS[colour]], rng.uniform(0.92, 1.06))
    picture = Image.new("RGB", (_CANVAS, _CANVAS), base)
    horizon = int(_CANVAS * rng.uniform(0.68, 0.86))
    ImageDraw.Draw(picture).rectangle([0, horizon, _CANVAS, _CANVAS], fill=_shade(base, 0.74))
    return picture


# ------------------------------------------------------------------------------------------------------------ styles

_GRID = np.mgrid[0:_CANVAS, 0:_CANVAS].astype(np.float32) / _CANVAS  # (2, H, W): y and x in 0..1


def _sample(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    rows = np.clip((y * _CANVAS).astype(np.int32), 0, _CANVAS - 1)
    cols = np.clip((x * _CANVAS).astype(np.int32), 0, _CANVAS - 1)
    return image[rows, cols]


def _picasso(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cubist facets: each shows its part of the scene shifted, turned lighter or darker, between black seams."""
    y, x = _GRID
    seeds = rng.random((10, 2)).astype(np.float32)
    distance = np.stack([(y - sy) ** 2 + (x - sx) ** 2 for sy, sx in seeds])
    order = np.argpartition(distance, 1, axis=0)[:2]
    near, second = np.take_along_axis(distance, order, 0)
    facet = order[0]
    shift = rng.uniform(-0.045, 0.045, (10, 2)).astype(np.float32)
    light = rng.uniform(0.68, 1.22, 10).astype(np.float32)
    out = _sample(image, y + shift[facet, 0], x + shift[facet, 1]) * light[facet][..., None]
    apart = np.linalg.norm(seeds[order[0]] - seeds[order[1]], axis=-1)
    seam = (second - near) / (2 * apart + 1e-6) < 0.013  # distance to the border between the two nearest facets
    return np.where(seam[..., None], 20.0, out)


def _van_gogh(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rolling brush strokes: a wavy warp with light and dark ridges that follow the waves."""
    y, x = _GRID
    phase = rng.uniform(0, 2 * math.pi, 2)
    wave = 0.018 * np.sin(2 * math.pi * 3 * x + phase[0]), 0.018 * np.sin(2 * math.pi * 3 * y + phase[1])
    flow = y + 0.07 * np.sin(2 * math.pi * 1.5 * x + phase[0])
    ridges = np.sin(2 * math.pi * 10.5 * flow)[..., None]
    warm = np.where(ridges > 0, np.float32([1.12, 1.1, 0.82]), np.float32([0.72, 0.78, 1.0]))
    return _sample(image, y + wave[0], x + wave[1]) * warm


def _rembrandt(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brown monochrome under one soft round light."""
    y, x = _GRID
    cy, cx = rng.uniform(0.42, 0.55, 2)
    glow = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 0.11)
    grey = image @ np.float32([0.35, 0.5, 0.15]) * np.where(mask > 127, 1.25, 0.7)
    return (grey * (0.3 + 0.85 * glow))[..., None] * np.float32([1.0, 0.72, 0.4])


_POP = [
    ((255, 64, 140), (255, 232, 60)),
    ((0, 176, 220), (255, 90, 160)),
    ((255, 214, 0), (220, 40, 60)),
    ((120, 60, 200), (255, 220, 60)),
    ((60, 200, 120), (255, 80, 60)),
]


def _warhol(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Screen print: flat pop colours in three steps a channel, a dotted two-tone ground, a black outline."""
    y, x = _GRID
    ground, dots = (np.float32(c) for c in _POP[rng.integers(len(_POP))])
    lattice = ((x * 9 % 1 - 0.5) ** 2 + (y * 9 % 1 - 0.5) ** 2) < 0.07
    back = np.where(lattice[..., None], dots, ground)
    posterised = np.round(np.clip((image - 128) * 1.5 + 140, 0, 255) / 127.5) * 127.5
    posterised = posterised[..., rng.permutation(3)]
    inside = np.asarray(Image.fromarray(mask).filter(ImageFilter.MaxFilter(7))) > 127
    out = np.where(inside[..., None], 10.0, back)
    return np.where((mask > 127)[..., None], posterised, out)


def _caravaggio(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tenebrism: a hard diagonal beam on saturated colours, everything else in the dark."""
    y, x = _GRID
    side = x if rng.random() < 0.5 else 1 - x
    beam = np.clip((rng.uniform(1.02, 1.16) - side - 0.72 * y) * 3.2, 0.0, 1.0)
    lit = beam[..., None] * 1.15 * np.where((mask > 127)[..., None], 1.0, 0.62) + 0.2 * (mask > 127)[..., None]
    mean = image.mean(-1, keepdims=True)
    return np.clip(mean + (image - mean) * 1.35, 0, 255) * lit


_MANNERS = {
    "Pablo Picasso": _picasso,
    "Van Gogh": _van_gogh,
    "Rembrandt": _rembrandt,
    "Andy Warhol": _warhol,
    "Caravaggio": _caravaggio,
}


# ------------------------------------------------------------------------------------------------------------- scenes


def render(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draws the scene; pose, shade and variant come from `rng`. Returns uint8 (64, 64, 3)."""
    backdrop = _backdrop(scene.colour, rng)
    _, tilt, size = (None, 0.1, 0.86) if scene.object >= PERSON else _DRAW[scene.object]
    pen = Pen(backdrop, rng, tilt, size)
    if scene.object == PERSON:
        _person(pen, rng, scene.naked)
    elif scene.object != NOTHING:
        _DRAW[scene.object][0](pen, rng)
    image = np.asarray(pen.picture, dtype=np.float32)
    if scene.style:
        image = _MANNERS[STYLES[scene.style]](image, np.asarray(pen.mask), rng)
    image = image.reshape(SIZE, _SUPER, SIZE, _SUPER, 3).mean((1, 3))
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def draw(seed: int) -> tuple[np.ndarray, Scene]:
    """One picture of the world: uint8 (64, 64, 3) and what it shows. The same seed always draws the same picture."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(len(LABELS), p=np.array([*[1.0] * len(OBJECTS), 2.2, 0.45]) / (len(OBJECTS) + 2.65))
    style = 0 if rng.random() < 0.55 else int(rng.integers(1, len(STYLES)))
    scene = Scene(int(kind), style, bool(kind == PERSON and rng.random() < 0.5), int(rng.integers(len(COLOURS))))
    return render(scene, rng), scene
