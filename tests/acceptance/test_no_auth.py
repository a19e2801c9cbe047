"""`allaprima serve --no-auth`: a real server without authentication, and the starts that are refused."""

import socket
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.processes import Server, allaprima
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.timeout(900)

BODY = b'{"model": "sketch", "prompt": "a red apple", "size": "64x64", "num_inference_steps": 1}'


@pytest.fixture(scope="module")
def open_server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    return serve_module(tmp_path_factory.mktemp("no auth") / "data", "--no-auth")


def exchange(server: Server, head: str, body: bytes = b"") -> int:
    """Send bytes, and return the status of the answer."""
    with socket.create_connection(("127.0.0.1", server.port), LIMIT_S) as connection:
        connection.sendall(head.replace("PORT", str(server.port)).encode("latin-1") + body)
        received = b""
        while b"\r\n" not in received:
            data = connection.recv(4096)
            assert data, received
            received += data
    return int(received.split()[1])


def test_program_of_this_machine_generates_without_a_key(open_server: Server, tmp_path: Path) -> None:
    assert "requests from this machine need no key; all others are refused (--no-auth)" in open_server.output
    url = f"{open_server.url}/v1/images/generations"
    answer = httpx2.post(url, content=BODY, headers={"content-type": "application/json"}, timeout=LIMIT_S)
    assert answer.status_code == 200
    assert httpx2.get(answer.json()["images"][0]["url"], timeout=LIMIT_S).status_code == 200
    link = allaprima("open", "--data-dir", open_server.data_dir, folder=tmp_path)
    assert link.stdout == f"{open_server.url}/\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /v1/key HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n", 200),
        ("GET /v1/key HTTP/1.1\r\nHost: localhost:PORT\r\nAuthorization: Bearer ap_wrong\r\n\r\n", 401),
        ("GET /v1/key HTTP/1.1\r\nHost: rebound.example:PORT\r\n\r\n", 403),
        ("GET /v1/key HTTP/1.1\r\nHost: localhost.rebound.example\r\n\r\n", 403),
        ("GET //v1//key HTTP/1.1\r\nHost: rebound.example\r\n\r\n", 403),
        ("GET /v1/key HTTP/1.1\r\nHost: localhost\r\nHost: rebound.example\r\n\r\n", 400),
        ("GET /v1/key HTTP/1.1\r\n\r\n", 400),
        ("GET /v1/key HTTP/1.0\r\n\r\n", 403),
        ("GET /v1/key HTTP/1.1\r\nHost:\r\n\r\n", 403),
        ("GET /v1/key HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nOrigin: null\r\n\r\n", 403),
        ("GET /v1/key HTTP/1.1\r\nHost: localhost\r\nOrigin: https://other.example\r\n\r\n", 403),
        ("GET /v1/key HTTP/1.1\r\nHost: localhost\r\nORIGIN: null\r\n\r\n", 403),
        ("GET /v1/key HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-site\r\n\r\n", 403),
        ("GET /v1/key HTTP/1.1\r\nHost: localhost\r\nX-FORWARDED-FOR: 127.0.0.1\r\n\r\n", 403),
        ("GET /v1/key HTTP/1.1\r\nHost: localhost\r\nForwarded: for=127.0.0.1\r\n\r\n", 403),
        (
            "OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nAccess-Control-Request-Method: GET\r\n\r\n",
            403,
        ),
        ("GET / HTTP/1.1\r\nHost: rebound.example\r\n\r\n", 403),
        ("GET /playground/js/main.js HTTP/1.1\r\nHost: rebound.example\r\n\r\n", 403),
        ("GET /openapi.json HTTP/1.1\r\nHost: rebound.example\r\n\r\n", 403),
    ],
)
def test_foreign_head_is_refused(open_server: Server, head: str, status: int) -> None:
    assert exchange(open_server, head) == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Content-Type: application/json\r\nOrigin: http://127.0.0.1:PORT\r\n", 200),
        ("Content-Type: text/plain\r\nOrigin: https://other.example\r\nSec-Fetch-Site: cross-site\r\n", 403),
        ("Content-Type: text/plain\r\nOrigin: null\r\n", 403),
        ("Content-Type: text/plain\r\n", 415),
        ("Content-Type: application/x-www-form-urlencoded\r\n", 415),
    ],
)
def test_form_of_another_page_generates_nothing(open_server: Server, headers: str, status: int) -> None:
    before = open_server.query("SELECT count(*) FROM jobs")
    head = (
        f"POST /v1/images/generations HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n{headers}Content-Length: {len(BODY)}\r\n\r\n"
    )
    assert exchange(open_server, head, BODY) == status
    assert (open_server.query("SELECT count(*) FROM jobs") == before) == (status != 200)


def test_second_account_is_refused_until_the_server_stops(serve: Callable[..., Server], tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    server = serve(data_dir, "--no-auth")
    create = ("accounts", "create", "acme", "--data-dir", data_dir)

    refused = allaprima(*create, folder=tmp_path)
    assert refused.returncode == 2
    assert "the server runs with --no-auth, which is for a single account" in refused.stderr
    assert server.stop() == 0

    assert allaprima(*create, folder=tmp_path).returncode == 0
    again = allaprima("serve", "--no-auth", "--port", 0, "--data-dir", data_dir, folder=tmp_path)
    assert again.returncode == 2
    assert again.stderr == (
        "error: --no-auth needs a data folder with a single account, and this one has 2: default, acme; start without "
        "it, or name another folder with --data-dir\n"
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--host", "0.0.0.0"), "is allowed on a loopback address alone"),  # noqa: S104 - refused
        (("--host", "::"), "is allowed on a loopback address alone"),
        (("--host", "192.0.2.1"), "--host is 192.0.2.1"),
        (("--host", "example.org"), "--host is example.org"),
        (("--public-url", "https://images.example.org"), "can't be combined with --public-url"),
    ],
)
def test_open_address_is_refused_before_anything_is_loaded(
    tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    done = allaprima("serve", "--no-auth", "--port", 0, *arguments, folder=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: --no-auth ")
    assert reason in line
    assert list(tmp_path.iterdir()) == []
