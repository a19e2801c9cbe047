"""An `Upgrade` header does not change how a request is framed (RFC 9110, section 7.8: a server may ignore it)."""

import json
import shutil
import socket
import subprocess
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.processes import LIMIT_S, Server, environment
from tests.waiting import until

BODY = json.dumps({"model": "flux/schnell", "prompt": "a red apple", "size": "64x64"}).encode()
#: A body that is itself a request: a server that does not read the body would handle it as the next request.
SMUGGLED = b"GET /v1/models?id=SMUGGLED HTTP/1.1\r\nHost: server\r\n\r\n"
UPGRADES = {
    "h2c": "Upgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\nConnection: Upgrade, HTTP2-Settings",
    "websocket": "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    "unknown protocol": "Upgrade: teleport/9\r\nConnection: upgrade",
}
CONNECTIONS = Path("/proc/net/tcp")
NEEDS_CONNECTIONS = pytest.mark.skipif(not CONNECTIONS.exists(), reason="needs Linux's list of connections")
SEGMENTS = [pytest.param(False, id="one segment"), pytest.param(True, id="two segments", marks=NEEDS_CONNECTIONS)]
JAVA = Path(__file__).parent / "programs" / "Generate.java"


def exchange(server: Server, upgrade: str, body: bytes, *, in_segments: bool) -> bytes:
    """Send a POST and then `GET /health` on one connection; return what the server sent before its last answer."""
    head = (
        f"POST /v1/images/generations HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {server.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{UPGRADES[upgrade]}\r\n\r\n"
    ).encode()
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if in_segments:
            connection.sendall(head)
            until(lambda: is_read(connection) or None, "the server to read the head")
            connection.sendall(body)
        else:
            connection.sendall(head + body)
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        while chunk := connection.recv(65536):
            received += chunk
    received, _, last = received.rpartition(b"HTTP/1.1 ")
    assert last.startswith(b"200 ")
    assert last.endswith(b'{"status":"ok"}')
    return received


def is_read(connection: socket.socket) -> bool:
    """Whether the server has read all that was sent: the kernel's queues of both ends are empty."""
    ends = {f"0100007F:{port:04X}" for _, port in (connection.getsockname(), connection.getpeername())}
    rows = [line.split() for line in CONNECTIONS.read_text().splitlines()]
    queues = [row[4] for row in rows if {row[1], row[2]} == ends]
    assert len(queues) == 2
    return set(queues) == {"00000000:00000000"}


@pytest.mark.parametrize("in_segments", SEGMENTS)
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_upgrade_header_is_ignored(server: Server, upgrade: str, in_segments: bool) -> None:
    received = exchange(server, upgrade, BODY, in_segments=in_segments)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("in_segments", SEGMENTS)
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_body_is_never_parsed_as_request(server: Server, upgrade: str, in_segments: bool) -> None:
    received = exchange(server, upgrade, SMUGGLED, in_segments=in_segments)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1 ") == 1
    assert b'"object":"list"' not in received


def test_connection_serves_next_request_after_upgrade(server: Server) -> None:
    headers = {"upgrade": "h2c", "connection": "Upgrade, HTTP2-Settings", "authorization": f"Bearer {server.key}"}
    with httpx2.Client(base_url=server.url, timeout=LIMIT_S) as client:
        for _ in range(3):
            answer = client.post(
                "/v1/images/generations", content=BODY, headers=headers | {"content-type": "application/json"}
            )
            assert answer.status_code == 200


@pytest.mark.skipif(not shutil.which("java"), reason="needs Java; the tests above send the same by sockets")
def test_java_http_client_generates(server: Server) -> None:
    command = ["java", str(JAVA), server.url, server.key]
    answers = [
        subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout
        for _ in range(2)
    ]
    assert answers == ["200\n", "200\n"]
