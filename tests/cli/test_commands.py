"""The commands other than `generate`, `serve` and `keys`: output and exit status."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from allaprima import __version__
from allaprima.cli.diagnosis import precision_rows, run_checks
from allaprima.domain.models import Precision
from allaprima.flux import SCHNELL
from allaprima.settings import EngineSettings
from tests.cli.conftest import Run


def plain(text: str) -> str:
    """Return a help page without frames and line breaks."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text).split())


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version_command_prints_only_version(run: Run, option: str) -> None:
    result = run(option)

    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_command(run: Run, option: str) -> None:
    result = run(option)

    assert result.exit_code == 0
    for command in ("generate", "serve", "keys", "accounts", "pull", "models", "show", "rm", "ps", "doctor"):
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
def test_missing_command_shows_help(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert "Usage:" in plain(result.stdout + result.stderr)


def test_unknown_command_is_refused(run: Run) -> None:
    result = run("generat")

    assert result.exit_code == 2
    assert "generat" in result.stderr


def test_models_shows_where_weights_are(run: Run) -> None:
    result = run("models")

    assert result.exit_code == 0
    for words in ("allaprima/sketch", "flux/schnell", "in the package", "missing; sketch is the fallback"):
        assert words in plain(result.stdout)


def test_named_models_of_the_settings_are_listed_and_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAPRIMA_ENGINE__MODELS", '["mine/own=sketch"]')

    assert "mine/own" in plain(run("models").stdout)
    listed = json.loads(run("models", "--json").stdout)
    assert [one["id"] for one in listed] == ["flux/schnell", "allaprima/sketch", "mine/own"]
    assert listed[2] == json.loads(run("show", "mine/own", "--json").stdout)
    assert (listed[2]["name"], listed[2]["description"]) == ("mine/own", "sketch from sketch")
    assert listed[2]["weights"] == "on this machine"
    assert run("show", "mine/other").exit_code == 2


def test_doctor_names_the_named_models(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAPRIMA_ENGINE__MODELS", '["mine/own=sketch"]')

    assert "allaprima/sketch, mine/own on the CPU" in plain(run("doctor").stdout)


def test_doctor_passes_with_missing_optional_items(run: Run) -> None:
    result = run("doctor")

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    for name in ("processor", "memory", "disk", "torch", "GPU", "allaprima/sketch", "safety checker", "flux/schnell"):
        assert sum(f" {name}: " in line for line in lines) == 1
    table = next(place for place, line in enumerate(lines) if "flux/schnell on cpu" in line)
    assert all(re.match(r"(ok|missing) +\S", line) for line in lines[:table])
    assert sum(re.match(r"ok +images: 0\.00 GiB in .*, without a limit", line) is not None for line in lines) == 1
    assert "missing flux/schnell" in result.stdout
    assert all(finding.is_ok for finding in run_checks(EngineSettings(), Path("nowhere")) if finding.is_required)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DEVICE", "cuda", "engine.device = 'cuda': this machine has no such device; use cpu"),
        ("MODELS", '["flux/schnell"]', "flux/schnell has no weights on this machine"),
        ("PRECISION", "fp8", "engine.precision = 'fp8' needs a GPU"),
    ],
)
def test_doctor_fails_when_what_is_configured_cannot_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"ALLAPRIMA_ENGINE__{name}", value)
    result = run("doctor")

    assert result.exit_code == 1
    assert f"missing settings: {message}" in result.stdout


def test_doctor_warns_when_images_fill_their_space(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"x" * 95)
    monkeypatch.setenv("ALLAPRIMA_STORE__MAX_IMAGE_BYTES", "100")
    result = run("doctor", "--data-dir", str(tmp_path))

    assert result.exit_code == 0
    assert "warning images: the stored images fill 95% of ALLAPRIMA_STORE__MAX_IMAGE_BYTES" in result.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["images"]


def test_doctor_uses_the_bucket_and_names_what_is_wrong_with_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, bucket_url: str
) -> None:
    monkeypatch.setenv("ALLAPRIMA_STORE__BUCKET", bucket_url)
    result = run("doctor")
    assert result.exit_code == 0
    assert re.search(
        r"^ok +images: the bucket takes put, get, range, list and delete; one round trip takes",
        result.stdout,
        re.MULTILINE,
    )
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-and-long")
    wrong = run("doctor")
    monkeypatch.setenv("ALLAPRIMA_STORE__BUCKET", "s3://images?endpoint=http://127.0.0.1:9&region=eu")
    away = run("doctor")
    assert (wrong.exit_code, away.exit_code) == (1, 1)
    assert "the secret key is wrong; see AWS_SECRET_ACCESS_KEY" in plain(wrong.stdout)
    assert "nothing answers at its address" in plain(away.stdout)
    assert "wrong-and-long" not in wrong.output


