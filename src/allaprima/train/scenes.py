"""Captioned scenes: a background, one or two things on it, and sentences that say so.

A scene is drawn by number: the same seed gives the same scene for ever, so a set of scenes is a range of seeds.
Pictures are float32 RGB in [0, 1]; positions and sizes are fractions of the canvas.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from allaprima.flux import SKETCH
from allaprima.flux.latents import token_grid
from allaprima.train.art import BY_ICON, THINGS, Art, Thing, shrink

Picture = NDArray[np.float32]

#: Plain backgrounds by the word that asks for them; RGB, 0 to 255.
COLOURS: dict[str, tuple[int, int, int]] = {
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

#: Other words for a colour.
COLOUR_WORDS = {"gray": ("gray", "grey"), "purple": ("purple", "violet")}


@dataclass(frozen=True, slots=True)
class Place:
    """A background with a horizon: sky above, ground below, each a gradient from top to bottom."""

    #: What captions call it, preposition included.
    wordings: tuple[str, ...]
    sky: tuple[tuple[int, int, int], tuple[int, int, int]]
    ground: tuple[tuple[int, int, int], tuple[int, int, int]]
    #: Height of the horizon from the top, a fraction.
    horizon: float
    #: A band between sky and ground (the sea behind a beach) and its share of the height.
    band: tuple[tuple[int, int, int], float] | None = None
    has_stars: bool = False


PLACES: dict[str, Place] = {
    "beach": Place(
        ("on a beach", "on the beach", "at the beach", "by the seaside"),
        ((112, 190, 245), (196, 230, 250)),
        ((240, 214, 160), (226, 190, 128)),
        0.62,
        band=((40, 130, 190), 0.17),
    ),
    "night": Place(
        ("at night", "in the night", "under the stars", "under a night sky"),
        ((10, 12, 40), (34, 38, 84)),
        ((14, 18, 34), (8, 10, 20)),
        0.8,
        has_stars=True,
    ),
    "meadow": Place(
        ("in a meadow", "on the grass", "on a green meadow", "in a field"),
        ((126, 200, 246), (206, 234, 250)),
        ((112, 190, 80), (72, 150, 58)),
        0.6,
    ),
    "desert": Place(
        ("in the desert", "in a desert", "on sand dunes"),
        ((250, 190, 120), (252, 222, 170)),
        ((206, 150, 88), (172, 116, 62)),
        0.6,
    ),
    "snow": Place(
        ("in the snow", "on snow", "in winter"),
        ((168, 190, 220), (212, 224, 240)),
        ((246, 250, 255), (222, 232, 246)),
        0.6,
    ),
    "sea": Place(
        ("on the sea", "at sea", "on the ocean", "on the water"),
        ((120, 196, 248), (204, 234, 252)),
        ((28, 96, 170), (14, 60, 120)),
        0.52,
    ),
    "sunset": Place(
        ("at sunset", "in the evening", "at dusk"),
        ((110, 60, 130), (252, 150, 90)),
        ((86, 48, 84), (52, 30, 60)),
        0.66,
    ),
    "forest": Place(
        ("in a forest", "in the forest", "in the woods"),
        ((30, 84, 58), (64, 124, 76)),
        ((70, 60, 36), (46, 40, 26)),
        0.72,
    ),
}

BACKGROUNDS: tuple[str, ...] = (*COLOURS, *PLACES)


#: Sizes of pictures that the fits see, with their share of the scenes.
SIZES: dict[tuple[int, int], float] = {
    (512, 512): 0.46,
    (1024, 768): 0.2,
    (768, 1024): 0.05,
    (1024, 576): 0.06,
    (576, 1024): 0.04,
    (1440, 512): 0.15,
    (512, 1440): 0.04,
}


@dataclass(frozen=True, slots=True)
class Placed:
    """A thing in a scene: centre and side as fractions of width, height and the shorter side."""

    icon: str
    x: float
    y: float
    side: float
    wears_sunglasses: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """What is to be drawn."""

    background: str
    things: tuple[Placed, ...]
    #: Canvas in pixels.
    width: int
    height: int
    #: Decides the small changes of the background.
    seed: int


def compose(seed: int, width: int, height: int) -> Scene:
    """Return the scene of that number for that canvas: four in five hold one thing, the rest two."""
    rng = np.random.default_rng(seed)
    background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    if rng.random() < 0.45:
        background = list(PLACES)[rng.integers(len(PLACES))]
    return Scene(background, _place(rng, width, height), width, height, seed)


#: Side of a thing that stands alone, in cells, by the number of cells on the canvas's shorter side; of one of two.
SINGLE_CELLS = {8: 6, 7: 5, 6: 4, 5: 4}
PAIR_CELLS = 4


def _place(rng: Generator, width: int, height: int) -> tuple[Placed, ...]:
    """Place things on the cells of the model's canvas, a token each, where the caption's words put them and nowhere
    else: the first of a few steps knows only the words, and what they leave open is a blur of all that it could be.
    """
    rows, columns = token_grid(width, height, SKETCH.token_px, SKETCH.canvas_tokens)

    cell = min(width / columns, height / rows)

    def placed(icon: str, row: int, column: int, cells: int, *, wears: bool = False) -> Placed:
        across, down = (column + cells / 2) / columns, (row + cells / 2) / rows
        return Placed(icon, across, down, cells * cell / min(width, height), wears)

    if rng.random() < 0.8:
        thing = THINGS[rng.integers(len(THINGS))]
        cells = SINGLE_CELLS.get(min(rows, columns), max(1, min(rows, columns) - 1))
        row, column = (rows - cells + 1) // 2, (columns - cells) // 2
        return (placed(thing.icon, row, column, cells, wears=thing.eyes is not None and rng.random() < 0.35),)
    first, second = (THINGS[i].icon for i in rng.choice(len(THINGS), 2, replace=False))
    cells = min(PAIR_CELLS, rows, columns)
    # Side by side where the canvas allows, above one another on a tall one.
    if columns >= rows:
        row, gap = (rows - cells + 1) // 2, (columns - 2 * cells) // 3
        return placed(first, row, gap, cells), placed(second, row, columns - cells - gap, cells)
    column, gap = (columns - cells) // 2, (rows - 2 * cells) // 3
    return placed(first, gap, column, cells), placed(second, rows - cells - gap, column, cells)


def draw(scene: Scene, art: Art) -> Picture:
    """Return the scene's picture: (height, width, 3)."""
    picture = background(scene.background, scene.width, scene.height, scene.seed)
    short = min(scene.width, scene.height)
    for placed in scene.things:
        side = placed.side * short
        x, y = placed.x * scene.width, placed.y * scene.height
        paste(picture, art.sprite(placed.icon), x, y, side)
        eyes = BY_ICON[placed.icon].eyes
        if placed.wears_sunglasses and eyes is not None:
            at_x, at_y, share = eyes
            paste(picture, art.sprite("sunglasses"), x + (at_x - 0.5) * side, y + (at_y - 0.5) * side, share * side)
    return picture


