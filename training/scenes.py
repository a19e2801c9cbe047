"""Scenes: a background and one to four things on it, composed by number and drawn.

The same seed gives the same scene for ever, so a set of scenes is a range of seeds. What words leave open about a scene
(where things stand, the horizon, the light) is decided by a handful of standard normal numbers, its leeway;
`flow.steered` tells how the noise that a picture is painted from comes to decide them.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from allaprima.flux import SKETCH
from allaprima.flux.latents import token_grid
from training.art import DYES, Art
from training.held_out import is_held_out
from training.layout import Box, arranged
from training.places import COLOURS, OPEN, PLACES, Mood, Picture, background, has_ground
from training.things import ACCESSORIES, BY_ACCESSORY, BY_ICON, THINGS, Accessory, Thing

#: Sizes of pictures that the fits see, with their share of the scenes.
SIZES: dict[tuple[int, int], float] = {
    (512, 512): 0.46,
    (1024, 768): 0.2,
    (768, 1024): 0.06,
    (1024, 576): 0.08,
    (576, 1024): 0.06,
    (1440, 512): 0.1,
    (512, 1440): 0.04,
}

#: Numbers of the first scene, apart from one another and from those of the other fits, which begin at 0: of those that
#: the autoencoder's error is measured on,
VALIDATION_FROM = 10_000_000
#: that the judge's errors are measured on,
JUDGED_FROM = 20_000_000
#: that the judge is fitted to,
JUDGE_FITTED_FROM = 30_000_000
#: and, without end, of those that become collages.
COLLAGES_FROM = 100_000_000

#: What a scene leaves open, a standard normal number each: `Scene.leeway`. Three place its things, the last four make
#: its mood, and the fourth decides nothing.
LEEWAY = 8

#: How two things stand to each other: the first left of, above, or in front of the second, or just with it, which is
#: drawn in the order of the words.
Relation = Literal["left", "above", "front", "with"]
RELATIONS: tuple[Relation, ...] = ("left", "above", "front", "with")
Size = Literal["small", "big"]
#: Things on a scene, at most.
MOST = 4


@dataclass(frozen=True, slots=True)
class Subject:
    """A thing that a scene is about, as words tell it."""

    icon: str
    count: int = 1
    dye: str | None = None
    size: Size | None = None
    #: Icon of what it wears or holds.
    accessory: str | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """What is to be drawn."""

    background: str
    subjects: tuple[Subject, ...]
    #: Between two subjects; more than two, or one, stand in no relation.
    relation: Relation | None
    #: Canvas in pixels.
    width: int
    height: int
    #: LEEWAY numbers: shift across, down, of the second thing, which way three stand, horizon, light, drift, hue.
    leeway: tuple[float, ...]


def evenly(number: float, choices: int) -> int:
    """Return which of `choices` equally likely choices a standard normal number stands for."""
    return min(choices - 1, int(choices * 0.5 * (1 + math.erf(number / math.sqrt(2)))))


def compose(seed: int, width: int, height: int, *, may_be_held_out: bool = False) -> Scene:
    """Return the scene of that number for that canvas; without combinations that are held out, unless they may be."""
    rng = np.random.default_rng(seed)
    while True:
        subjects, relation = _subjects(rng)
        chosen = _background(rng)
        if may_be_held_out or not is_held_out(subjects, chosen):
            break
    leeway = tuple(rng.standard_normal(LEEWAY).tolist())
    return Scene(chosen, subjects, relation, width, height, leeway)


def _background(rng: Generator) -> str:
    kind = rng.random()
    if kind < 0.1:
        return OPEN
    names = list(PLACES) if kind < 0.56 else list(COLOURS)
    return names[rng.integers(len(names))]


def _subjects(rng: Generator) -> tuple[tuple[Subject, ...], Relation | None]:
    """Choose what a scene is about: one thing, several of a kind, two in a relation, or three or four things."""
    kind = rng.random()
    if kind < 0.44:
        return (_single(rng),), None
    if kind < 0.62:
        counted = [thing for thing in THINGS if thing.counts]
        thing = counted[rng.integers(len(counted))]
        return (Subject(thing.icon, int(rng.integers(2, MOST + 1)), _dye(rng, thing)),), None
    count = 2 if kind < 0.92 else int(rng.integers(3, MOST + 1))
    things = [THINGS[i] for i in rng.choice(len(THINGS), count, replace=False)]
    subjects = tuple(Subject(thing.icon, 1, _dye(rng, thing)) for thing in things)
    return subjects, RELATIONS[rng.choice(4, p=(0.3, 0.25, 0.15, 0.3))] if count == 2 else None


def _single(rng: Generator) -> Subject:
    bodies = [thing for thing in THINGS if any((thing.body.eyes, thing.body.head, thing.body.hand))]
    if rng.random() < 0.35:
        # Everybody's first picture is of a T-Rex with sunglasses, the only body that is seen from the side.
        thing = BY_ICON["t-rex"] if rng.random() < 0.5 else bodies[rng.integers(len(bodies))]
        fitting = [item for item in ACCESSORIES if _spot(thing, item) is not None and item.icon != thing.icon]
        return Subject(thing.icon, accessory=fitting[rng.integers(len(fitting))].icon)
    thing = THINGS[rng.integers(len(THINGS))]
    size: Size | None = None
    if rng.random() < 0.4:
        size = "small" if rng.random() < 0.5 else "big"
    return Subject(thing.icon, 1, _dye(rng, thing), size)


def _dye(rng: Generator, thing: Thing) -> str | None:
    if thing.colour is None or rng.random() < 0.45:
        return None
    return list(DYES)[rng.integers(len(DYES))]


def _spot(thing: Thing, accessory: Accessory) -> tuple[float, float, float] | None:
    spot: tuple[float, float, float] | None = getattr(thing.body, accessory.place)
    return spot


# Drawing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Placed:
    """One thing of a scene with its square on the canvas, in cells."""

    subject: Subject
    box: Box


def mood(scene: Scene) -> Mood:
    """Return the mood of a scene's background."""
    bounded = [max(-1.0, min(1.0, number / 2)) for number in scene.leeway]
    return Mood(*bounded[4:8])


