"""Scenes: a background and one to four objects, composed from a seed and drawn.

A seed always gives the same scene, so a range of seeds represents a set of scenes. Captions do not state the positions
of objects, the horizon and the light of a scene. These are determined by a few standard normal numbers, the scene's
free factors. `fit.flow.steer_noise` describes how the model infers the free factors from the noise.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from allaprima.flux import SKETCH
from allaprima.flux.latents import token_grid
from training.data.art import COLOUR_VARIANTS, Art
from training.data.backgrounds import COLOURS, OPEN, SCENIC, BackgroundParams, FloatImage, draw_background, has_ground
from training.data.held_out import is_held_out
from training.data.layout import Box, arrange
from training.data.objects import ACCESSORIES, BY_ACCESSORY, BY_ICON, OBJECTS, Accessory, ObjectClass

#: Image sizes (width, height) in the training data, and the share of scenes of each size.
SIZES: dict[tuple[int, int], float] = {
    (512, 512): 0.46,
    (1024, 768): 0.2,
    (768, 1024): 0.06,
    (1024, 576): 0.08,
    (576, 1024): 0.06,
    (1440, 512): 0.1,
    (512, 1440): 0.04,
}

# First seeds of disjoint sets of scenes. The training data of the model starts at seed 0.
#: Scenes on which the autoencoder's error is measured.
VALIDATION_FROM = 10_000_000
#: Scenes on which the evaluator's errors are measured.
EVALUATOR_TEST_FROM = 20_000_000
#: Training data of the evaluator.
EVALUATOR_TRAIN_FROM = 30_000_000
#: Scenes of latent composites; this set has no last seed.
COMPOSITES_FROM = 100_000_000

#: Number of a scene's free factors (`Scene.free_factors`). The first three determine the positions of the objects, the
#: fourth is unused, and the last four are the background's parameters.
FREE_FACTORS = 8

#: Relation of two objects: the first is left of, above, in front of, or with the second; "with" is drawn like "left".
Relation = Literal["left", "above", "front", "with"]
RELATIONS: tuple[Relation, ...] = ("left", "above", "front", "with")
Size = Literal["small", "big"]
#: Most objects in a scene.
MAX_OBJECTS = 4


@dataclass(frozen=True, slots=True)
class Subject:
    """One or several equal objects of a scene, with all attributes that a caption states."""

    icon: str
    count: int = 1
    #: Colour variant; None: the usual colour.
    variant: str | None = None
    size: Size | None = None
    #: Icon of the accessory that the object wears or holds.
    accessory: str | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """A complete description of an image, from which `draw` draws it."""

    background: str
    subjects: tuple[Subject, ...]
    #: Relation of the first subject to the second; None unless there are two subjects.
    relation: Relation | None
    #: Size of the canvas in pixels.
    width: int
    height: int
    #: `FREE_FACTORS` standard normal numbers: horizontal shift, vertical shift, shift of the second object, unused,
    #: horizon, light, drift, hue.
    free_factors: tuple[float, ...]


def quantile_bin(number: float, choices: int) -> int:
    """Return the index, 0 to choices - 1, of the standard normal distribution's quantile that contains a number."""
    return min(choices - 1, int(choices * 0.5 * (1 + math.erf(number / math.sqrt(2)))))


def compose(seed: int, width: int, height: int, *, allow_held_out: bool = False) -> Scene:
    """Return the scene of a seed. width, height: of the canvas, in pixels.

    The scene has no held-out combination unless `allow_held_out`.
    """
    rng = np.random.default_rng(seed)
    while True:
        subjects, relation = _subjects(rng)
        chosen = _background(rng)
        if allow_held_out or not is_held_out(subjects, chosen):
            break
    free_factors = tuple(rng.standard_normal(FREE_FACTORS).tolist())
    return Scene(chosen, subjects, relation, width, height, free_factors)


def _background(rng: Generator) -> str:
    kind = rng.random()
    if kind < 0.1:
        return OPEN
    names = list(SCENIC) if kind < 0.56 else list(COLOURS)
    return names[rng.integers(len(names))]


def _subjects(rng: Generator) -> tuple[tuple[Subject, ...], Relation | None]:
    """Choose one object, several equal ones, two in a relation, or three or four different ones."""
    kind = rng.random()
    if kind < 0.44:
        return (_single(rng),), None
    if kind < 0.62:
        counted = [obj for obj in OBJECTS if obj.counts]
        obj = counted[rng.integers(len(counted))]
        return (Subject(obj.icon, int(rng.integers(2, MAX_OBJECTS + 1)), _variant(rng, obj)),), None
    count = 2 if kind < 0.92 else int(rng.integers(3, MAX_OBJECTS + 1))
    objects = [OBJECTS[i] for i in rng.choice(len(OBJECTS), count, replace=False)]
    subjects = tuple(Subject(obj.icon, 1, _variant(rng, obj)) for obj in objects)
    return subjects, RELATIONS[rng.choice(4, p=(0.3, 0.25, 0.15, 0.3))] if count == 2 else None