def test_doctor_prints_json(run: Run) -> None:
    found = json.loads(run("doctor", "--json").stdout)

    assert (found["is_able"], found["device"]) == (True, "cpu")
    assert "settings" in [finding["name"] for finding in found["findings"]]
    assert [row["precision"] for row in found["schnell"]] == list(Precision)


def test_models_are_printed_as_json(run: Run) -> None:
    found = json.loads(run("models", "--json").stdout)

    assert [model["id"] for model in found] == ["flux/schnell", "allaprima/sketch"]
    assert found[1]["weights"] == "in the package"


def test_downloaded_model_is_shown_and_removed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAPRIMA_ENGINE__WEIGHTS_DIR", str(tmp_path))
    folders = [tmp_path / "models" / "flux-schnell" / layout for layout in ("fp8", "bf16")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "pulled.json").write_bytes(b"{}")
        (folder / "weights").write_bytes(bytes(98))

    shown = json.loads(run("show", "flux-schnell", "--json").stdout)
    assert {layout["name"]: layout["bytes"] for layout in shown["layouts"]} == {"fp8": 100, "bf16": 100}
    assert run("rm", "flux/schnell", "--layout", "fp8", stdin="n\n").exit_code == 1
    assert folders[0].exists()
    assert run("rm", "flux/schnell", "--layout", "fp8", "--yes").exit_code == 0
    assert [folder.exists() for folder in folders] == [False, True]
    assert run("rm", "flux/schnell", "--layout", "fp8", "--yes").exit_code == 2


@pytest.mark.parametrize(("model", "message"), [("sketch", "is in the package"), ("other", "it is other")])
def test_model_that_can_not_be_removed_is_refused(run: Run, model: str, message: str) -> None:
    result = run("rm", model, "--yes")

    assert result.exit_code == 2
    assert message in result.stderr


def test_doctor_shows_whether_each_precision_fits_memory(run: Run) -> None:
    rows = {row.precision: row for row in precision_rows(SCHNELL, "cpu")}

    shown = run("doctor").stdout

    assert list(rows) == list(Precision)
    for row in rows.values():
        assert f"{row.precision}\t{row.weights / 2**30:.1f}\t{row.memory / 2**30:.1f}\t" in shown
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


def test_unknown_setting_is_refused_by_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAPRIMA_SERVER__PROT", "80")

    result = run("serve", "--port", 0)

    assert result.exit_code == 2
    assert "ALLAPRIMA_SERVER__PROT" in result.stderr


def test_invalid_setting_value_is_refused_by_name(run: Run) -> None:
    result = run("serve", "--port", 70000, "--public-url", "images.example.org")

    assert result.exit_code == 2
    assert "--port = 70000: must be less than or equal to 65535" in result.stderr
    assert "--public-url = 'images.example.org': must start with http" in result.stderr


def test_invalid_value_of_variable_is_refused_by_the_name_of_the_setting(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLAPRIMA_SERVER__PORT", "x")

    result = run("serve", "--public-url", "images.example.org")

    assert "server.port = 'x': must be a valid integer" in result.stderr
    assert "--public-url = 'images.example.org'" in result.stderr


def test_prompt_without_quotes_is_refused_with_advice(run: Run) -> None:
    result = run("generate", "a", "red", "apple")

    assert result.exit_code == 2
    assert "put an argument of several words in quotes" in result.stderr


@pytest.mark.parametrize("command", [("serve", "--port", 0), ("keys", "create"), ("keys", "list")])
def test_file_as_data_folder_is_refused_by_name(run: Run, tmp_path: Path, command: tuple[object, ...]) -> None:
    (tmp_path / "file").write_text("not a folder")

    result = run(*command, "--data-dir", tmp_path / "file")

    assert result.exit_code == 2
    assert f"error: the data folder {tmp_path / 'file'} can't be used" in plain(result.stderr)


def test_invalid_database_file_is_refused_by_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "allaprima.db").write_bytes(b"not a database, " * 100)

    result = run("keys", "list", "--data-dir", tmp_path / "data")

    assert result.exit_code == 2
    assert f"error: {tmp_path / 'data' / 'allaprima.db'} is not a database" in plain(result.stderr)


@pytest.mark.parametrize("command", [("keys", "list"), ("accounts", "list"), ("models",), ("open",), ("--version",)])
def test_commands_without_generation_import_no_heavy_library(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    # Creating the schema of a new data folder needs Alembic.
    run("keys", "create", "--data-dir", "data")
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


@pytest.mark.parametrize(
    ("command", "line"),
    [(("generate", "a red apple"), "loading sketch"), (("serve", "--port", "0"), "allaprima starts")],
)
def test_slow_command_prints_a_line_before_it_imports_torch(
    tmp_path: Path, command: tuple[str, ...], line: str
) -> None:
    program = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch':\n"
        "            raise SystemExit(7)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from allaprima.cli.main import app\n"
        "app(sys.argv[1:], standalone_mode=False)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 7
    assert done.stderr.splitlines() == [line]
