"""What is shipped."""

from importlib.resources import files
from pathlib import Path

LIMIT_BYTES = 60_000_000


def test_all_files_of_the_package_are_under_60_mb() -> None:
    sizes = [path.stat().st_size for path in Path(str(files("allaprima"))).rglob("*") if path.is_file()]
    assert 10_000_000 < sum(sizes) < LIMIT_BYTES
