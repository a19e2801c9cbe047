"""A client that sends a whole body before it reads sees the response to it, and no reset."""

import http.client
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
import requests

from tests.acceptance.processes import LIMIT_S, Server, environment
from tests.programs import need

PROGRAMS = Path(__file__).parent / "programs"
MIB = 2**20
SIZES = [MIB + 1, 12 * MIB, 40 * MIB]
KEYS = {"valid": 413, "invalid": 401}


@pytest.fixture(params=KEYS)
def case(request: pytest.FixtureRequest, server: Server) -> tuple[str, int]:
    """A key and the status of its request."""
    return server.key if request.param == "valid" else "ap_" + "0" * 36, KEYS[request.param]


def url_of(server: Server) -> str:
    return f"{server.url}/v1/images/generations"


def headers_of(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "content-type": "application/json"}


@pytest.mark.parametrize("size", SIZES)
def test_urllib_sees_refusal_of_large_body(server: Server, case: tuple[str, int], size: int) -> None:
    key, status = case
    request = urllib.request.Request(url_of(server), bytes(size), headers_of(key))  # noqa: S310 - the test's own server
    with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(request, timeout=LIMIT_S):  # noqa: S310
        pass
    with refused.value:
        assert refused.value.code == status


@pytest.mark.parametrize("size", SIZES)
def test_requests_sees_refusal_of_large_body(server: Server, case: tuple[str, int], size: int) -> None:
    key, status = case
    with requests.Session() as session:
        for _ in range(2):
            answer = session.post(url_of(server), bytes(size), headers=headers_of(key), timeout=LIMIT_S)
            assert answer.status_code == status
            assert answer.json()["statusCode"] == status


@pytest.mark.node
@pytest.mark.parametrize("size", SIZES)
def test_node_sees_refusal_of_large_body(server: Server, case: tuple[str, int], size: int) -> None:
    node = need("node", "sends a large body")
    assert run(node, PROGRAMS / "large_body.mjs", server.url, *case[:1], size) == str(case[1])


@pytest.mark.skipif(not shutil.which("java"), reason="needs Java; the tests above send the same")
@pytest.mark.parametrize("size", SIZES)
def test_java_sees_refusal_of_large_body(server: Server, size: int) -> None:
    assert run("java", PROGRAMS / "LargeBody.java", server.url, server.key, size) == "413"


def run(*command: object) -> str:
    done = subprocess.run(
        list(map(str, command)), env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    return done.stdout.strip()


def test_large_bodies_take_little_memory(server: Server) -> None:
    process = psutil.Process(server.pid)
    before = process.memory_info().rss
    for _ in range(10):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)
        connection.request("POST", "/v1/images/generations", bytes(40 * MIB), headers_of(server.key))
        assert connection.getresponse().status == 413
        connection.close()
    assert process.memory_info().rss - before < 20 * MIB
