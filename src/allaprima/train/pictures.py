"""Drawn scenes as tensors: what the autoencoder's fits look at, and what the flow's latents are made of."""

import numpy as np
import torch
from torch import Tensor

from allaprima.flux import SKETCH
from allaprima.flux.latents import token_grid
from allaprima.train.art import Art
from allaprima.train.scenes import compose, draw_pixels


def canvas_px(width: int, height: int) -> tuple[int, int]:
    """Return the width and height in pixels of the canvas on which the model paints a picture of that size."""
    rows, columns = token_grid(width, height, SKETCH.token_px, SKETCH.canvas_tokens)
    return columns * SKETCH.token_px, rows * SKETCH.token_px


#: The canvas of a square picture.
SQUARE = canvas_px(512, 512)


def scene_pixels(seeds: range, art: Art, width: int = SQUARE[0], height: int = SQUARE[1]) -> Tensor:
    """Return drawn scenes: (len(seeds), 3, height, width), uint8."""
    pictures = [draw_pixels(compose(seed, width, height), art) for seed in seeds]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def pick_canvas(pool: list[Tensor]) -> Tensor:
    """Return one canvas's scenes, each canvas as often as it has scenes."""
    return pool[int(torch.multinomial(torch.tensor([float(len(scenes)) for scenes in pool]), 1))]


def to_signed(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1], same shape."""
    return pixels.float() / 127.5 - 1