def _single(rng: Generator) -> Subject:
    bodies = [obj for obj in OBJECTS if any((obj.body.eyes, obj.body.head, obj.body.hand))]
    if rng.random() < 0.35:
        # The example prompt of the documentation is a T-Rex with sunglasses. The T-Rex is the only body in side view,
        # so the model needs more examples of it.
        obj = BY_ICON["t-rex"] if rng.random() < 0.5 else bodies[rng.integers(len(bodies))]
        fitting = [item for item in ACCESSORIES if _spot(obj, item) is not None and item.icon != obj.icon]
        return Subject(obj.icon, accessory=fitting[rng.integers(len(fitting))].icon)
    obj = OBJECTS[rng.integers(len(OBJECTS))]
    size: Size | None = None
    if rng.random() < 0.4:
        size = "small" if rng.random() < 0.5 else "big"
    return Subject(obj.icon, 1, _variant(rng, obj), size)


def _variant(rng: Generator, obj: ObjectClass) -> str | None:
    if obj.colour is None or rng.random() < 0.45:
        return None
    return list(COLOUR_VARIANTS)[rng.integers(len(COLOUR_VARIANTS))]


def _spot(obj: ObjectClass, accessory: Accessory) -> tuple[float, float, float] | None:
    spot: tuple[float, float, float] | None = getattr(obj.body, accessory.place)
    return spot


# Drawing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlacedObject:
    """One object of a scene, and its square on the canvas in cells."""

    subject: Subject
    box: Box


def background_params(scene: Scene) -> BackgroundParams:
    """Return the parameters of a scene's background: half of its last free factors, clamped to [-1, 1]."""
    bounded = [max(-1.0, min(1.0, number / 2)) for number in scene.free_factors]
    return BackgroundParams(*bounded[4:8])


def cell_grid(scene: Scene) -> tuple[int, int]:
    """Return the rows and columns of cells (tokens) of a scene's canvas."""
    return token_grid(scene.width, scene.height, SKETCH.token_px, SKETCH.native_tokens)


def place_objects(scene: Scene) -> list[PlacedObject]:
    """Return a scene's objects with their squares, in drawing order, the front object last."""
    across, down, second = scene.free_factors[:3]
    rows, columns = cell_grid(scene)
    objects = [subject for subject in scene.subjects for _ in range(subject.count)]
    relation = "left" if scene.relation == "with" else scene.relation
    size = scene.subjects[0].size if len(objects) == 1 else None

    def pick(axis: int, choices: int) -> int:
        return quantile_bin((across, down, second)[axis], choices)

    boxes = arrange(rows, columns, len(objects), relation, size, pick)
    pairs = [PlacedObject(obj, box) for obj, box in zip(objects, boxes, strict=True)]
    return pairs[::-1] if relation == "front" else pairs


def draw(scene: Scene, art: Art) -> FloatImage:
    """Return the image of a scene: (height, width, 3), float32 in [0, 1]."""
    image = draw_background(scene.background, scene.width, scene.height, background_params(scene))
    rows, columns = cell_grid(scene)
    cell_x, cell_y = scene.width / columns, scene.height / rows
    for placed in place_objects(scene):
        side = round(placed.box.cells * min(cell_x, cell_y))
        x = round((placed.box.column + placed.box.cells / 2) * cell_x - side / 2)
        y = round((placed.box.row + placed.box.cells / 2) * cell_y - side / 2)
        if has_ground(scene.background):
            _shadow(image, x + side / 2, y + 0.97 * side, 0.42 * side)
        paste(image, art.sprite(placed.subject.icon, side, placed.subject.variant), x, y)
        if placed.subject.accessory is not None:
            _paste_accessory(image, art, placed.subject.icon, placed.subject.accessory, x, y, side)
    return image


def draw_pixels(scene: Scene, art: Art) -> NDArray[np.uint8]:
    """Return the image of a scene: (height, width, 3), uint8."""
    return np.round(draw(scene, art) * 255).astype(np.uint8)


def _paste_accessory(image: FloatImage, art: Art, icon: str, accessory_icon: str, x: int, y: int, side: int) -> None:
    accessory = BY_ACCESSORY[accessory_icon]
    spot = _spot(BY_ICON[icon], accessory)
    assert spot is not None
    accessory_px = round(spot[2] * side)
    left, top = (
        x + spot[0] * side - accessory.grip[0] * accessory_px,
        y + spot[1] * side - accessory.grip[1] * accessory_px,
    )
    paste(image, art.sprite(accessory.icon, accessory_px), round(left), round(top))


def paste(image: FloatImage, sprite: FloatImage, left: int, top: int) -> None:
    """Blend a sprite, RGBA with premultiplied alpha, over an image, in place. left, top: in pixels.

    The part of the sprite outside the image is ignored.
    """
    height, width, _ = image.shape
    px = len(sprite)
    rows = slice(max(0, top), max(0, min(height, top + px)))
    columns = slice(max(0, left), max(0, min(width, left + px)))
    part = sprite[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    image[rows, columns] = image[rows, columns] * (1 - part[..., 3:]) + part[..., :3]


def _shadow(image: FloatImage, x: float, y: float, radius: float) -> None:
    """Darken a flat ellipse with a soft edge, in place. x, y, radius: in pixels."""
    height, width, _ = image.shape
    rows = slice(max(0, int(y - 0.2 * radius)), min(height, int(y + 0.2 * radius) + 1))
    columns = slice(max(0, int(x - radius)), min(width, int(x + radius) + 1))
    dy = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - y) / (0.2 * radius)
    dx = (np.arange(columns.start, columns.stop, dtype=np.float32)[None] - x) / radius
    shade = ((1 - np.sqrt(dx * dx + dy * dy)) * 3).clip(0, 1) * np.float32(0.22)
    image[rows, columns] *= 1 - shade[..., None]
