"""The evaluator: labels, loss, fit, and accuracy of the fitted weights."""

import numpy as np
import pytest
import torch

from training.data.art import COLOUR_VARIANTS
from training.data.backgrounds import BACKGROUNDS, OPEN
from training.data.objects import OBJECTS
from training.data.scenes import compose, place_objects
from training.evaluate.evaluator import INPUT_PX, Evaluator, load_evaluator, weights_file
from training.evaluate.score import evaluator_errors
from training.fit.evaluator import degrade, evaluator_loss, fit_evaluator, labelled_scenes


def test_labels_match_objects_of_scenes(art):
    scenes = [compose(seed, INPUT_PX, INPUT_PX, allow_held_out=True) for seed in range(20)]

    labelled = labelled_scenes(range(20), art)

    assert labelled.pixels.dtype == torch.uint8
    assert labelled.pixels.shape == (20, 3, INPUT_PX, INPUT_PX)
    assert [(*BACKGROUNDS, OPEN)[background] for background in labelled.backgrounds] == [
        scene.background for scene in scenes
    ]
    labels = [
        (scene, OBJECTS[obj].icon, (None, *COLOUR_VARIANTS)[variant], row, column)
        for scene, obj, variant, row, column in labelled.centres.tolist()
    ]
    # The maps have as many rows and columns as a square canvas has cells per side.
    assert labels == [
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


def test_degraded_images_stay_close_to_originals(art):
    torch.manual_seed(0)
    pixels = labelled_scenes(range(8), art).pixels.float() / 127.5 - 1
    degraded = degrade(pixels)
    assert degraded.shape == pixels.shape
    assert 0 < float((degraded - pixels).abs().mean()) < 0.4


def test_loss_is_lower_for_right_labels(art):
    torch.manual_seed(0)
    labelled = labelled_scenes(range(12), art)
    pixels = labelled.pixels.float() / 127.5 - 1
    evaluator = Evaluator()
    optimizer = torch.optim.AdamW(evaluator.parameters(), lr=2e-3)
    for _ in range(12):
        optimizer.zero_grad()
        loss = evaluator_loss(evaluator, pixels, labelled.centres, labelled.backgrounds)
        loss.backward()
        optimizer.step()
    wrong = labelled.centres.clone()
    wrong[:, 1] = (wrong[:, 1] + 7) % len(OBJECTS)
    with torch.no_grad():
        right_loss = evaluator_loss(evaluator, pixels, labelled.centres, labelled.backgrounds)
        wrong_loss = evaluator_loss(evaluator, pixels, wrong, (labelled.backgrounds + 1) % 5)
    assert float(right_loss) < float(wrong_loss)


def test_evaluator_fit_ends_after_its_minutes_and_resumes(art, tmp_path, minutes_of):
    first = fit_evaluator(tmp_path, art, minutes=minutes_of(2), scenes=10).state_dict()
    again = fit_evaluator(tmp_path, art, minutes=minutes_of(2), scenes=10).state_dict()
    assert first.keys() == Evaluator().state_dict().keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_fitted_evaluator_has_at_most_3_percent_errors(art):
    refused, passed = evaluator_errors(load_evaluator().detect, art, 200)
    assert refused <= 0.03
    assert passed <= 0.03


def test_evaluator_weights_are_small():
    assert weights_file().stat().st_size < 6_000_000


@pytest.mark.parametrize("size", [64, 192, 512, 700])
def test_evaluator_accepts_any_image_size(size):
    detections = load_evaluator().detect(np.full((size, size, 3), 150, np.uint8))
    assert detections.objects == ()
