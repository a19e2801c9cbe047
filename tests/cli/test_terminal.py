"""An image in the terminal: two pixels per character with true colour, nothing without."""

import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from allaprima.cli.terminal import MAX_COLUMNS, UPPER_HALF, draw


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    image = Image.new("RGB", (64, 64), (255, 0, 0))
    image.paste((0, 0, 255), (0, 32, 64, 64))
    image.save(path)
    return path


def drawn(path: Path, columns: int, color_system: str | None) -> str:
    file = io.StringIO()
    draw(path, Console(file=file, force_terminal=True, width=columns, color_system=color_system))
    return file.getvalue()


def test_square_image_has_half_as_many_lines_as_columns(image_file: Path) -> None:
    lines = drawn(image_file, 20, "truecolor").splitlines()

    assert [line.count(UPPER_HALF) for line in lines] == [20] * 10


def test_upper_half_of_image_is_drawn_above_lower(image_file: Path) -> None:
    lines = drawn(image_file, 20, "truecolor").splitlines()

    assert "38;2;255;0;0;48;2;255;0;0" in lines[0]
    assert "38;2;0;0;255;48;2;0;0;255" in lines[-1]


def test_image_width_is_bounded_in_wide_terminal(image_file: Path) -> None:
    lines = drawn(image_file, 300, "truecolor").splitlines()

    assert lines[0].count(UPPER_HALF) == MAX_COLUMNS


def test_image_is_not_drawn_without_colours(image_file: Path) -> None:
    assert drawn(image_file, 20, None) == ""
    assert drawn(image_file, 20, "standard") == ""
