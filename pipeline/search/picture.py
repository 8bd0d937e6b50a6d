"""The plots of a search as one PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from pipeline.search import plot as places
from pipeline.search.plot import Plot, Series

SCALE = 2
MARGIN, HEADING, KEY_WIDTH = 24.0, 34.0, 190.0
PAPER, INK, QUIET, RULE, BUDGET = "#ffffff", "#1d2126", "#62686f", "#e3e1dc", "#b3402f"

Point = tuple[float, float]


def draw_png(plots: Sequence[Plot]) -> bytes:
    """The plots below one another, each with its series named at its right."""
    height = HEADING + places.HEIGHT + MARGIN
    size = (places.WIDTH + KEY_WIDTH + 2 * MARGIN, MARGIN + height * len(plots))
    image = Image.new("RGB", (round(size[0] * SCALE), round(size[1] * SCALE)), PAPER)
    draw = ImageDraw.Draw(image)
    for number, one in enumerate(plots):
        _Canvas(draw, (MARGIN, MARGIN + number * height)).plot(one)
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()


class _Canvas:
    """Draws in a plot's coordinates, at a place of the image."""

    def __init__(self, draw: ImageDraw.ImageDraw, origin: Point) -> None:
        self._draw = draw
        self._origin = origin
        self._font = ImageFont.load_default(12 * SCALE)
        self._large = ImageFont.load_default(16 * SCALE)

    def plot(self, one: Plot) -> None:
        self._draw.text(self._at((0.0, -HEADING + 8)), one.title, fill=INK, font=self._large)
        self._axes(one)
        if one.budget_y is not None:
            self._line([(places.LEFT, one.budget_y), (places.RIGHT, one.budget_y)], BUDGET)
            self._text((places.RIGHT, one.budget_y - 2), "budget", BUDGET, "rd")
        if one.front:
            self._line(list(one.front), INK)
        for number, series in enumerate(one.series):
            self._series(series)
            y = places.TOP + 8 + 18 * number
            self._mark((places.RIGHT + 22, y), series.colour)
            self._text((places.RIGHT + 32, y), series.key, INK, "lm")

    def _axes(self, one: Plot) -> None:
        for y, label in one.y_ticks:
            self._line([(places.LEFT, y), (places.RIGHT, y)], RULE)
            self._text((places.LEFT - 6, y), label, QUIET, "rm")
        for x, label in one.x_ticks:
            self._line([(x, places.BOTTOM), (x, places.BOTTOM + 4)], QUIET)
            self._text((x, places.BOTTOM + 7), label, QUIET, "ma")
        self._text(((places.LEFT + places.RIGHT) / 2, places.BOTTOM + 28), one.x_title, INK, "ma")
        self._text((places.LEFT, places.TOP - 4), one.y_title, INK, "ld")

    def _series(self, series: Series) -> None:
        if series.is_joined:
            self._line([(dot.x, dot.y) for dot in series.dots], series.colour)
        for dot in series.dots:
            self._line([(dot.x, dot.span[0]), (dot.x, dot.span[1])], series.colour)
            self._mark((dot.x, dot.y), series.colour)
            self._text(
                (dot.x + (-7 if dot.is_far else 7), dot.y - 3), dot.label, INK, "rd" if dot.is_far else "ld"
            )

    def _line(self, points: list[Point], colour: str) -> None:
        self._draw.line([self._at(point) for point in points], fill=colour, width=SCALE)

    def _mark(self, centre: Point, colour: str) -> None:
        x, y = self._at(centre)
        radius = 4 * SCALE
        self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def _text(self, at: Point, text: str, colour: str, anchor: str) -> None:
        self._draw.text(self._at(at), text, fill=colour, font=self._font, anchor=anchor)

    def _at(self, point: Point) -> Point:
        return (self._origin[0] + point[0]) * SCALE, (self._origin[1] + HEADING + point[1]) * SCALE