def grid(scene: Scene) -> tuple[int, int]:
    """Return the rows and columns of cells, a token each, of a scene's canvas."""
    return token_grid(scene.width, scene.height, SKETCH.token_px, SKETCH.native_tokens)


def placed(scene: Scene) -> list[Placed]:
    """Return a scene's things with their places, those in front last."""
    across, down, second = scene.leeway[:3]
    rows, columns = grid(scene)
    things = [subject for subject in scene.subjects for _ in range(subject.count)]
    relation = "left" if scene.relation == "with" else scene.relation
    size = scene.subjects[0].size if len(things) == 1 else None

    def pick(axis: int, choices: int) -> int:
        return evenly((across, down, second)[axis], choices)

    boxes = arranged(rows, columns, len(things), relation, size, pick)
    pairs = [Placed(thing, box) for thing, box in zip(things, boxes, strict=True)]
    return pairs[::-1] if relation == "front" else pairs


def draw(scene: Scene, art: Art) -> Picture:
    """Return the scene's picture: (height, width, 3)."""
    picture = background(scene.background, scene.width, scene.height, mood(scene))
    rows, columns = grid(scene)
    cell_x, cell_y = scene.width / columns, scene.height / rows
    for one in placed(scene):
        side = round(one.box.cells * min(cell_x, cell_y))
        x = round((one.box.column + one.box.cells / 2) * cell_x - side / 2)
        y = round((one.box.row + one.box.cells / 2) * cell_y - side / 2)
        if has_ground(scene.background):
            _shadow(picture, x + side / 2, y + 0.97 * side, 0.42 * side)
        paste(picture, art.sprite(one.subject.icon, side, one.subject.dye), x, y)
        if one.subject.accessory is not None:
            _paste_accessory(picture, art, one.subject.icon, one.subject.accessory, x, y, side)
    return picture


def draw_pixels(scene: Scene, art: Art) -> NDArray[np.uint8]:
    """Return the scene's picture in levels: (height, width, 3)."""
    return np.round(draw(scene, art) * 255).astype(np.uint8)


def _paste_accessory(picture: Picture, art: Art, icon: str, worn: str, x: int, y: int, side: int) -> None:
    accessory = BY_ACCESSORY[worn]
    spot = _spot(BY_ICON[icon], accessory)
    assert spot is not None
    own = round(spot[2] * side)
    left, top = x + spot[0] * side - accessory.grip[0] * own, y + spot[1] * side - accessory.grip[1] * own
    paste(picture, art.sprite(accessory.icon, own), round(left), round(top))


def paste(picture: Picture, sprite: Picture, left: int, top: int) -> None:
    """Lay a sprite over the picture in place; what sticks out is cut off."""
    height, width, _ = picture.shape
    px = len(sprite)
    rows = slice(max(0, top), max(0, min(height, top + px)))
    columns = slice(max(0, left), max(0, min(width, left + px)))
    part = sprite[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    picture[rows, columns] = picture[rows, columns] * (1 - part[..., 3:]) + part[..., :3]


def _shadow(picture: Picture, x: float, y: float, radius: float) -> None:
    """Darken a flat ellipse, soft at its edge, in place; x, y, radius: in pixels."""
    height, width, _ = picture.shape
    rows = slice(max(0, int(y - 0.2 * radius)), min(height, int(y + 0.2 * radius) + 1))
    columns = slice(max(0, int(x - radius)), min(width, int(x + radius) + 1))
    dy = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - y) / (0.2 * radius)
    dx = (np.arange(columns.start, columns.stop, dtype=np.float32)[None] - x) / radius
    dark = ((1 - np.sqrt(dx * dx + dy * dy)) * 3).clip(0, 1) * np.float32(0.22)
    picture[rows, columns] *= 1 - dark[..., None]
