"""What the text encoders are taught from captions alone."""

import numpy as np
import pytest
import torch
from torch import nn

from allaprima.flux import SKETCH, Autoencoder, CLIPTextEncoder, T5Encoder
from training.data.caption_tokens import CaptionTokenizer, tokenizers
from training.data.captions import caption
from training.data.scenes import FREE_FACTORS, SIZES, Scene, Subject, compose
from training.fit.text_encoders import (
    APPEARANCE_VALUES,
    MAX_OBJECTS,
    SCENE_CLASSES,
    SUBJECT_CLASSES,
    AppearanceTargets,
    CaptionProbe,
    answers,
    init_directional_heads,
    pretrain_text_encoders,
)

STILL = (0.0,) * FREE_FACTORS
BEACH = Scene("beach", (Subject("t-rex", accessory="sunglasses"),), None, 512, 512, STILL)
ALL = SCENE_CLASSES + MAX_OBJECTS * SUBJECT_CLASSES


def test_scenes_that_differ_in_one_respect_have_one_answer_that_differs():
    def differing(other):
        return sum(a != b for a, b in zip(answers(BEACH), answers(other), strict=True))

    assert differing(Scene("red", BEACH.subjects, None, 512, 512, STILL)) == 1
    assert differing(Scene("beach", (Subject("fox", accessory="sunglasses"),), None, 512, 512, STILL)) == 1
    assert differing(Scene("beach", (Subject("t-rex", accessory="crown"),), None, 512, 512, STILL)) == 1
    assert differing(Scene("beach", BEACH.subjects, None, 512, 512, (1.0,) * FREE_FACTORS)) == 0


def test_every_answer_of_every_scene_is_one_that_a_reader_can_give():
    told = np.array([answers(compose(seed, 512, 512)) for seed in range(4000)])

    assert told.shape[1] == len(ALL)
    assert (told >= 0).all()
    assert (told < np.array(ALL)).all()
    asked_of_all = len(SCENE_CLASSES) + len(SUBJECT_CLASSES)
    assert told.max(0).tolist()[:asked_of_all] == [count - 1 for count in ALL[:asked_of_all]]


def test_a_reader_answers_every_question_of_every_sentence_and_draws_its_things():
    found, drawn = CaptionProbe(16, ALL, MAX_OBJECTS)(torch.randn(3, 7, 16))

    assert [tuple(logits.shape) for logits in found] == [(3, count) for count in ALL]
    assert drawn.shape == (3, MAX_OBJECTS, APPEARANCE_VALUES)


@pytest.fixture(scope="module")
def appearance_targets(art):
    torch.manual_seed(0)
    return AppearanceTargets(art, Autoencoder(SKETCH.autoencoder))


def test_likenesses_are_of_each_thing_of_a_scene_in_its_colour(appearance_targets):
    def scene(variant):
        return Scene("beach", (Subject("automobile", variant=variant), Subject("fox")), "with", 512, 512, STILL)

    red, blue = appearance_targets.of([scene("red"), scene("blue")])

    assert red.shape == (MAX_OBJECTS, APPEARANCE_VALUES)
    assert not torch.equal(red[0], blue[0])
    assert torch.equal(red[1], blue[1])
    assert red[1].any()
    assert not red[2:].any()


def test_every_token_is_said_to_tell_of_the_thing_whose_name_it_is_part_of_whatever_the_order():
    captions, rng = CaptionTokenizer(), np.random.default_rng(0)
    scene = Scene("beach", (Subject("t-rex"), Subject("automobile", variant="blue")), "left", 512, 512, STILL)
    read, _ = tokenizers()

    t5, clip, whose = captions.told([scene] * 60, rng)

    assert t5.shape == whose.shape
    firsts = set()
    for ids, subjects in zip(t5.tolist(), whose.tolist(), strict=True):
        words = [read.tokenizer.id_to_token(token) for token in ids]
        told = {word: subject for word, subject in zip(words, subjects, strict=True) if subject}
        assert told.get("blue") == 2
        assert all(told[word] == 1 for word in ("t", "rex", "dinosaur", "tyrannosaurus") if word in told)
        assert not {"left", "right", "beach", "sand", "</s>", "<pad>"} & told.keys()
        firsts.add(next(subject for subject in subjects if subject))
    assert firsts == {1, 2}
    assert clip.shape == (60, SKETCH.clip.length)


def test_marks_change_neither_the_words_nor_the_ids():
    captions = CaptionTokenizer()
    scenes = [compose(seed, 512, 512) for seed in range(50)]

    plain = captions.ids(scenes, np.random.default_rng(1))
    *marked, _ = captions.told(scenes, np.random.default_rng(1))

    assert all(torch.equal(one, other) for one, other in zip(plain, marked, strict=True))


def test_one_head_begins_by_looking_to_the_left_and_one_to_the_right_and_near_words_before_far_ones():
    def biases(encoder):
        return encoder.get_submodule("encoder.block.0.layer.0.SelfAttention.relative_attention_bias").weight.detach()

    torch.manual_seed(0)
    t5 = T5Encoder(SKETCH.t5)
    nn.init.normal_(biases(t5), std=0.3)
    before = biases(t5).clone()

    init_directional_heads(t5)

    left, right = biases(t5).chunk(2)
    assert float(left[1:, 0].mean() - right[:, 0].mean()) > 2
    assert float(right[1:, 1].mean() - left[:, 1].mean()) > 2
    assert float(left[1, 0]) > float(left[-1, 0])
    assert float(right[1, 1]) > float(right[-1, 1])
    assert torch.equal(biases(t5)[:, 2:], before[:, 2:])


def test_captions_come_as_ids_of_both_encoders_and_are_worded_anew():
    captions, rng = CaptionTokenizer(), np.random.default_rng(0)

    t5, clip = captions.ids([BEACH] * 20, rng)

    assert t5.shape == (20, SKETCH.t5.length)
    assert clip.shape == (20, SKETCH.clip.length)
    assert len({tuple(row) for row in t5.tolist()}) > 10


def test_no_caption_is_longer_than_the_encoders_read():
    rng = np.random.default_rng(1)
    sizes = list(SIZES)
    captions = [caption(compose(seed, *sizes[seed % len(sizes)]), rng) for seed in range(3000)]

    for tokenizer in tokenizers():
        assert not any(tokenizer.encode(text).over for text in captions)


def test_a_fit_goes_on_where_it_stopped_and_ends_when_its_minutes_are_used(appearance_targets, tmp_path, capsys):
    torch.manual_seed(0)
    t5, clip = T5Encoder(SKETCH.t5), CLIPTextEncoder(SKETCH.clip)
    before = t5.shared.weight.clone()

    pretrain_text_encoders(tmp_path, appearance_targets, t5, clip, minutes=0.03, scenes=50)
    learned = t5.shared.weight.clone()
    assert not torch.equal(before, learned)

    fresh = T5Encoder(SKETCH.t5)
    pretrain_text_encoders(tmp_path, appearance_targets, fresh, CLIPTextEncoder(SKETCH.clip), minutes=0.03, scenes=50)
    assert torch.equal(fresh.shared.weight, learned)
    assert "read right" in capsys.readouterr().out
