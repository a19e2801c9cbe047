"""The judge: what it has to learn, that it learns it, and what the shipped one can do."""

import numpy as np
import pytest
import torch

from training.data.art import COLOUR_VARIANTS
from training.data.backgrounds import BACKGROUNDS, OPEN
from training.data.objects import OBJECTS
from training.data.scenes import compose, place_objects
from training.evaluate.evaluator import SIDE_PX, Evaluator, load_evaluator, weights_file
from training.evaluate.score import evaluator_errors
from training.fit.evaluator import degrade, evaluator_loss, fit_evaluator, labelled_scenes


def test_true_scenes_say_what_they_show(art):
    scenes = [compose(seed, SIDE_PX, SIDE_PX, allow_held_out=True) for seed in range(20)]

    truth = labelled_scenes(range(20), art)

    assert truth.pixels.dtype == torch.uint8
    assert truth.pixels.shape == (20, 3, SIDE_PX, SIDE_PX)
    assert [(*BACKGROUNDS, OPEN)[ground] for ground in truth.grounds] == [scene.background for scene in scenes]
    told = [
        (scene, OBJECTS[obj].icon, (None, *COLOUR_VARIANTS)[variant], row, column)
        for scene, obj, variant, row, column in truth.centres.tolist()
    ]
    # The maps have a row and a column for every cell of a square canvas.
    assert told == [
        (
            number,
            one.subject.icon,
            one.subject.variant,
            one.box.row + one.box.cells // 2,
            one.box.column + one.box.cells // 2,
        )
        for number, scene in enumerate(scenes)
        for one in place_objects(scene)
    ]


def test_softened_pictures_are_still_those_pictures(art):
    torch.manual_seed(0)
    pixels = labelled_scenes(range(8), art).pixels.float() / 127.5 - 1
    soft = degrade(pixels)
    assert soft.shape == pixels.shape
    assert 0 < float((soft - pixels).abs().mean()) < 0.4


def test_the_loss_is_less_for_what_is_true_than_for_what_is_not(art):
    torch.manual_seed(0)
    truth = labelled_scenes(range(12), art)
    pixels = truth.pixels.float() / 127.5 - 1
    evaluator = Evaluator()
    optimizer = torch.optim.AdamW(evaluator.parameters(), lr=2e-3)
    for _ in range(12):
        optimizer.zero_grad()
        loss = evaluator_loss(evaluator, pixels, truth.centres, truth.grounds)
        loss.backward()
        optimizer.step()
    wrong = truth.centres.clone()
    wrong[:, 1] = (wrong[:, 1] + 7) % len(OBJECTS)
    with torch.no_grad():
        right_loss = evaluator_loss(evaluator, pixels, truth.centres, truth.grounds)
        wrong_loss = evaluator_loss(evaluator, pixels, wrong, (truth.grounds + 1) % 5)
    assert float(right_loss) < float(wrong_loss)


def test_a_fit_goes_on_where_it_stopped_and_ends_when_its_minutes_are_used(art, tmp_path):
    first = fit_evaluator(tmp_path, art, minutes=0.02, scenes=40).state_dict()
    again = fit_evaluator(tmp_path, art, minutes=0.02, scenes=40).state_dict()
    assert first.keys() == Evaluator().state_dict().keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_shipped_detector_is_wrong_on_at_most_three_true_scenes_in_a_hundred(art):
    refused, passed = evaluator_errors(load_evaluator().detect, art, 200)
    assert refused <= 0.03
    assert passed <= 0.03


def test_the_shipped_detector_is_small():
    assert weights_file().stat().st_size < 6_000_000


@pytest.mark.parametrize("size", [64, 192, 512, 700])
def test_pictures_of_any_size_are_read(size):
    detections = load_evaluator().detect(np.full((size, size, 3), 150, np.uint8))
    assert detections.objects == ()
