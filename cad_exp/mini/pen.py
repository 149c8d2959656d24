"""A pen for the mini world: polygons on a canvas three times larger than the picture, so that edges are smooth."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64  # pixels of a picture's side
SUPER = 3  # drawn so many times larger, then averaged
CANVAS = SIZE * SUPER

Colour = tuple[int, int, int]
Point = tuple[float, float]
DARK, STEEL, LIGHT = (34, 34, 38), (176, 182, 190), (248, 248, 244)


class Pen:
    """Draws polygons in object coordinates (-1..1, y down), turned, scaled, mirrored and moved on the canvas."""

    def __init__(self, backdrop: Image.Image, rng: np.random.Generator, tilt: float, size: float):
        self.picture, self.mask = backdrop, Image.new("L", backdrop.size)
        self._draw, self._mask = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.mask)
        angle, scale = rng.uniform(-tilt, tilt), CANVAS * size * rng.uniform(0.36, 0.45)
        flip = 1 if rng.random() < 0.5 else -1
        cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
        self._matrix = (cos * flip, -sin, sin * flip, cos)
        self._centre = (CANVAS * rng.uniform(0.45, 0.55), CANVAS * rng.uniform(0.46, 0.54))

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill the outline through these points."""
        a, b, c, d = self._matrix
        x0, y0 = self._centre
        xy = [(a * x + b * y + x0, c * x + d * y + y0) for x, y in points]
        self._draw.polygon(xy, fill=colour)
        self._mask.polygon(xy, fill=255)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Fill a rectangle between two corners."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def oval(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, start: float = 0, stop: float = 360
    ) -> None:
        """Fill an ellipse with these radii, or its part between two angles in degrees."""
        turns = np.radians(np.linspace(start, stop, 28))
        self.polygon([(x + rx * math.cos(t), y + ry * math.sin(t)) for t in turns], colour)

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draw a line with round joints through these points."""
        for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
            length = math.hypot(x1 - x0, y1 - y0) or 1e-9
            dx, dy = (y1 - y0) / length * width / 2, -(x1 - x0) / length * width / 2
            self.polygon([(x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)], colour)
        for x, y in points:
            self.oval(x, y, width / 2, width / 2, colour)

    def ring(
        self, x: float, y: float, radius: float, width: float, colour: Colour, start: float = 0, stop: float = 360
    ) -> None:
        """Draw a ring `width` thick around a circle, or its part between two angles in degrees."""
        turns = np.radians(np.linspace(start, stop, 30))
        outer = [(x + (radius + width / 2) * math.cos(t), y + (radius + width / 2) * math.sin(t)) for t in turns]
        inner = [(x + (radius - width / 2) * math.cos(t), y + (radius - width / 2) * math.sin(t)) for t in turns[::-1]]
        self.polygon(outer + inner, colour)


def shade(colour: Colour, factor: float) -> Colour:
    """Make a colour lighter (a factor above 1) or darker."""
    red, green, blue = (int(min(255, max(0, channel * factor))) for channel in colour)
    return red, green, blue


def pick(rng: np.random.Generator, *colours: Colour) -> Colour:
    """Draw one of the colours, a little lighter or darker."""
    return shade(colours[rng.integers(len(colours))], rng.uniform(0.92, 1.08))
