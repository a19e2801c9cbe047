"""Sheets of drawn scenes."""

from training.data.samples import sample_sheet


def test_a_sheet_of_samples_can_be_drawn(art):
    whole = sample_sheet(art)
    assert whole.size == (8 * 192, 6 * (192 + 44))
    assert len(whole.resize((64, 48)).getcolors(4096)) > 500
