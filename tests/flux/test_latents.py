"""Noise, packing, positions and the token grid."""

from itertools import product
from math import log

import pytest
import torch

from allaprima.flux import SCHNELL, SKETCH
from allaprima.flux.latents import image_ids, noise, pack, text_ids, token_grid, unpack

#: The sides that a request may have.
SIDES = range(64, 1537, 32)
SKETCH_TOKENS = range(126, 163)


def sketch_grid(width: int, height: int) -> tuple[int, int]:
    return token_grid(width, height, SKETCH.token_px, SKETCH.native_tokens)


def test_noise_depends_only_on_seed_and_shape() -> None:
    first = noise(11, 16, 3, 5)
    torch.manual_seed(99)  # neither the global generator nor other draws have an effect
    noise(12, 16, 3, 5)
    assert first.equal(noise(11, 16, 3, 5))
    assert not first.equal(noise(12, 16, 3, 5))
    assert first.shape == (16, 6, 10)
    assert (first.dtype, first.device.type) == (torch.float32, "cpu")


def test_noise_does_not_use_global_generator() -> None:
    before = torch.random.get_rng_state()
    noise(11, 16, 3, 5)
    assert torch.random.get_rng_state().equal(before)


@pytest.mark.parametrize("seed", [0, 2**32, 2**63 - 1])
def test_noise_is_standard_normal_for_extreme_seeds(seed: int) -> None:
    drawn = noise(seed, 16, 32, 32)
    assert drawn.mean().abs() < 0.01
    assert abs(drawn.std() - 1) < 0.01


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 5), (7, 3)])
def test_unpack_inverts_pack(rows: int, columns: int) -> None:
    z = torch.randn(2, 3, 2 * rows, 2 * columns, generator=torch.Generator().manual_seed(1))
    assert pack(z).shape == (2, rows * columns, 12)
    assert unpack(pack(z), rows, columns).equal(z)


def test_token_values_are_ordered_by_channel_row_and_column() -> None:
    rows, columns = 2, 3
    z = torch.arange(2 * 5 * 4 * 6).reshape(2, 5, 4, 6)
    tokens = pack(z)
    for b, c, row, column, ph, pw in product(range(2), range(5), range(rows), range(columns), range(2), range(2)):
        assert tokens[b, row * columns + column, c * 4 + ph * 2 + pw] == z[b, c, 2 * row + ph, 2 * column + pw]


def test_image_ids_are_rows_and_columns_in_token_order() -> None:
    ids = image_ids(2, 3)
    assert ids.dtype == torch.float32
    assert ids.tolist() == [[[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0], [0, 1, 1], [0, 1, 2]]]


def test_text_ids_are_zero() -> None:
    assert text_ids(4).equal(torch.zeros(1, 4, 3))


def test_grid_without_native_tokens_has_requested_size() -> None:
    assert token_grid(1024, 768, SCHNELL.token_px, SCHNELL.native_tokens) == (48, 64)
    for width, height in product(SIDES, SIDES):
        rows, columns = token_grid(width, height, SCHNELL.token_px, SCHNELL.native_tokens)
        assert (columns * 16, rows * 16) == (width, height)


def test_square_images_get_square_grid() -> None:
    assert {sketch_grid(side, side) for side in SIDES} == {(12, 12)}


def test_wide_image_gets_grid_of_similar_ratio() -> None:
    rows, columns = sketch_grid(1440, 512)
    assert columns / rows == pytest.approx(1440 / 512, rel=0.05)


def test_extreme_ratios_get_nearest_grid() -> None:
    assert sketch_grid(64, 1536) == (63, 2)
    assert sketch_grid(1536, 64) == (2, 63)


def test_sizes_get_about_native_token_count() -> None:
    # The grid depends on the ratio alone; every other side includes both ends.
    sizes = {width / height: (width, height) for width, height in product(SIDES[::2], SIDES[::2])}
    for width, height in sizes.values():
        rows, columns = sketch_grid(width, height)
        assert min(rows, columns) >= 1
        assert rows * columns in SKETCH_TOKENS
        assert (rows - columns) * (height - width) >= 0
        if 1 / 3 <= width / height <= 3:
            assert abs(log(columns / rows) - log(width / height)) < 0.1
