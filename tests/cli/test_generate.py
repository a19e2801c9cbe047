"""`allaprima generate`: files of the asked size, format and number, and refusals that name every option at fault."""

from pathlib import Path

import pytest
from PIL import Image

from allaprima.weights.paths import sketch_folder
from cli.conftest import Run

SMALL = ("--size", "256x256", "--steps", "1", "--seed", "7")


def test_a_picture_is_written_and_its_path_alone_is_printed_on_stdout(run: Run) -> None:
    result = run("generate", "a red apple", "-o", "apple.png", *SMALL)

    assert result.exit_code == 0
    assert result.stdout == "apple.png\n"
    assert "painted by allaprima/sketch in" in result.stderr
    assert "seed 7" in result.stderr
    with Image.open("apple.png") as picture:
        picture.load()
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (256, 256))


@pytest.mark.parametrize(
    ("name", "image_format"), [("a.jpg", "JPEG"), ("a.jpeg", "JPEG"), ("a.webp", "WEBP"), ("A.PNG", "PNG")]
)
def test_the_suffix_decides_the_format(run: Run, name: str, image_format: str) -> None:
    assert run("generate", "a red apple", "-o", name, *SMALL).exit_code == 0

    with Image.open(name) as picture:
        assert (picture.format, picture.size) == (image_format, (256, 256))


def test_the_size_may_be_wide(run: Run) -> None:
    assert run("generate", "a red apple", "--size", "1440X512", "--steps", 1).exit_code == 0

    with Image.open("image.png") as picture:
        assert picture.size == (1440, 512)


def test_several_pictures_go_into_numbered_files(run: Run) -> None:
    result = run("generate", "a red apple", "-o", "apple.png", "--count", 2, *SMALL)

    assert result.exit_code == 0
    assert result.stdout == "apple-0.png\napple-1.png\n"
    assert "seed 7, 8" in result.stderr
    assert Path("apple-0.png").read_bytes() != Path("apple-1.png").read_bytes()
    assert not Path("apple.png").exists()


def test_equal_seeds_give_equal_files_and_picture_i_has_seed_plus_i(run: Run) -> None:
    run("generate", "a red apple", "-o", "first.png", *SMALL)
    run("generate", "a red apple", "-o", "again.png", *SMALL)
    run("generate", "a red apple", "-o", "two.png", "--count", 2, "--size", "256x256", "--steps", 1, "--seed", 6)

    assert Path("first.png").read_bytes() == Path("again.png").read_bytes() == Path("two-1.png").read_bytes()


def test_without_a_seed_two_pictures_differ(run: Run) -> None:
    for name in ("one.png", "other.png"):
        assert run("generate", "a red apple", "-o", name, "--size", "64x64", "--steps", 1).exit_code == 0

    assert Path("one.png").read_bytes() != Path("other.png").read_bytes()


def test_the_model_may_be_a_folder(run: Run) -> None:
    run("generate", "a red apple", "-o", "name.png", *SMALL, "--model", "SKETCH")
    run("generate", "a red apple", "-o", "folder.png", *SMALL, "--model", sketch_folder())

    assert Path("name.png").read_bytes() == Path("folder.png").read_bytes()


def test_words_that_the_model_does_not_know_are_told(run: Run) -> None:
    result = run("generate", "a red qwertzuiop [bold]apple[/bold]", "-o", "apple.png", *SMALL)

    assert result.exit_code == 0
    assert "note: the model does not know these words: qwertzuiop, bold" in result.stderr


def test_every_option_at_fault_is_named_and_nothing_is_written(run: Run, tmp_path: Path) -> None:
    result = run("generate", " ", "-o", "out.bmp", "--size", "100x9000", "--steps", 13, "--count", 5, "--seed=-1")

    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    assert sorted(line.split()[1] for line in lines) == [
        "--output:", "count:", "height:", "prompt:", "seed:", "steps:", "width:",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "size", ["big", "256", "256x", "x256", "256x256x256", "-64x64", "64.0x64", "", "²x64", "9" * 5000 + "x64"]
)
def test_a_size_that_is_none_is_refused_by_name(run: Run, size: str) -> None:
    result = run("generate", "a red apple", f"--size={size}")

    assert result.exit_code == 2
    assert "--size" in result.stderr or "width" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("option", ["--steps=four", "--seed=1.5", "--count=", "--unheard=1"])
def test_an_option_that_can_not_be_read_is_refused_by_name(run: Run, option: str) -> None:
    result = run("generate", "a red apple", option)

    assert result.exit_code == 2
    assert option.partition("=")[0] in result.stderr


def test_an_output_that_can_not_be_written_is_refused_by_name(run: Run) -> None:
    result = run("generate", "a red apple", "-o", "no/such/folder/apple.png", *SMALL)

    assert result.exit_code == 2
    assert "--output" in result.stderr
    assert "apple.png" in result.stderr
    assert "No such file or directory" in result.stderr


@pytest.mark.parametrize("model", ["nowhere", "flux/schnell"])
def test_a_model_that_is_not_here_is_refused_by_name(run: Run, model: str) -> None:
    result = run("generate", "a red apple", "--model", model)

    assert result.exit_code == 2
    assert model in result.stderr
    assert not Path("image.png").exists()


def test_a_model_folder_with_garbage_is_refused_by_file(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes(b"garbage")

    result = run("generate", "a red apple", "--model", folder)

    assert result.exit_code == 2
    assert str(folder / "model.safetensors") in result.stderr
