"""Snapshots of a fit."""

import pytest

from training.fit.snapshots import SHEET_IMAGES, contact_sheet


def test_a_sheet_shows_pictures_side_by_side(art):
    images = [(255 * art.sprite("fox", 64)[..., :3]).astype("uint8")] * SHEET_IMAGES
    whole = contact_sheet(images)
    assert whole.width / whole.height == pytest.approx(8 / 6)
