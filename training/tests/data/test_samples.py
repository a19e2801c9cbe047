"""The sample sheet."""

from training.data.samples import sample_sheet


def test_sample_sheet_has_room_for_images_and_captions(art):
    whole = sample_sheet(art)
    assert whole.size == (8 * 192, 6 * (192 + 44))
    assert len(whole.resize((64, 48)).getcolors(4096)) > 500
