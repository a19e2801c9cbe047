"""How the judge's own error is measured, and how scores are told."""

from allaprima.flux import SKETCH, Autoencoder
from training.data.scenes import EVALUATOR_TEST_FROM, cell_grid, compose, draw_pixels, place_objects
from training.evaluate.benchmark import CATEGORIES, HELD_OUT, SEEN, is_right
from training.evaluate.evaluator import DetectedObject, Detections
from training.evaluate.score import IMAGE_PX, altered, autoencoder_psnr, evaluator_errors, print_table, prompt_for

COUNT = 60


def true_detections(scene):
    """What a judge without fault says of a scene."""
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


def test_a_judge_without_fault_refuses_no_true_scene_and_passes_no_other(art):
    scenes = [
        compose(number, IMAGE_PX, IMAGE_PX, allow_held_out=True)
        for number in range(EVALUATOR_TEST_FROM, EVALUATOR_TEST_FROM + COUNT)
    ]
    known = {draw_pixels(scene, art).tobytes(): true_detections(scene) for scene in scenes}

    assert evaluator_errors(lambda image: known[image.tobytes()], art, COUNT) == (0, 0)


def test_what_is_asked_of_another_scene_is_not_what_a_scene_shows():
    for number in range(EVALUATOR_TEST_FROM, EVALUATOR_TEST_FROM + 1000):
        scene = compose(number, IMAGE_PX, IMAGE_PX, allow_held_out=True)
        assert is_right(prompt_for(scene), true_detections(scene))
        assert not is_right(prompt_for(altered(scene, number)), true_detections(scene))


def test_a_judge_who_sees_nothing_refuses_all(art):
    assert evaluator_errors(lambda _: Detections("nowhere", ()), art, 10) == (1, 0)


class Dimmed(Autoencoder):
    """Gives back what it is given, a tenth of the range darker."""

    def __init__(self):
        super().__init__(SKETCH.autoencoder)

    def encode(self, image):
        return image

    def decode(self, z, _check=None):
        return z - 0.2


def test_the_autoencoder_is_measured_by_what_it_gives_back_of_whole_scenes(art):
    # A tenth of the range is 20 dB, and a little more where what is black already can't get darker.
    assert 20 <= autoencoder_psnr(Dimmed(), art, 3) < 22


def test_the_table_tells_every_category_beside_its_target_and_what_they_come_to(capsys):
    shares = dict.fromkeys(CATEGORIES, 0.5) | {HELD_OUT: 0.25, SEEN: 0.75}

    print_table(shares, dict.fromkeys(shares, 408))

    table = {line[:24].strip(): line[24:].split() for line in capsys.readouterr().out.splitlines()}
    assert table["counting"] == ["408", "50.0%", "70.0%"]
    assert table["overall"] == ["50.0%", "85.0%"]
    assert table["held out below seen by"] == ["50.0%", "5.0%"]
