"""The unit and its settings are valid, and stop the server no earlier than it is done."""

import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import typer.main

from allaprima.cli.http_server import SHUTDOWN_TIMEOUT_S
from allaprima.cli.main import app
from allaprima.settings import load_settings
from tests.deploy import DEPLOY
from tests.programs import need

SYSTEMD = DEPLOY / "systemd"
UNIT = SYSTEMD / "allaprima.service"
#: Highest exposure that `systemd-analyze security` may find, from 0 to 10.
MAX_EXPOSURE = 2.0


def values(option: str) -> list[str]:
    """Return the values of an option of the unit, in order."""
    lines = UNIT.read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{option}=")]


def analyze(*arguments: object) -> str:
    program = need("systemd-analyze", "checks units")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with the path of a program that exists on this machine."""
    [command] = values("ExecStart")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(command.split()[0], sys.executable))
    return copy


@pytest.mark.parametrize("has_gpu", [False, True])
def test_systemd_finds_no_fault_in_the_unit(unit: Path, has_gpu: bool) -> None:
    if has_gpu:
        folder = unit.with_name(f"{unit.name}.d")
        folder.mkdir()
        shutil.copy(SYSTEMD / "cuda.conf", folder)
    assert analyze("verify", unit) == ""


def test_unit_is_hardened(unit: Path) -> None:
    analyze("security", "--no-pager", "--offline=true", f"--threshold={MAX_EXPOSURE * 10:.0f}", unit)


def test_unit_starts_the_server_and_lets_it_stop() -> None:
    [command] = values("ExecStart")
    program, subcommand = command.split()
    assert Path(program).name == "allaprima"
    assert subcommand in typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert values("KillSignal") == ["SIGTERM"]
    [limit] = values("TimeoutStopSec")
    assert int(limit) > SHUTDOWN_TIMEOUT_S


def test_unit_keeps_data_and_weights_in_the_folders_that_systemd_creates() -> None:
    [state], [cache] = values("StateDirectory"), values("CacheDirectory")
    settings = dict(value.split("=", 1) for value in values("Environment"))
    assert settings["ALLAPRIMA_STORE__DATA_DIR"] == f"/var/lib/{state}"
    assert settings["ALLAPRIMA_ENGINE__WEIGHTS_DIR"] == f"/var/cache/{cache}"


def test_settings_of_unit_and_environment_file_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    drop_in = ConfigParser()
    drop_in.read(SYSTEMD / "cuda.conf")
    lines = (SYSTEMD / "allaprima.env").read_text().splitlines()
    # Quotes are those of a shell; systemd removes them.
    written = [word for line in lines for word in shlex.split(line, comments=True)]
    for assignment in [*values("Environment"), *written, drop_in["Service"]["Environment"]]:
        name, _, value = assignment.partition("=")
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.server.trusted_proxies == ("127.0.0.1", "::1")
    assert settings.engine.device == "cuda"
