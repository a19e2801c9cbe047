"""The command line in terminals of narrow encodings."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.processes import environment


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
@pytest.mark.parametrize(
    "arguments", [["--help"], ["serve", "--help"], ["keys", "create", "--data-dir", "d"], ["models"]]
)
def test_terminal_without_character_shows_escape(tmp_path: Path, encoding: str, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "allaprima", *arguments],
        cwd=tmp_path,
        env=environment(PYTHONIOENCODING=encoding, ALLAPRIMA_STORE__DATA_DIR=str(tmp_path / "\u6a21\u578b")),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(encoding)
    assert b"Traceback" not in done.stderr
    assert done.stdout.decode(encoding).strip()
