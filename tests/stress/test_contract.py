"""The OpenAPI document, tested by schemathesis: no server error, and every response as the document describes it."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import Serve
from tests.acceptance.processes import Server, allaprima
from tests.databases import BACKENDS, POSTGRESQL
from tests.store.postgres_server import server as postgres_server
from tests.stress.conftest import PRICE, SMALL

#: Checks of every response.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of the database."""
    return str(request.param)


@pytest.fixture
def tested(serve: Serve, tmp_path: Path, backend: str) -> tuple[Server, str]:
    """A server that generates small images for credits, and the key of its only account."""
    if backend != POSTGRESQL:
        started = serve(tmp_path / "data", **SMALL, **PRICE)
        return started, started.key
    database = {"ALLAPRIMA_STORE__DATABASE_URL": postgres_server().create("contract")}
    for command in ("accounts", "create", "default"), ("keys", "create", "--management"):
        done = allaprima(*command, folder=tmp_path, **database)
        assert done.returncode == 0, done.stderr
    return serve(tmp_path / "data", **SMALL, **PRICE, **database), done.stdout.strip()


@pytest.mark.timeout(3600)
def test_every_response_matches_openapi(
    tested: tuple[Server, str], backend: str, full: bool, figures: Callable[[str], None], tmp_path: Path
) -> None:
    server, key = tested
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/openapi.json",
        "--header", f"Authorization: Bearer {key}",
        "--checks", CHECKS,
        "--phases", "examples,coverage,fuzzing" if full else "coverage,fuzzing",
        "--max-examples", "165" if full else "4",
        "--seed", "7",
        "--generation-database", "none",
        "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=3500, check=False)
    output = done.stdout + done.stderr
    found = re.search(r"(\d+) generated", output)
    figures(f"schemathesis on {backend}: {found[1] if found else 'no'} requests, exit status {done.returncode}")
    assert done.returncode == 0, output[-6000:]
    assert found
    assert int(found[1]) >= (5000 if full else 300)
    assert server.is_running
