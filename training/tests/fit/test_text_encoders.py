"""Pretraining of the text encoders."""

import numpy as np
import pytest
import torch
from torch import nn

from allaprima.flux import SKETCH, Autoencoder, CLIPTextEncoder, T5Encoder
from training.data.scenes import FREE_FACTORS, MAX_OBJECTS, Scene, Subject, compose
from training.fit.text_encoders import (
    APPEARANCE_VALUES,
    SCENE_CLASSES,
    SUBJECT_CLASSES,
    AppearanceTargets,
    CaptionProbe,
    init_directional_heads,
    pretrain_text_encoders,
    scene_labels,
)

STILL = (0.0,) * FREE_FACTORS
BEACH = Scene("beach", (Subject("t-rex", accessory="sunglasses"),), None, 512, 512, STILL)
ALL = SCENE_CLASSES + MAX_OBJECTS * SUBJECT_CLASSES


def test_scenes_that_differ_in_one_attribute_differ_in_one_label():
    def differing(other):
        return sum(a != b for a, b in zip(scene_labels(BEACH), scene_labels(other), strict=True))

    assert differing(Scene("red", BEACH.subjects, None, 512, 512, STILL)) == 1
    assert differing(Scene("beach", (Subject("fox", accessory="sunglasses"),), None, 512, 512, STILL)) == 1
    assert differing(Scene("beach", (Subject("t-rex", accessory="crown"),), None, 512, 512, STILL)) == 1
    assert differing(Scene("beach", BEACH.subjects, None, 512, 512, (1.0,) * FREE_FACTORS)) == 0


def test_every_label_is_one_of_its_questions_classes():
    labels = np.array([scene_labels(compose(seed, 512, 512)) for seed in range(4000)])

    assert labels.shape[1] == len(ALL)
    assert (labels >= 0).all()
    assert (labels < np.array(ALL)).all()
    # Every class of the questions about the scene and about the first subject occurs.
    filled = len(SCENE_CLASSES) + len(SUBJECT_CLASSES)
    assert labels.max(0).tolist()[:filled] == [count - 1 for count in ALL[:filled]]


def test_a_caption_probe_predicts_every_question_and_the_appearances():
    questions, appearances = CaptionProbe(16, ALL, MAX_OBJECTS)(torch.randn(3, 7, 16))

    assert [tuple(logits.shape) for logits in questions] == [(3, count) for count in ALL]
    assert appearances.shape == (3, MAX_OBJECTS, APPEARANCE_VALUES)


@pytest.fixture(scope="module")
def appearance_targets(art):
    torch.manual_seed(0)
    return AppearanceTargets(art, Autoencoder(SKETCH.autoencoder))


def test_appearance_targets_depend_on_the_object_and_its_colour(appearance_targets):
    def scene(variant):
        return Scene("beach", (Subject("automobile", variant=variant), Subject("fox")), "with", 512, 512, STILL)

    red, blue = appearance_targets.targets([scene("red"), scene("blue")])

    assert red.shape == (MAX_OBJECTS, APPEARANCE_VALUES)
    assert not torch.equal(red[0], blue[0])
    assert torch.equal(red[1], blue[1])
    assert red[1].any()
    assert not red[2:].any()


def test_directional_heads_attend_to_one_side_and_more_to_near_tokens():
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


def test_pretraining_resumes_from_its_checkpoint_and_ends_after_its_minutes(appearance_targets, tmp_path, capsys):
    torch.manual_seed(0)
    t5, clip = T5Encoder(SKETCH.t5), CLIPTextEncoder(SKETCH.clip)
    before = t5.shared.weight.clone()

    pretrain_text_encoders(tmp_path, appearance_targets, t5, clip, minutes=0.03, scenes=50)
    learned = t5.shared.weight.clone()
    assert not torch.equal(before, learned)

    fresh = T5Encoder(SKETCH.t5)
    pretrain_text_encoders(tmp_path, appearance_targets, fresh, CLIPTextEncoder(SKETCH.clip), minutes=0.03, scenes=50)
    assert torch.equal(fresh.shared.weight, learned)
    assert "accuracy" in capsys.readouterr().out
