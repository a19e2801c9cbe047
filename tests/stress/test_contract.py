"""The OpenAPI document, tested by schemathesis: no server error, and every response as the document describes it."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.processes import Server

#: Checks of every response.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.timeout(3600)
def test_every_response_matches_openapi(
    small_server: Server, full: bool, figures: Callable[[str], None], tmp_path: Path
) -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{small_server.url}/openapi.json",
        "--header", f"Authorization: Bearer {small_server.key}",
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
    figures(f"schemathesis: {found[1] if found else 'no'} requests, exit status {done.returncode}")
    assert done.returncode == 0, output[-6000:]
    assert found
    assert int(found[1]) >= (5000 if full else 300)
    assert small_server.is_running
