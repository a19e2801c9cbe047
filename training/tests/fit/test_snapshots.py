"""Snapshots of the flow."""

import pytest

from training.fit.snapshots import SHEET_IMAGES, contact_sheet


def test_contact_sheet_arranges_images_in_rows(art):
    images = [(255 * art.sprite("fox", 64)[..., :3]).astype("uint8")] * SHEET_IMAGES
    whole = contact_sheet(images)
    assert whole.width / whole.height == pytest.approx(8 / 6)