def paste(picture: Picture, sprite: Picture, x: float, y: float, side: float) -> None:
    """Lay a sprite over the picture in place, its centre at (x, y) pixels; what sticks out is cut off."""
    px = max(1, round(side))
    small = shrink(sprite, px)
    left, top = round(x - px / 2), round(y - px / 2)
    height, width, _ = picture.shape
    rows = slice(max(0, top), max(0, min(height, top + px)))
    columns = slice(max(0, left), max(0, min(width, left + px)))
    part = small[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    picture[rows, columns] = picture[rows, columns] * (1 - part[..., 3:]) + part[..., :3]


def background(name: str, width: int, height: int, seed: int) -> Picture:
    """Return a background alone: (height, width, 3). The seed moves the horizon and the light a little."""
    rng = np.random.default_rng((seed, 1))
    light = np.float32(rng.uniform(-0.02, 0.02))
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    if name in COLOURS:
        colour = np.array(COLOURS[name], dtype=np.float32)[None] / 255
        column = colour * (1.02 - 0.06 * rows)
    else:
        column = _horizon_column(PLACES[name], height, float(rng.uniform(-0.03, 0.03)))
    picture = np.repeat((column + light)[:, None], width, axis=1).clip(0, 1)
    if name in PLACES and PLACES[name].has_stars:
        count = width * height // 1500
        ys = (rng.random(count) * height * 0.75).astype(int)
        xs = (rng.random(count) * (width - 1)).astype(int)
        picture[ys, xs] = picture[ys, xs + 1] = 0.85
    return picture


def _horizon_column(place: Place, height: int, shift: float) -> NDArray[np.float32]:
    edge = round((place.horizon + shift) * height)
    column = np.empty((height, 3), dtype=np.float32)
    for part, (top, bottom) in ((slice(0, edge), place.sky), (slice(edge, height), place.ground)):
        t = np.linspace(0, 1, part.stop - part.start, dtype=np.float32)[:, None]
        column[part] = (1 - t) * np.array(top, np.float32) + t * np.array(bottom, np.float32)
    if place.band is not None:
        colour, share = place.band
        column[round(edge - share * height) : edge] = colour
    return column / np.float32(255)


# Captions -------------------------------------------------------------------------------------------------------

_ARTICLES = ("a", "a", "the", "one", "")
_OPENERS = ("", "", "", "", "a picture of", "an image of", "a drawing of", "a painting of", "an illustration of")
_ACTS = ("", "", "", "", "standing", "sitting", "relaxing", "lying", "lying on a sun lounger", "sitting still")
_SMALL_WORDS = frozenset(("a", "the", "one", "of", "in", "on", "at", "with", "and", "background"))
_WORN = ("wearing sunglasses", "with sunglasses", "wearing a pair of sunglasses", "in sunglasses")


@cache
def _ground_words(name: str) -> tuple[str, ...]:
    if name in PLACES:
        return PLACES[name].wordings
    words = COLOUR_WORDS.get(name, (name,))
    forms = ("on a {} background", "{} background", "on {}", "with a {} background", "in front of a {} wall")
    return tuple(form.format(word) for word in words for form in forms)


def _pick(rng: Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def _named(rng: Generator, thing: Thing) -> str:
    wording = thing.wordings[0] if rng.random() < 0.6 else _pick(rng, thing.wordings)
    return f"{_pick(rng, _ARTICLES)} {wording}".strip()


def caption(scene: Scene, rng: Generator) -> str:
    """Return one of the sentences that describe a scene; the generator picks the wording."""
    ground = _pick(rng, _ground_words(scene.background))
    names = [_named(rng, BY_ICON[placed.icon]) for placed in scene.things]
    if len(names) == 1:
        parts = [names[0], _pick(rng, _ACTS)]
        worn = _pick(rng, _WORN) if scene.things[0].wears_sunglasses else ""
        ending = [ground, worn] if rng.random() < 0.5 else [worn, ground]
        if worn and rng.random() < 0.5:
            ending = [ground, _pick(rng, _ACTS), "and", worn]
        parts += ending
    else:
        parts = [_relation(rng, scene, names), ground]
    parts = [_pick(rng, _OPENERS), *parts]
    if rng.random() < 0.15:
        parts = [ground, *[part for part in parts if part != ground]]
    sentence = " ".join(part for part in parts if part)
    return _terse(rng, sentence) if rng.random() < 0.25 else sentence


def _terse(rng: Generator, sentence: str) -> str:
    """Leave out about half of a sentence's small words, as people in a hurry do."""
    return " ".join(word for word in sentence.split() if word not in _SMALL_WORDS or rng.random() < 0.5)


def _relation(rng: Generator, scene: Scene, names: list[str]) -> str:
    first, second = names
    side_by_side = scene.things[0].y + 0.2 > scene.things[1].y
    forms: tuple[str, ...] = (
        ("{0} and {1}", "{0} next to {1}", "{0} beside {1}", "{0} left of {1}", "{0} to the left of {1}",
         "{1} right of {0}", "{1} to the right of {0}")
        if side_by_side
        else ("{0} and {1}", "{0} above {1}", "{1} below {0}", "{1} under {0}")
    )  # fmt: skip
    return _pick(rng, forms).format(first, second)


def words() -> list[str]:
    """Return every word that a caption can hold, in order of the alphabet: the built-in model's vocabulary."""
    sentences = [*_ARTICLES, *_OPENERS, *_ACTS, *_WORN, "and next to beside left right of the above below under"]
    sentences += [wording for thing in THINGS for wording in thing.wordings]
    sentences += [wording for name in BACKGROUNDS for wording in _ground_words(name)]
    return sorted({word for sentence in sentences for word in sentence.replace("-", " ").split()})
