"""Clients of HTTP/1.0, which name no host and keep no connection."""

import json
import socket

import pytest

from tests.acceptance.processes import LIMIT_S, Server

BODY = json.dumps({"model": "flux/schnell", "prompt": "a red apple", "size": "64x64"}).encode()


def exchange(server: Server, request: bytes) -> tuple[bytes, bytes]:
    """Send a request, and return head and body of the answer, which ends with the connection."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as connection:
        connection.sendall(request)
        while chunk := connection.recv(65536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/"])
def test_client_without_host_is_answered(server: Server, path: str) -> None:
    head, body = exchange(server, f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body


def test_link_for_client_without_host_has_address_of_server(server: Server) -> None:
    start = f"POST /v1/images/generations HTTP/1.0\r\nAuthorization: Bearer {server.key}\r\n"
    head, body = exchange(server, f"{start}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
    assert head.startswith(b"HTTP/1.1 200 ")
    link = json.loads(body)["images"][0]["url"]
    assert link.startswith(f"{server.url}/files/")
