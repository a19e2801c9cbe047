"""What the text encoders are taught from captions alone."""

import numpy as np
import pytest
import torch

pytest.importorskip("resvg_py", reason="scenes need resvg-py: install the `train` extra")

from allaprima.flux import SKETCH, CLIPTextEncoder, T5Encoder
from allaprima.train.art import THINGS
from allaprima.train.reading import ANSWERS, Captions, answers, teach_reading, tokenizers
from allaprima.train.scenes import BACKGROUNDS, Placed, Scene, caption, compose

BEACH = Scene("beach", (Placed("t-rex", 0.5, 0.5, 0.7, wears_sunglasses=True),), 512, 512, 0)
PAIR = Scene("red", (Placed("fox", 0.2, 0.5, 0.4), Placed("star", 0.8, 0.5, 0.4)), 512, 512, 0)
ICONS = [thing.icon for thing in THINGS]


def test_the_answers_are_background_things_in_order_and_sunglasses():
    assert answers(BEACH) == (BACKGROUNDS.index("beach"), ICONS.index("t-rex"), len(THINGS), 1)
    assert answers(PAIR) == (BACKGROUNDS.index("red"), ICONS.index("fox"), ICONS.index("star"), 0)


def test_every_answer_of_every_scene_is_one_that_a_reader_can_give():
    told = np.array([answers(compose(seed, 512, 512)) for seed in range(2000)])

    assert (told >= 0).all()
    assert (told < np.array(ANSWERS)).all()
    assert told.max(0).tolist() == [count - 1 for count in ANSWERS]


def test_captions_come_as_ids_of_both_encoders_and_are_worded_anew():
    captions, rng = Captions(), np.random.default_rng(0)

    t5, clip = captions.ids([BEACH] * 20, rng)

    assert t5.shape == (20, SKETCH.t5.length)
    assert clip.shape == (20, SKETCH.clip.length)
    assert len({tuple(row) for row in t5.tolist()}) > 10


def test_no_caption_is_longer_than_the_encoders_read():
    rng = np.random.default_rng(1)
    captions = [caption(compose(seed, 512, 512), rng) for seed in range(1000)]

    for tokenizer in tokenizers():
        assert not any(tokenizer.encode(text).over for text in captions)


def test_a_fit_goes_on_where_it_stopped_and_ends_when_its_minutes_are_used(tmp_path, capsys):
    torch.manual_seed(0)
    t5, clip = T5Encoder(SKETCH.t5), CLIPTextEncoder(SKETCH.clip)
    before = t5.shared.weight.clone()

    teach_reading(tmp_path, t5, clip, minutes=0.01)
    learned = t5.shared.weight.clone()
    assert not torch.equal(before, learned)

    fresh = T5Encoder(SKETCH.t5)
    teach_reading(tmp_path, fresh, CLIPTextEncoder(SKETCH.clip), minutes=0.01)
    assert torch.equal(fresh.shared.weight, learned)
    assert "read right" in capsys.readouterr().out
