"""The scorer of `sketch`: paints the prompts of `prompts.txt` and judges, against the art itself, what came out.

The judge knows nothing of the model: it asks which of the backgrounds surrounds a picture, and which thing, drawn over
that background at whatever size and position, comes nearest to the picture. Its own error rates are measured on true
scenes, which no fit has seen. Pictures are (H, W, 3) of any size, float32 in [0, 1] or uint8.

Dimension key: V variants, K kernel channels, S side of a template, H and W the size at which a picture is judged.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from allaprima.train import scenes
from allaprima.train.art import SPRITE_PX, THINGS, Art, Thing, shrink
from allaprima.train.scenes import BACKGROUNDS, Picture, Scene

AnyPicture = NDArray[np.float32] | NDArray[np.uint8]
#: Given a prompt and a seed, returns a picture: uint8 (H, W, 3) of any size.
Paint = Callable[[str, int], NDArray[np.uint8]]

#: The answer of `thing_of` where the bare background comes nearest.
NOTHING = "nothing"
#: Scenes from this number on are for measuring; fits stay far below it.
FIRST_HELD_OUT = 20_000_000
#: Size of a true scene, both ways.
SCENE_PX = 512

#: Shorter side at which every variant is tried everywhere, and at which backgrounds and the best variants are compared.
COARSE_PX, FINE_PX = 32, 64
#: Variants that go from the coarse search to the fine one.
FINALISTS = 10
#: Side of a template as a share of the picture's shorter side, and the share of that by which it may stick out.
MIN_SIDE, MAX_SIDE, OVERHANG = 0.5, 0.9, 0.06
#: Share of the width and height that is taken as margin on each side.
MARGIN = 0.06
#: A margin's pixel counts as wholly different from here on, so that a thing that reaches into it weighs little.
MAX_DIFFERENCE = 0.25
#: Samples of each background: they cover its range of horizons and light.
SAMPLES = 16


@dataclass(frozen=True, slots=True)
class Prompt:
    """A sentence, and the background and the thing (by icon) that its picture has to show."""

    background: str
    icon: str
    text: str


@dataclass(frozen=True, slots=True)
class Score:
    """Shares of pictures, 0 to 1, that show what their prompt asks for."""

    background: float
    thing: float
    both: float


@cache
def prompts() -> tuple[Prompt, ...]:
    """Return the prompts that models are compared by, in the file's order."""
    lines = (files("allaprima.train") / "prompts.txt").read_text("utf-8").splitlines()
    return tuple(Prompt(*(part.strip() for part in line.split("|"))) for line in lines)


# Backgrounds ----------------------------------------------------------------------------------------------------


def _judged(picture: AnyPicture, short: int) -> Tensor:
    """Return a picture as float32 (3, H, W) in [0, 1] with that shorter side, anti-aliased."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    pixels = pixels.float() / 255 if picture.dtype == np.uint8 else pixels.float()
    height, width = pixels.shape[1:]
    scale = short / min(height, width)
    return F.interpolate(pixels[None], (round(height * scale), round(width * scale)), mode="area")[0]


@lru_cache(maxsize=8)
def _samples(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return which pixels lie in the margin, bool (H, W), drawn backgrounds, (backgrounds x SAMPLES, 3, H, W), and
    those backgrounds' margins, (backgrounds x SAMPLES, 3, pixels).
    """
    rows, columns = max(1, round(MARGIN * height)), max(1, round(MARGIN * width))
    margin = torch.ones(height, width, dtype=torch.bool)
    margin[rows:-rows, columns:-columns] = False
    drawn = [scenes.background(name, width, height, seed) for name in BACKGROUNDS for seed in range(SAMPLES)]
    samples = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()
    return margin, samples, samples[..., margin]


def _differences(pixels: Tensor) -> Tensor:
    """Return how much the margin of (3, H, W) differs from that of every sample: (backgrounds, SAMPLES)."""
    margin, _, samples = _samples(*pixels.shape[1:])
    distance = (samples - pixels[..., margin]).abs().mean(1)
    return distance.clamp(max=MAX_DIFFERENCE).mean(1).reshape(len(BACKGROUNDS), SAMPLES)


def background_of(picture: AnyPicture) -> str:
    """Return the name of the background that a picture's margin is nearest to, of `scenes.BACKGROUNDS`."""
    nearest = _differences(_judged(picture, FINE_PX)).amin(1)
    return BACKGROUNDS[int(nearest.argmin())]


