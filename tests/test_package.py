"""The contents of the installed package."""

from importlib.resources import files
from pathlib import Path

LIMIT_BYTES = 60_000_000


def test_all_files_of_package_are_under_60_mb() -> None:
    sizes = [path.stat().st_size for path in Path(str(files("allaprima"))).rglob("*") if path.is_file()]
    assert 10_000_000 < sum(sizes) < LIMIT_BYTES


def test_package_contains_no_trainer_files() -> None:
    package = Path(str(files("allaprima")))
    names = {part for path in package.rglob("*") for part in path.relative_to(package).parts}
    assert not names & {"train", "training", "detector.safetensors", "prompts.txt"}
