"""The files of `deploy/docker` are valid, and name paths, ports, routes and commands that exist."""

import re
import subprocess
import sys
from typing import Any

import dockerfile
import httpx2
import pytest
import typer.main
import yaml

from allaprima.cli.http_server import SHUTDOWN_TIMEOUT_S
from allaprima.cli.main import app
from tests.deploy import DEPLOY, ROOT

DOCKER = DEPLOY / "docker"
DOCKERFILES = ("Dockerfile", "Dockerfile.cuda")


def instructions(name: str) -> list[dockerfile.Command]:
    return list(dockerfile.parse_file(str(DOCKER / name)))


def last(name: str, instruction: str) -> tuple[str, ...]:
    """Return the arguments of the last instruction of a kind."""
    return [one.value for one in instructions(name) if one.cmd.upper() == instruction][-1]


def variables(name: str) -> dict[str, str]:
    words = last(name, "ENV")
    return dict(zip(words[::2], words[1::2], strict=True))


def compose(name: str) -> Any:
    return yaml.safe_load((DOCKER / name).read_text())


@pytest.mark.parametrize("name", DOCKERFILES)
def test_image_keeps_its_data_in_its_volumes_and_serves_its_port(name: str) -> None:
    assert set(last(name, "VOLUME")) == {
        variables(name)["ALLAPRIMA_STORE__DATA_DIR"],
        variables(name)["ALLAPRIMA_ENGINE__WEIGHTS_DIR"],
    }
    assert last(name, "EXPOSE") == (variables(name)["ALLAPRIMA_SERVER__PORT"],)
    assert variables(name)["ALLAPRIMA_SERVER__HOST"] == "0.0.0.0"  # noqa: S104 - only compared


@pytest.mark.parametrize("name", DOCKERFILES)
def test_image_runs_as_a_user_that_it_creates(name: str) -> None:
    [user] = last(name, "USER")
    number = user.partition(":")[0]
    assert int(number) > 0
    created = " ".join(one.original for one in instructions(name) if "useradd" in one.original)
    assert f"--uid {number} " in created


@pytest.mark.parametrize("name", DOCKERFILES)
async def test_health_check_asks_the_server_whether_it_is_ready(name: str, anonymous: httpx2.AsyncClient) -> None:
    check = " ".join(last(name, "HEALTHCHECK"))
    [(port, path)] = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", check)
    assert port == variables(name)["ALLAPRIMA_SERVER__PORT"]
    assert (await anonymous.get(path)).status_code == 200
    assert path == "/ready"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_image_starts_the_server(name: str) -> None:
    assert last(name, "ENTRYPOINT") == ("allaprima",)
    [command] = last(name, "CMD")
    assert command == "serve"
    assert command in typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert last(name, "STOPSIGNAL") == ("SIGTERM",)


def test_images_for_cpu_and_gpu_are_built_alike() -> None:
    cpu, gpu = ([one for one in instructions(name) if one.cmd.upper() != "ENV"] for name in DOCKERFILES)
    assert [one.original for one in cpu] == [one.original for one in gpu]
    added = variables("Dockerfile.cuda").items() - variables("Dockerfile").items()
    assert dict(added) == {
        "ALLAPRIMA_ENGINE__DEVICE": "cuda",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    }


def test_build_context_has_what_the_package_is_built_from() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert kept == {"pyproject.toml", "README.md", "LICENSE", "NOTICE", "src"}
    assert all((ROOT / name).exists() for name in kept)


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cuda.yaml"])
def test_compose_file_follows_the_specification(name: str) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, DOCKER / name], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_compose_service_mounts_the_volumes_and_publishes_the_port_of_the_image() -> None:
    service = compose("compose.yaml")["services"]["allaprima"]
    mounted = dict(volume.split(":") for volume in service["volumes"])
    assert set(mounted.values()) == set(last("Dockerfile", "VOLUME"))
    assert set(mounted) == set(compose("compose.yaml")["volumes"])
    [port] = service["ports"]
    address, _, inside = port.split(":")
    assert (address, inside) == ("127.0.0.1", variables("Dockerfile")["ALLAPRIMA_SERVER__PORT"])


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cuda.yaml"])
def test_compose_builds_from_a_file_that_exists(name: str) -> None:
    build = compose(name)["services"]["allaprima"]["build"]
    assert (ROOT / build["dockerfile"]).is_file()
    assert (DOCKER / build.get("context", "../..")).resolve() == ROOT


def test_compose_waits_longer_than_the_server_takes_to_stop() -> None:
    grace = compose("compose.yaml")["services"]["allaprima"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > SHUTDOWN_TIMEOUT_S
