"""Snapshots of a fit."""

import pytest

from training.fit.snapshots import SHOWN, sheet


def test_a_sheet_shows_pictures_side_by_side(art):
    pictures = [(255 * art.sprite("fox", 64)[..., :3]).astype("uint8")] * SHOWN
    whole = sheet(pictures)
    assert whole.width / whole.height == pytest.approx(8 / 6)
