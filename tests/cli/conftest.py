"""The command line in this process, in an empty folder, without colours."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from allaprima.cli.main import app

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `allaprima` with arguments. An unexpected exception fails the test."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: object, stdin: str | None = None) -> Result:
        runner = CliRunner(env={"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"})
        result = runner.invoke(app, [*map(str, arguments)], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke
