"""The sample sheet."""

from training.data.samples import sample_sheet


def test_a_sample_sheet_has_the_size_of_its_images_and_captions(art):
    whole = sample_sheet(art)
    assert whole.size == (8 * 192, 6 * (192 + 44))
    assert len(whole.resize((64, 48)).getcolors(4096)) > 500