def _bare(pixels: Tensor, name: str) -> Tensor:
    """Return what the named background shows behind the thing of (3, H, W): its nearest sample, lit as the margin."""
    margin, samples, _ = _samples(*pixels.shape[1:])
    row = BACKGROUNDS.index(name)
    sample = samples[row * SAMPLES + int(_differences(pixels)[row].argmin())]
    # The median ignores stars, and a thing that reaches into the margin.
    return sample + (pixels - sample)[:, margin].median(dim=1).values[:, None, None]


# Things ---------------------------------------------------------------------------------------------------------


@cache
def _variants(art: Art) -> tuple[tuple[str, Picture], ...]:
    """Return every thing's icon and sprite, and once more with sunglasses on for those that can wear them."""
    plain = [(thing.icon, art.sprite(thing.icon)) for thing in THINGS]
    return (*plain, *((thing.icon, _with_sunglasses(art, thing)) for thing in THINGS if thing.eyes))


def _with_sunglasses(art: Art, thing: Thing) -> Picture:
    sprite, glasses = art.sprite(thing.icon).copy(), art.sprite("sunglasses")
    x, y, side = (SPRITE_PX * share for share in thing.eyes or (0.5, 0.5, 0.0))
    # Alpha is covered by the same rule as a colour; scenes.paste takes three planes at a time.
    alpha = np.repeat(sprite[..., 3:], 3, axis=2)
    scenes.paste(sprite[..., :3], glasses, x, y, side)
    scenes.paste(alpha, np.repeat(glasses[..., 3:], 4, axis=2), x, y, side)
    sprite[..., 3] = alpha[..., 0]
    return sprite


@lru_cache(maxsize=64)
def _kernels(art: Art, px: int) -> Tensor:
    """Return every variant's kernels at px by px: (V, K, S, S), against the channels of `_evidence`."""
    sprites = torch.from_numpy(np.stack([shrink(sprite, px) for _, sprite in _variants(art)])).permute(0, 3, 1, 2)
    colour, alpha = sprites[:, :3], sprites[:, 3:]
    return torch.cat([colour, alpha, (colour**2).sum(1, keepdim=True), alpha * colour, alpha**2], dim=1)


def _evidence(pixels: Tensor, bare: Tensor) -> Tensor:
    """Return the channels with which a variant's kernels correlate to the squared error that the variant takes away
    when it is drawn over `bare`: (K, H, W).

    With d = pixels - bare, a sprite of colour c (alpha multiplied in) and alpha a changes the picture by t = c - a bare
    and so takes away d^2 - (d - t)^2 = 2 d t - t^2. All of the window counts, so no size of template is favoured.
    """
    d = pixels - bare
    one = torch.ones_like(d[:1])
    return torch.cat([2 * d, -2 * (d * bare).sum(0, keepdim=True), -one, 2 * bare, -(bare**2).sum(0, keepdim=True)])


def _search(art: Art, evidence: Tensor) -> list[list[float]]:
    """Return, for every variant, its best place in (K, H, W): error taken away, side, upper edge, left edge."""
    short = min(evidence.shape[1:])
    tried = []
    for px in range(round(MIN_SIDE * short), round(MAX_SIDE * short) + 1):
        pad = round(OVERHANG * px)
        # Beyond the picture there is no evidence either way.
        explained = F.conv2d(F.pad(evidence, (pad,) * 4)[None], _kernels(art, px))[0]
        values, places = explained.flatten(1).max(1)
        tops, lefts = places // explained.shape[2] - pad, places % explained.shape[2] - pad
        tried.append(torch.stack([values, torch.full_like(values, px), tops, lefts]))
    table = torch.stack(tried)  # (sides, 4, V)
    best: list[list[float]] = table[table[:, 0].argmax(0), :, torch.arange(table.shape[2])].tolist()
    return best


