"""The last fit: of the decoder alone."""

import torch

from allaprima.flux import SKETCH, Autoencoder
from allaprima.train.pictures import Painters
from allaprima.train.polish import polish_decoder


def test_polishing_moves_the_decoder_and_not_the_encoder(art, tmp_path):
    torch.manual_seed(0)
    model = Autoencoder(SKETCH.autoencoder).eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}

    with Painters(art) as painters:
        polish_decoder(tmp_path, model, painters, minutes=0.01, scenes=7)

    after = model.state_dict()
    assert after.keys() == before.keys()
    moved = {name.partition(".")[0] for name in before if not torch.equal(after[name], before[name])}
    assert moved == {"decoder"}
