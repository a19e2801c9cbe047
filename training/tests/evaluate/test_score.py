"""Scores: the evaluator's errors, the autoencoder's PSNR, and the printed table."""

from allaprima.flux import SKETCH, Autoencoder
from training.data.scenes import EVALUATOR_TEST_FROM, cell_grid, compose, draw_pixels, place_objects
from training.evaluate.benchmark import CATEGORIES, HELD_OUT, SEEN, is_right
from training.evaluate.evaluator import DetectedObject, Detections
from training.evaluate.score import IMAGE_PX, altered, autoencoder_psnr, evaluator_errors, print_table, prompt_for

COUNT = 60


def true_detections(scene):
    """Return the detections of a perfect evaluator in a scene."""
    rows, columns = cell_grid(scene)
    objects = [
        DetectedObject(
            one.subject.icon,
            one.subject.variant,
            (one.box.column + one.box.cells / 2) / columns,
            (one.box.row + one.box.cells / 2) / rows,
        )
        for one in place_objects(scene)
    ]
    return Detections(scene.background, tuple(objects))


def test_a_perfect_evaluator_has_no_errors(art):
    scenes = [
        compose(seed, IMAGE_PX, IMAGE_PX, allow_held_out=True)
        for seed in range(EVALUATOR_TEST_FROM, EVALUATOR_TEST_FROM + COUNT)
    ]
    known = {draw_pixels(scene, art).tobytes(): true_detections(scene) for scene in scenes}

    assert evaluator_errors(lambda image: known[image.tobytes()], art, COUNT) == (0, 0)


def test_a_scene_shows_its_own_prompt_and_not_an_altered_one():
    for seed in range(EVALUATOR_TEST_FROM, EVALUATOR_TEST_FROM + 1000):
        scene = compose(seed, IMAGE_PX, IMAGE_PX, allow_held_out=True)
        assert is_right(prompt_for(scene), true_detections(scene))
        assert not is_right(prompt_for(altered(scene, seed)), true_detections(scene))


def test_an_evaluator_that_detects_nothing_has_only_false_negatives(art):
    assert evaluator_errors(lambda _: Detections("nowhere", ()), art, 10) == (1, 0)


class Dimmed(Autoencoder):
    """An autoencoder whose decoded images are darker by a tenth of the range."""

    def __init__(self):
        super().__init__(SKETCH.autoencoder)

    def encode(self, image):
        return image

    def decode(self, z, _check=None):
        return z - 0.2


def test_autoencoder_psnr_compares_decoded_scenes_with_the_originals(art):
    # An error of a tenth of the range is 20 dB. Clamping makes it smaller at black pixels.
    assert 20 <= autoencoder_psnr(Dimmed(), art, 3) < 22


def test_the_table_has_each_category_with_its_target_and_the_overall_score(capsys):
    shares = dict.fromkeys(CATEGORIES, 0.5) | {HELD_OUT: 0.25, SEEN: 0.75}

    print_table(shares, dict.fromkeys(shares, 408))

    table = {line[:24].strip(): line[24:].split() for line in capsys.readouterr().out.splitlines()}
    assert table["counting"] == ["408", "50.0%", "70.0%"]
    assert table["overall"] == ["50.0%", "85.0%"]
    assert table["seen minus held-out"] == ["50.0%", "5.0%"]
