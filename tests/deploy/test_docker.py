"""The files of `deploy/docker` are valid, and name paths, ports, routes and commands that exist."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dockerfile
import httpx2
import pytest
import typer.main
import yaml
from obstore.exceptions import BaseError
from obstore.store import S3Store

from allaprima.cli.http_server import SHUTDOWN_TIMEOUT_S
from allaprima.cli.main import app
from allaprima.domain.bucket import parse_bucket
from allaprima.settings import load_settings
from tests.deploy import DEPLOY, ROOT
from tests.seaweed import free_ports, weed
from tests.waiting import until

DOCKER = DEPLOY / "docker"
DOCKERFILES = ("Dockerfile", "Dockerfile.cuda")
SHARED = "compose.postgresql.yaml"
COMPOSE_FILES = ("compose.yaml", "compose.cuda.yaml", SHARED)
#: Values of the variables that the operator sets.
SECRETS = {"PGPASSWORD": "one", "AWS_ACCESS_KEY_ID": "two", "AWS_SECRET_ACCESS_KEY": "three"}


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


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_file_follows_the_specification(name: str) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, DOCKER / name], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["compose.yaml", SHARED])
def test_compose_service_mounts_the_volumes_and_publishes_the_port_of_the_image(name: str) -> None:
    services = compose(name)["services"]
    service = services["allaprima"]
    mounted = dict(volume.split(":") for volume in service["volumes"])
    assert set(mounted.values()) == set(last("Dockerfile", "VOLUME"))
    assert {volume.split(":")[0] for one in services.values() for volume in one["volumes"]} == set(
        compose(name)["volumes"]
    )
    [port] = service["ports"]
    address, _, inside = port.split(":")
    assert (address, inside) == ("127.0.0.1", variables("Dockerfile")["ALLAPRIMA_SERVER__PORT"])


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_builds_from_a_file_that_exists(name: str) -> None:
    build = compose(name)["services"]["allaprima"]["build"]
    assert (ROOT / build["dockerfile"]).is_file()
    assert (DOCKER / build.get("context", "../..")).resolve() == ROOT


@pytest.mark.parametrize("name", ["compose.yaml", SHARED])
def test_compose_waits_longer_than_the_server_takes_to_stop(name: str) -> None:
    grace = compose(name)["services"]["allaprima"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > SHUTDOWN_TIMEOUT_S


# With PostgreSQL and a bucket


def value(text: str | None, variables: dict[str, str]) -> str | None:
    """Return a value of a compose file with the operator's variables in place."""

    def replaced(found: re.Match[str]) -> str:
        name, operator, default = found[1], found[2], found[3]
        assert name in variables or operator == ":-", f"{name} must be set"
        return variables.get(name) or default

    return None if text is None else re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", replaced, text)


def environment_of(service: str) -> dict[str, str]:
    """Return the variables of a service, as they are when the operator sets the passwords alone."""
    given = compose(SHARED)["services"][service]["environment"]
    return {name: found for name, text in given.items() if (found := value(text, SECRETS)) is not None}


def test_settings_for_postgresql_and_the_bucket_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, found in environment_of("allaprima").items():
        monkeypatch.setenv(name, found)
    store = load_settings().store
    assert store.database_url is not None
    url = urlsplit(store.database_url.get_secret_value())
    given = environment_of("postgres")
    assert (url.username, url.password, url.hostname, url.port) == (given["POSTGRES_USER"], None, "postgres", 5432)
    assert url.path == f"/{given['POSTGRES_DB']}"
    assert store.bucket is not None
    command = compose(SHARED)["services"]["s3"]["command"]
    [port] = [word.removeprefix("-s3.port=") for word in command if word.startswith("-s3.port=")]
    assert parse_bucket(store.bucket).endpoint == f"http://s3:{port}"
    assert {service: environment_of(service)["AWS_ACCESS_KEY_ID"] for service in ("allaprima", "s3")} == {
        "allaprima": SECRETS["AWS_ACCESS_KEY_ID"],
        "s3": SECRETS["AWS_ACCESS_KEY_ID"],
    }
    assert environment_of("allaprima")["PGPASSWORD"] == given["POSTGRES_PASSWORD"]


def test_file_has_no_secret_and_refuses_to_start_without_them() -> None:
    secret = re.compile("PASSWORD|SECRET|ACCESS_KEY|TOKEN")
    for service in compose(SHARED)["services"].values():
        for name, text in service["environment"].items():
            if secret.search(name):
                assert text is None or re.fullmatch(r"\$\{\w+:\?set it in deploy/docker/\.env\}", text), name
    assert "/deploy/docker/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_database_is_migrated_before_the_server_starts() -> None:
    services = compose(SHARED)["services"]
    waits = {name: services[name]["depends_on"] for name in ("allaprima", "migrate")}
    assert waits["allaprima"]["migrate"] == {"condition": "service_completed_successfully"}
    assert waits["migrate"]["postgres"] == {"condition": "service_healthy"}
    assert waits["allaprima"]["s3"] == {"condition": "service_healthy"}
    assert all("test" in services[name]["healthcheck"] for name in ("postgres", "s3"))
    [command] = services["migrate"]["command"]
    assert command in typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert services["migrate"]["environment"] == services["allaprima"]["environment"]


def test_image_has_the_driver_of_postgresql() -> None:
    arguments = compose(SHARED)["services"]["allaprima"]["build"]["args"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert arguments["EXTRAS"] == "[postgres]"
    assert "postgres" in extras
    declared = [one.value for name in DOCKERFILES for one in instructions(name) if one.cmd.upper() == "ARG"]
    assert declared == [("PIP_EXTRA_INDEX_URL",), ("EXTRAS",)] * 2


def test_command_of_the_s3_server_serves_the_bucket_to_its_credentials_alone(tmp_path: Path) -> None:
    service = compose(SHARED)["services"]["s3"]
    assert weed_version() == service["image"].partition(":")[2]
    master, volume, filer, s3 = free_ports(4)
    changed = {"-dir": tmp_path, "-ip": "127.0.0.1", "-ip.bind": "127.0.0.1", "-s3.port": s3}
    words = [word.partition("=")[::2] for word in service["command"]]
    command = [f"{name}={changed.get(name, text)}" if text else name for name, text in words]
    # The ports that the container does not share with other programs.
    command += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    variables = environment_of("s3") | {"HOME": str(tmp_path)}
    process = subprocess.Popen([weed(), *command], env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        check = service["healthcheck"]["test"][-1].replace("8333", str(s3))
        until(lambda: answers(check) or None, "the health check")
        endpoint = f"http://127.0.0.1:{s3}"
        until(lambda: stores(endpoint, SECRETS["AWS_SECRET_ACCESS_KEY"]) or None, "the bucket")
        assert not stores(endpoint, "wrong")
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


def stores(endpoint: str, secret: str) -> bool:
    """Whether an object can be put with a secret key. The bucket is made by its first object."""
    bucket = S3Store(
        "images",
        endpoint=endpoint,
        region="us-east-1",
        access_key_id=SECRETS["AWS_ACCESS_KEY_ID"],
        secret_access_key=secret,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    try:
        bucket.put("object", b"x")
    except BaseError:
        return False
    return True


def weed_version() -> str:
    """Return the version of SeaweedFS that the tests have."""
    done = subprocess.run([weed(), "version"], capture_output=True, text=True, timeout=60, check=True)
    [found] = re.findall(r"\b(\d+\.\d+)\b", done.stdout)[:1]
    return str(found)
