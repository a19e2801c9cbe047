"""Backgrounds: plain colours, scenic backgrounds, and the open background for captions that name none.

A background is a smooth function of the canvas and of a few parameters that captions do not state (`BackgroundParams`),
so that a model can learn to infer the parameters from the noise. Images are (height, width, 3), float32 in [0, 1].
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: (height, width, 3), or (height, width, 4) with alpha, in [0, 1].
FloatImage = NDArray[np.float32]
#: A curve across a surface: a y per column, (1, width), or one y for all columns.
Line = NDArray[np.floating] | float
#: Red, green and blue, 0 to 255.
Rgb = tuple[int, int, int]

#: Plain backgrounds: RGB, 0 to 255, by the name of the colour in captions.
COLOURS: dict[str, Rgb] = {
    "red": (214, 48, 49),
    "orange": (240, 147, 43),
    "yellow": (246, 211, 66),
    "green": (76, 175, 80),
    "blue": (52, 110, 219),
    "purple": (126, 87, 194),
    "pink": (247, 168, 200),
    "brown": (121, 85, 61),
    "black": (24, 24, 28),
    "white": (248, 248, 248),
    "gray": (150, 154, 160),
}

#: The background of captions that name none: a gradient in a pastel colour.
OPEN = "open"


@dataclass(frozen=True, slots=True)
class BackgroundParams:
    """Parameters of a background that captions do not state, each in [-1, 1]."""

    #: Height of the horizon; a larger value is lower in the image.
    horizon: float = 0.0
    #: Brightness.
    light: float = 0.0
    #: Horizontal shift of the sun, hills, clouds or houses.
    drift: float = 0.0
    #: Hue of the open background.
    hue: float = 0.0


class Surface:
    """An image with drawing operations. x is a fraction of the width, y of the height, a radius of the shorter side.

    y = 0 is the top of the image. Later operations cover earlier ones.
    """

    def __init__(self, width: int, height: int) -> None:
        """width, height: in pixels. The image is black."""
        self.pixels: FloatImage = np.zeros((height, width, 3), dtype=np.float32)
        self._width, self._height, self._short = width, height, min(width, height)
        self.xs = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None, :]
        self.ys = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]

    @property
    def aspect(self) -> float:
        """The width divided by the height."""
        return self._width / self._height

    def gradient(self, top: Rgb, bottom: Rgb, start: float = 0.0, end: float = 1.0) -> None:
        """Fill all rows below y = start with a vertical gradient from `start` to `end`; below `end` it is constant."""
        first = self._row(start)
        t = ((self.ys[first:] - start) / (end - start)).clip(0, 1)[..., None]
        self.pixels[first:] = ((1 - t) * _to_float(top) + t * _to_float(bottom)).astype(np.float32)

    def below(self, line: Line, colour: Rgb, end: Line = 1.0) -> None:
        """Fill the area below `line` and above `end`."""
        first, last = self._row(float(np.min(line))), self._row(float(np.max(end))) + 1
        ys = self.ys[first:last]
        mask = self._edge(ys - line, self._height)
        if np.min(end) < 1.0:
            mask = mask * self._edge(end - ys, self._height)
        self._cover(slice(first, last), slice(None), mask, colour)

    def disc(self, x: float, y: float, radius: float, colour: Rgb, opacity: float = 1.0, squash: float = 1.0) -> None:
        """Fill an ellipse with the centre (x, y). radius: half of its width; its height is `squash` times its width."""
        across, down = radius * self._short / self._width, squash * radius * self._short / self._height
        rows = slice(self._row(y - down), self._row(y + down) + 2)
        columns = slice(self._column(x - across), self._column(x + across) + 2)
        dx = (self.xs[:, columns] - x) * self._width
        dy = (self.ys[rows] - y) * self._height / squash
        inside = radius * self._short - np.sqrt(dx * dx + dy * dy)
        self._cover(rows, columns, opacity * (inside + 0.5).clip(0, 1), colour)

    def box(self, left: float, right: float, top: float, bottom: float, colour: Rgb) -> None:
        """Fill a rectangle."""
        rows = slice(self._row(top), self._row(bottom) + 2)
        columns = slice(self._column(left), self._column(right) + 2)
        xs, ys = self.xs[:, columns], self.ys[rows]
        across = self._edge(xs - left, self._width) * self._edge(right - xs, self._width)
        down = self._edge(ys - top, self._height) * self._edge(bottom - ys, self._height)
        self._cover(rows, columns, across * down, colour)

    def _cover(self, rows: slice, columns: slice, mask: NDArray[np.floating], colour: Rgb) -> None:
        """Blend a colour over a part of the image. mask: the opacity of each pixel of the part, in [0, 1]."""
        part = self.pixels[rows, columns]
        part += mask[..., None].astype(np.float32) * (_to_float(colour) - part)

    def _row(self, y: float) -> int:
        return max(0, min(self._height, int(y * self._height - 1)))

    def _column(self, x: float) -> int:
        return max(0, min(self._width, int(x * self._width - 1)))

    @staticmethod
    def _edge(distance: NDArray[np.floating], pixels: int) -> NDArray[np.floating]:
        """Return 1 where a distance is positive and 0 where it is negative, antialiased over one pixel.

        pixels: the length of the axis on which the distance is a fraction.
        """
        return (distance * np.float32(pixels) + np.float32(0.5)).clip(0, 1)


def _to_float(colour: Rgb) -> FloatImage:
    return np.array(colour, dtype=np.float32) / np.float32(255)


def _waves(surface: Surface, base: float, height: float, turns: float, phase: float) -> FloatImage:
    """Return a sine curve as a y per column. turns: periods in a width equal to the height; phase: in periods."""
    angle = 2 * np.pi * (turns * surface.xs * surface.aspect + phase)
    return (base + height * np.sin(angle)).astype(np.float32)


# The functions below draw the scenic backgrounds; their numbers are design choices. Multiples of 0.618 and 0.414 modulo
# 1 distribute stars, snowflakes and bubbles evenly without a random generator.


def _clouds(surface: Surface, params: BackgroundParams) -> None:
    for x, y, size in ((0.2, 0.12, 0.06), (0.72, 0.19, 0.05)):
        for dx, r in ((-0.9, 0.7), (0.0, 1.0), (0.9, 0.75)):
            shift = dx * size / max(surface.aspect, 0.6)
            surface.disc(x + shift + 0.12 * params.drift, y, r * size, (255, 255, 255), 0.75, squash=0.62)


def _sun(surface: Surface, params: BackgroundParams, y: float, radius: float, colour: Rgb) -> None:
    surface.disc(0.5 + 0.34 * params.drift, y, radius, colour)


def _beach(surface: Surface, params: BackgroundParams) -> None:
    edge = 0.62 + 0.05 * params.horizon
    surface.gradient((112, 190, 245), (200, 232, 250), end=edge)
    _sun(surface, params, 0.14, 0.075, (255, 226, 110))
    surface.gradient((36, 128, 190), (60, 168, 208), edge - 0.17, edge)
    surface.below(_waves(surface, edge, 0.012, 1.6, 0.2 * params.drift), (245, 250, 252))
    surface.below(_waves(surface, edge + 0.018, 0.012, 1.6, 0.2 * params.drift), (238, 210, 154))


def _night(surface: Surface, params: BackgroundParams) -> None:
    surface.gradient((10, 12, 40), (38, 42, 92), end=0.85)
    for i in range(14):
        x, y = (0.37 + 0.618 * i) % 1.0, 0.05 + 0.6 * ((0.11 + 0.414 * i) % 1.0)
        surface.disc((x + 0.06 * params.drift) % 1.0, y, 0.007 if i % 3 else 0.011, (236, 236, 210))
    _sun(surface, params, 0.15, 0.07, (240, 236, 205))
    surface.below(_waves(surface, 0.8 + 0.04 * params.horizon, 0.02, 0.9, 0.3 * params.drift), (14, 20, 36))


def _meadow(surface: Surface, params: BackgroundParams) -> None:
    edge = 0.6 + 0.05 * params.horizon
    surface.gradient((126, 200, 246), (212, 236, 250), end=edge)
    _clouds(surface, params)
    surface.below(_waves(surface, edge, 0.03, 0.8, 0.3 * params.drift), (128, 202, 92))
    surface.below(_waves(surface, edge + 0.14, 0.03, 0.6, 0.4 - 0.3 * params.drift), (92, 172, 70))


def _desert(surface: Surface, params: BackgroundParams) -> None:
    edge = 0.6 + 0.05 * params.horizon
    surface.gradient((250, 196, 128), (253, 226, 178), end=edge)
    _sun(surface, params, 0.15, 0.08, (255, 244, 200))
    surface.below(_waves(surface, edge, 0.04, 0.7, 0.3 * params.drift), (214, 160, 96))
    surface.below(_waves(surface, edge + 0.16, 0.04, 0.5, 0.35 - 0.3 * params.drift), (190, 132, 74))


def _snow(surface: Surface, params: BackgroundParams) -> None:
    edge = 0.6 + 0.05 * params.horizon
    surface.gradient((158, 182, 216), (214, 226, 242), end=edge)
    for i in range(12):
        x, y = (0.21 + 0.618 * i) % 1.0, 0.05 + 0.5 * ((0.3 + 0.414 * i) % 1.0)
        surface.disc((x + 0.06 * params.drift) % 1.0, y, 0.009, (250, 252, 255))
    surface.below(_waves(surface, edge, 0.03, 0.7, 0.3 * params.drift), (240, 246, 253))
    surface.below(_waves(surface, edge + 0.15, 0.03, 0.5, 0.4 - 0.3 * params.drift), (226, 236, 249))


def _sea(surface: Surface, params: BackgroundParams) -> None:
    edge = 0.5 + 0.05 * params.horizon
    surface.gradient((120, 196, 248), (208, 236, 252), end=edge)
    _clouds(surface, params)
    surface.below(edge, (34, 108, 182))
    for i, tone in enumerate(((28, 96, 170), (22, 82, 152), (16, 68, 132))):
        line = _waves(surface, edge + 0.1 + 0.13 * i, 0.012, 2.0, 0.3 * i + 0.3 * params.drift)
        surface.below(line, tone)


def _sunset(surface: Surface, params: BackgroundParams) -> None:
    edge = 0.66 + 0.05 * params.horizon
    surface.gradient((104, 60, 136), (254, 156, 92), end=edge)
    _sun(surface, params, edge - 0.03, 0.14, (255, 214, 110))
    surface.below(_waves(surface, edge, 0.02, 0.7, 0.3 * params.drift), (84, 46, 84))


def _forest(surface: Surface, params: BackgroundParams) -> None:
    edge = 0.72 + 0.04 * params.horizon
    surface.gradient((126, 176, 130), (176, 208, 150), end=edge)
    for row, (tone, top, turns) in enumerate((((66, 122, 80), 0.16, 5.0), ((38, 88, 58), 0.3, 3.5))):
        phase = turns * surface.xs * surface.aspect + 0.4 * row + 0.5 * params.drift
        spikes = np.abs(phase % 1.0 - 0.5) * 2
        surface.below((top + 0.26 * spikes).astype(np.float32), tone)
    surface.below(edge, (74, 66, 40))


def _city(surface: Surface, params: BackgroundParams) -> None:
    edge = 0.74 + 0.03 * params.horizon
    surface.gradient((150, 190, 226), (226, 226, 226), end=edge)
    heights = (0.3, 0.46, 0.24, 0.4, 0.2, 0.5, 0.34, 0.28)
    for i, height in enumerate(heights):
        left = (i + 0.05) / len(heights) + 0.06 * params.drift
        tone = (98, 110, 136) if i % 2 else (124, 134, 158)
        surface.box(left, left + 0.105, edge - height, edge, tone)
        for k in range(3):
            for at in (0.025, 0.062):
                top = edge - height + 0.03 + 0.06 * k
                surface.box(left + at, left + at + 0.018, top, top + 0.026, (246, 226, 150))
    surface.below(edge, (84, 86, 92))


def _room(surface: Surface, params: BackgroundParams) -> None:
    edge = 0.72 + 0.04 * params.horizon
    surface.gradient((236, 222, 196), (226, 208, 178), end=edge)
    middle = 0.5 + 0.3 * params.drift
    half = 0.13 / max(surface.aspect, 0.6)
    surface.box(middle - half, middle + half, 0.08, 0.34, (250, 250, 246))
    surface.box(middle - 0.86 * half, middle + 0.86 * half, 0.1, 0.32, (150, 204, 240))
    surface.box(middle - 0.07 * half, middle + 0.07 * half, 0.1, 0.32, (250, 250, 246))
    surface.below(edge - 0.025, (250, 246, 238))
    surface.gradient((168, 116, 74), (140, 94, 58), edge)


def _space(surface: Surface, params: BackgroundParams) -> None:
    surface.gradient((18, 10, 36), (44, 20, 66))
    for i in range(20):
        x, y = (0.13 + 0.618 * i) % 1.0, (0.07 + 0.414 * i) % 1.0
        surface.disc((x + 0.06 * params.drift) % 1.0, y, 0.007 if i % 3 else 0.011, (240, 238, 250))
    surface.disc(0.5 + 0.4 * params.drift, 1.12 + 0.04 * params.horizon, 0.36, (196, 110, 90))


def _mountains(surface: Surface, params: BackgroundParams) -> None:
    edge = 0.74 + 0.03 * params.horizon
    surface.gradient((136, 190, 236), (222, 236, 248), end=edge)
    for tone, cap, top, turns, move in (
        ((136, 150, 178), (246, 249, 253), 0.2, 1.5, 0.3),
        ((104, 120, 146), (238, 243, 250), 0.36, 2.0, -0.3),
    ):
        spikes = np.abs((turns * surface.xs * surface.aspect + 0.25 + move * params.drift) % 1.0 - 0.5) * 2
        line = (top + 0.44 * spikes).astype(np.float32)
        surface.below(line, tone)
        surface.below(line, cap, end=top + 0.09)
    surface.below(_waves(surface, edge, 0.02, 0.8, 0.2 * params.drift), (110, 168, 88))


def _underwater(surface: Surface, params: BackgroundParams) -> None:
    surface.gradient((64, 178, 214), (10, 66, 130))
    for i in range(8):
        x, y = (0.17 + 0.618 * i) % 1.0, (0.12 + 0.414 * i) % 0.8
        surface.disc((x + 0.06 * params.drift) % 1.0, y, 0.012 + 0.006 * (i % 3), (178, 228, 244), 0.7)
    surface.below(_waves(surface, 0.86 + 0.03 * params.horizon, 0.025, 0.9, 0.3 * params.drift), (206, 186, 134))


@dataclass(frozen=True, slots=True)
class ScenicBackground:
    """A background that shows a place, such as a beach or a city."""

    #: The phrases for the background in captions, with the preposition.
    wordings: tuple[str, ...]
    draw: Callable[[Surface, BackgroundParams], None]
    #: Whether the background has a ground on which objects cast shadows.
    has_ground: bool = True


SCENIC: dict[str, ScenicBackground] = {
    "beach": ScenicBackground(("on a beach", "on the beach", "at the beach", "by the seaside"), _beach),
    "night": ScenicBackground(("at night", "in the night", "under the stars", "under a night sky"), _night),
    "meadow": ScenicBackground(("in a meadow", "on the grass", "on a green meadow", "in a field"), _meadow),
    "desert": ScenicBackground(("in the desert", "in a desert", "on sand dunes"), _desert),
    "snow": ScenicBackground(("in the snow", "on snow", "in winter"), _snow),
    "sea": ScenicBackground(("on the sea", "at sea", "on the ocean", "on the water"), _sea, has_ground=False),
    "sunset": ScenicBackground(("at sunset", "in the evening", "at dusk"), _sunset),
    "forest": ScenicBackground(("in a forest", "in the forest", "in the woods"), _forest),
    "city": ScenicBackground(("in the city", "in a city", "in town", "on a street"), _city),
    "room": ScenicBackground(("in a room", "in the living room", "indoors", "at home"), _room),
    "space": ScenicBackground(("in space", "in outer space", "among the stars"), _space, has_ground=False),
    "mountains": ScenicBackground(("in the mountains", "on a mountain", "in the alps"), _mountains),
    "underwater": ScenicBackground(("underwater", "under water", "under the sea"), _underwater, has_ground=False),
}

BACKGROUNDS: tuple[str, ...] = (*COLOURS, *SCENIC)


def draw_background(name: str, width: int, height: int, params: BackgroundParams) -> FloatImage:
    """Return the image of a background. name: a name in `BACKGROUNDS`, or `OPEN`; width, height: in pixels."""
    surface = Surface(width, height)
    if name in SCENIC:
        SCENIC[name].draw(surface, params)
    elif name == OPEN:
        hue = 0.5 + 0.45 * params.hue
        top, bottom = (_pastel(hue, value) for value in (0.98, 0.84))
        surface.gradient(top, bottom)
    else:
        red, green, blue = COLOURS[name]
        # A plain background is 6 % darker at the bottom.
        surface.gradient(*(tuple(round(part * shade) for part in (red, green, blue)) for shade in (1.0, 0.94)))  # type: ignore[arg-type]
    return (surface.pixels + np.float32(0.03 * params.light)).clip(0, 1)


def _pastel(hue: float, value: float) -> Rgb:
    """Return a colour of low saturation. hue: in turns, any number; value: 0 to 1."""
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1.0, 0.3, value))
    return red, green, blue


def has_ground(name: str) -> bool:
    """Whether objects cast shadows on a background."""
    return name == OPEN or (name in SCENIC and SCENIC[name].has_ground)
