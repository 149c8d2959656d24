"""The shapes of the mini world: ten Imagenette classes and an abstract mannequin, each drawn by a pen."""

import math
from collections.abc import Callable

import numpy as np

from cad_exp.mini.pen import DARK, LIGHT, STEEL, Pen, pick, shade

SKIN = ((244, 204, 172), (226, 172, 130), (190, 132, 92), (128, 84, 58))


def _tench(pen: Pen, rng: np.random.Generator) -> None:
    body = pick(rng, (112, 128, 52), (150, 138, 48), (86, 110, 66))
    fin, belly = shade(body, 0.62), shade(body, 1.45)
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
    liver, white = pick(rng, (112, 56, 30), (60, 40, 34), (142, 76, 40)), (250, 246, 238)
    behind = shade(white, 0.86)
    for x, c in ((0.52, behind), (-0.2, behind), (0.64, white), (-0.06, white)):
        pen.box(x - 0.09, 0.2, x + 0.09, 0.86, c)
    pen.line([(0.72, 0.0), (0.98, -0.34)], 0.13, liver)
    pen.oval(0.26, 0.12, 0.56, 0.31, white)
    pen.oval(0.36, 0.0, 0.34, 0.2, liver)
    pen.polygon([(-0.42, -0.2), (-0.08, -0.3), (0.1, 0.2), (-0.3, 0.3)], white)
    pen.oval(-0.42, -0.4, 0.3, 0.28, liver)
    pen.oval(-0.7, -0.3, 0.24, 0.15, white)
    pen.polygon([(-0.56, -0.66), (-0.46, -0.68), (-0.56, -0.3), (-0.7, -0.3)], white)
    pen.oval(-0.2, -0.28, 0.15, 0.34, shade(liver, 0.75))
    pen.oval(-0.9, -0.33, 0.08, 0.08, DARK)
    pen.oval(-0.52, -0.46, 0.06, 0.06, DARK)


def _cassette_player(pen: Pen, rng: np.random.Generator) -> None:
    body = pick(rng, (52, 56, 66), (168, 42, 46), (44, 84, 140), (196, 198, 204))
    pen.ring(0, -0.46, 0.52, 0.1, shade(body, 0.6), 180, 360)
    pen.box(-0.98, -0.5, 0.98, 0.58, body)
    pen.box(-0.98, 0.46, 0.98, 0.58, shade(body, 0.6))
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
    body = pick(rng, (236, 112, 28), (204, 40, 40), (238, 178, 36))
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
    pen.box(-0.08, 0.36, 0.66, 0.5, shade(body, 0.6))
    pen.oval(0.26, 0.08, 0.16, 0.16, DARK)


def _church(pen: Pen, rng: np.random.Generator) -> None:
    wall = pick(rng, (236, 226, 204), (206, 176, 144), (198, 198, 202))
    roof = pick(rng, (150, 58, 44), (72, 84, 108), (104, 72, 54))
    pen.box(-0.2, -0.14, 0.86, 0.84, wall)
    pen.polygon([(-0.3, -0.1), (0.33, -0.52), (0.96, -0.1)], roof)
    pen.box(-0.74, -0.34, -0.2, 0.84, shade(wall, 0.88))
    pen.polygon([(-0.82, -0.32), (-0.47, -0.88), (-0.12, -0.32)], shade(roof, 0.85))
    pen.line([(-0.47, -1.12), (-0.47, -0.84)], 0.07, DARK)
    pen.line([(-0.58, -1.02), (-0.36, -1.02)], 0.07, DARK)
    for x, y in ((0.1, 0.2), (0.6, 0.2), (-0.47, 0.0)):
        pen.oval(x, y, 0.1, 0.12, (58, 84, 128))
        pen.box(x - 0.1, y, x + 0.1, y + 0.24, (58, 84, 128))
    pen.oval(-0.47, 0.56, 0.14, 0.14, (86, 50, 34))
    pen.box(-0.61, 0.56, -0.33, 0.84, (86, 50, 34))


def _french_horn(pen: Pen, rng: np.random.Generator) -> None:
    brass = pick(rng, (226, 174, 48), (206, 148, 58), (232, 196, 92))
    dark, bright = shade(brass, 0.6), shade(brass, 1.28)
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
    load = pick(rng, (54, 134, 66), (232, 232, 228), (70, 120, 180))
    cab = pick(rng, (240, 150, 34), (250, 250, 246), (60, 146, 74))
    pen.polygon([(-0.3, -0.56), (0.72, -0.56), (1.0, -0.1), (1.0, 0.42), (-0.3, 0.42)], load)
    pen.polygon([(0.72, -0.56), (1.0, -0.1), (1.0, 0.42), (0.7, 0.42)], shade(load, 0.66))
    for x in (-0.1, 0.16, 0.42):
        pen.box(x, -0.5, x + 0.07, 0.36, shade(load, 0.74))
    pen.polygon([(-0.96, 0.0), (-0.8, -0.38), (-0.36, -0.38), (-0.36, 0.42), (-0.96, 0.42)], cab)
    pen.polygon([(-0.86, -0.02), (-0.74, -0.3), (-0.48, -0.3), (-0.48, -0.02)], (166, 212, 236))
    pen.box(-0.98, 0.36, 1.0, 0.48, (58, 58, 62))
    for x in (-0.64, 0.2, 0.62):
        pen.oval(x, 0.52, 0.2, 0.2, DARK)
        pen.oval(x, 0.52, 0.09, 0.09, STEEL)


def _gas_pump(pen: Pen, rng: np.random.Generator) -> None:
    body = pick(rng, (212, 44, 40), (46, 108, 178), (52, 140, 84))
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
    tee = pick(rng, (222, 60, 50), (240, 196, 60), (60, 120, 200))
    ball = shade((248, 248, 246), rng.uniform(0.94, 1.02))
    pen.polygon([(-0.26, 0.48), (0.26, 0.48), (0.08, 0.7), (0.03, 1.1), (-0.03, 1.1), (-0.08, 0.7)], tee)
    pen.oval(0, -0.14, 0.72, 0.72, shade(ball, 0.7))
    pen.oval(-0.05, -0.19, 0.66, 0.66, ball)
    for row in range(-3, 4):
        for col in range(-3, 4):
            x, y = 0.2 * col + 0.1 * (row % 2), 0.19 * row
            if x * x + y * y < 0.36:
                pen.oval(x - 0.03, y - 0.16, 0.055, 0.055, shade(ball, 0.74))


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


def person(pen: Pen, rng: np.random.Generator, naked: bool) -> None:
    """Draw the mannequin: clothed, or in one skin tone."""
    skin = SKIN[rng.integers(len(SKIN))]
    shirt = pick(rng, (210, 50, 48), (40, 92, 180), (250, 250, 246), (40, 140, 90), (246, 190, 50))
    trousers, hair = pick(rng, (38, 44, 78), (52, 52, 56), (90, 110, 150)), pick(rng, (40, 28, 24), (120, 72, 34))
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


DRAWINGS: list[tuple[Callable[[Pen, np.random.Generator], None], float, float]] = [  # drawing, tilt in radians, size
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
