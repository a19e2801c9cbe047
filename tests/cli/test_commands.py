"""The small commands: what they print, where, and with which exit status."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from allaprima import __version__
from allaprima.cli.diagnosis import precision_rows, run_checks
from allaprima.domain.models import Precision
from cli.conftest import Run


def plain(text: str) -> str:
    """Return a help page without frames and line breaks."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text).split())


def test_version_prints_the_version_alone(run: Run) -> None:
    result = run("--version")

    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{__version__}\n", "")


def test_help_names_every_command(run: Run) -> None:
    result = run("--help")

    assert result.exit_code == 0
    for command in ("generate", "serve", "keys", "accounts", "pull", "models", "doctor"):
        assert command in plain(result.stdout)


@pytest.mark.parametrize(
    ("command", "example"),
    [
        ("generate", 'allaprima generate "a t-rex on a beach" -o trex.png'),
        ("pull", "allaprima pull flux/schnell --layout bf16"),
        ("serve", "allaprima serve --host 0.0.0.0 --port 80 --public-url https://images.example.org"),
    ],
)
def test_help_shows_examples(run: Run, command: str, example: str) -> None:
    result = run(command, "--help")

    assert result.exit_code == 0
    assert "Examples:" in plain(result.stdout)
    assert example in plain(result.stdout)


@pytest.mark.parametrize("arguments", [(), ("keys",)], ids=str)
def test_no_command_shows_the_help(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert "Usage:" in plain(result.stdout + result.stderr)


def test_an_unknown_command_is_refused(run: Run) -> None:
    result = run("generat")

    assert result.exit_code == 2
    assert "generat" in result.stderr


def test_models_says_where_the_weights_of_each_model_are(run: Run) -> None:
    result = run("models")

    assert result.exit_code == 0
    for words in ("allaprima/sketch", "flux/schnell", "in the package", "missing; sketch is the fallback"):
        assert words in plain(result.stdout)


def test_doctor_passes_all_required_checks_and_reports_optional_ones_as_missing(run: Run) -> None:
    result = run("doctor")

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    for name in ("processor", "memory", "disk", "torch", "GPU", "allaprima/sketch", "safety checker", "flux/schnell"):
        assert sum(f" {name}: " in line for line in lines) == 1
    table = next(place for place, line in enumerate(lines) if "flux/schnell on cpu" in line)
    assert all(re.match(r"(ok|missing) +\S", line) for line in lines[:table])
    assert "missing flux/schnell" in result.stdout
    assert all(finding.is_ok for finding in run_checks(Path("nowhere")) if finding.is_required)


def test_doctor_shows_the_memory_of_each_precision_and_whether_it_fits(run: Run) -> None:
    rows = {row.precision: row for row in precision_rows("cpu")}

    shown = run("doctor").stdout

    assert list(rows) == list(Precision)
    for row in rows.values():
        assert re.search(rf"{row.precision} .* {row.weights / 2**30:.1f} .* {row.memory / 2**30:.1f} ", shown)
    assert rows[Precision.INT8].weights < rows[Precision.BF16].weights < rows[Precision.FP32].weights
    assert rows[Precision.INT4WO].memory < rows[Precision.INT8].memory < 12 * 2**30
    assert not rows[Precision.FP8].fits
    assert all(row.fits == (row.message == "fits") for row in rows.values())


def test_doctor_finds_pulled_models(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAPRIMA_ENGINE__WEIGHTS_DIR", str(tmp_path))
    folder = tmp_path / "models" / "flux-schnell" / "fp8"
    folder.mkdir(parents=True)
    assert "missing flux/schnell" in run("doctor").stdout
    (folder / "pulled.json").touch()
    assert f"flux/schnell: downloaded to {folder}" in run("doctor").stdout.replace("\n", "")


def test_an_unknown_setting_is_refused_by_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAPRIMA_SERVER__PROT", "80")

    result = run("serve", "--port", 0)

    assert result.exit_code == 2
    assert "ALLAPRIMA_SERVER__PROT" in result.stderr


def test_an_invalid_value_of_a_setting_is_refused_with_the_setting(run: Run) -> None:
    result = run("serve", "--port", 70000, "--public-url", "images.example.org")

    assert result.exit_code == 2
    assert "server.port = 70000" in result.stderr
    assert "server.public_url = 'images.example.org'" in result.stderr


@pytest.mark.parametrize("command", [("serve", "--port", 0), ("keys", "create"), ("keys", "list")])
def test_a_file_as_data_folder_is_refused_by_name(run: Run, tmp_path: Path, command: tuple[object, ...]) -> None:
    (tmp_path / "file").write_text("not a folder")

    result = run(*command, "--data-dir", tmp_path / "file")

    assert result.exit_code == 2
    assert f"error: the data folder {tmp_path / 'file'} can't be used" in plain(result.stderr)


def test_a_file_that_is_no_database_is_refused_by_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "allaprima.db").write_bytes(b"not a database, " * 100)

    result = run("keys", "list", "--data-dir", tmp_path / "data")

    assert result.exit_code == 2
    assert f"error: {tmp_path / 'data' / 'allaprima.db'} is not a database" in plain(result.stderr)


@pytest.mark.parametrize("command", [("keys", "list"), ("accounts", "list"), ("models",), ("--version",)])
def test_commands_that_generate_nothing_import_no_heavy_library(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    # The schema of a new data folder takes Alembic to create.
    run("keys", "create")
    program = (
        "import sys\n"
        "from allaprima.cli.main import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print(sorted({'torch', 'fastapi', 'uvicorn', 'alembic'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, *command], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == "[]"