def _refine(art: Art, evidence: Tensor, variant: int, coarse: Sequence[float]) -> float:
    """Return the most error that a variant takes away from (K, H, W) near its best place of the coarse search."""
    scale = FINE_PX / COARSE_PX
    reach = round(scale)
    _, side, top, left = (round(scale * value) for value in coarse)
    # Room for the largest overhang and the reach around it.
    room = FINE_PX // 4
    padded = F.pad(evidence, (room,) * 4)
    best = -np.inf
    for px in range(side - reach, side + reach + 1):
        y, x = (edge + (side - px) // 2 - reach + room for edge in (top, left))
        windows = padded[:, y : y + px + 2 * reach, x : x + px + 2 * reach].unfold(1, px, 1).unfold(2, px, 1)
        # As a product: conv2d is slow for a single kernel of this size.
        explained = windows.permute(1, 2, 0, 3, 4).flatten(2) @ _kernels(art, px)[variant].flatten()
        best = max(best, float(explained.max()))
    return best


@torch.no_grad()
def thing_of(picture: AnyPicture, background: str, art: Art) -> str:
    """Return the icon of the thing that, drawn once over the named background, comes nearest to a picture, or `NOTHING`
    where none comes nearer than the background alone. Sunglasses on a thing make no difference.
    """
    fine, small = _judged(picture, FINE_PX), _judged(picture, COARSE_PX)
    bare = _bare(fine, background)
    found = _search(art, _evidence(small, F.interpolate(bare[None], small.shape[1:], mode="area")[0]))
    finalists = sorted(range(len(found)), key=lambda variant: -found[variant][0])[:FINALISTS]
    evidence = _evidence(fine, bare)
    explained = {variant: _refine(art, evidence, variant, found[variant]) for variant in finalists}
    winner = max(explained, key=explained.__getitem__)
    return _variants(art)[winner][0] if explained[winner] > 0 else NOTHING


# Rates ----------------------------------------------------------------------------------------------------------


def true_scenes(count: int) -> Iterator[Scene]:
    """Return the first `count` held-out scenes, square, that hold one thing."""
    composed = (scenes.compose(seed, SCENE_PX, SCENE_PX) for seed in itertools.count(FIRST_HELD_OUT))
    return itertools.islice((scene for scene in composed if len(scene.things) == 1), count)


def error_rate(art: Art, count: int, blur_px: int = 1) -> tuple[float, float]:
    """Return, and print, the shares of held-out true scenes whose background and whose thing the judge gets wrong.

    blur_px: odd; the scenes, of 512 by 512 pixels, are averaged over boxes of that many first, as a model is soft.
    """
    wrong = np.zeros(2)
    for scene in true_scenes(count):
        pixels = torch.from_numpy(scenes.draw(scene, art)).permute(2, 0, 1)[None]
        soft = F.avg_pool2d(F.pad(pixels, (blur_px // 2,) * 4, mode="replicate"), blur_px, stride=1)
        picture: Picture = soft[0].permute(1, 2, 0).numpy()
        seen = background_of(picture)
        wrong += seen != scene.background, thing_of(picture, seen, art) != scene.things[0].icon
    rates = float(wrong[0]) / count, float(wrong[1]) / count
    print(f"judge's own errors, blur {blur_px} px: background {rates[0]:.1%}, thing {rates[1]:.1%} of {count} scenes")
    return rates


def score(paint: Paint, art: Art, seeds: Sequence[int] = (0, 1), asked: Sequence[Prompt] | None = None) -> Score:
    """Paint every prompt with every seed, judge the pictures, print the misses and a table by background, and return
    the shares that show what was asked for.

    asked: the committed prompts unless others are given.
    """
    rows: dict[str, list[tuple[bool, bool, bool]]] = {name: [] for name in BACKGROUNDS}
    for prompt, seed in itertools.product(prompts() if asked is None else asked, seeds):
        picture = paint(prompt.text, seed)
        seen = background_of(picture)
        thing = thing_of(picture, seen, art)
        right = seen == prompt.background, thing == prompt.icon
        rows[prompt.background].append((*right, all(right)))
        if not all(right):
            print(f"missed with seed {seed}: {prompt.icon} / {prompt.background}, got {thing} / {seen}: {prompt.text}")
    rows["all"] = [right for group in rows.values() for right in group]
    print(f"{'':12}{'pictures':>10}{'background':>12}{'thing':>8}{'both':>8}")
    for name, group in rows.items():
        if group:
            shares = Score(*np.mean(group, axis=0).tolist())
            print(f"{name:12}{len(group):10}{shares.background:12.1%}{shares.thing:8.1%}{shares.both:8.1%}")
    return shares
