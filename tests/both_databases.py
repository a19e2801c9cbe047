"""Fixtures of tests that run on both databases. A `conftest.py` that imports them makes its folder's tests do so."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import BACKENDS, POSTGRESQL, SQLITE, releasing

__all__ = ["backend", "on_postgresql_alone", "on_sqlite_alone", "tmp_path"]

#: Marks a test of what only SQLite does.
on_sqlite_alone = pytest.mark.parametrize("backend", [SQLITE], indirect=True)
#: Marks a test of what only PostgreSQL does, or of a bucket alone, which takes long.
on_postgresql_alone = pytest.mark.parametrize("backend", [POSTGRESQL], indirect=True)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of the database."""
    return str(request.param)


@pytest.fixture
def tmp_path(tmp_path: Path, backend: str) -> Iterator[Path]:
    """A folder for the files and the database of a service."""
    folder = tmp_path / backend
    folder.mkdir()
    with releasing(folder):
        yield folder
