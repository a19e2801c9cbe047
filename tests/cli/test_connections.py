"""Connections: bounds of the head of a request, deadlines, and the largest number of connections."""

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from allaprima.cli.connections import BoundedConnection, ConnectionBounds
from allaprima.cli.http_server import http_server
from tests.waiting import eventually

REQUEST = b"GET / HTTP/1.1\r\nHost: images.test\r\n\r\n"


#: More than the buffers of a system's sockets hold.
LARGE_BYTES = 64_000_000


class QuickConnection(BoundedConnection):
    """A connection with a short deadline."""

    # Long enough for a busy machine to receive the beginning of a request.
    bounds = ConnectionBounds(head_s=2.0, stall_s=1.0)


class FewConnections(BoundedConnection):
    """One of at most four connections."""

    bounds = ConnectionBounds(max_connections=4)


class FewConnectionsOfAnAddress(BoundedConnection):
    """One of at most two connections of one address."""

    bounds = ConnectionBounds(max_per_address=2)


class FewConnectionsBehindProxy(BoundedConnection):
    """A connection of a trusted proxy, which the bound of an address does not limit."""

    bounds = ConnectionBounds(max_per_address=2, trusted_proxies=("127.0.0.0/8",))


class App:
    """An application: `/slow` is answered after `release` is set, `/large` with 64 MB."""

    def __init__(self) -> None:
        self.release, self.started = asyncio.Event(), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["path"] == "/slow":
            self.started += 1
            await self.release.wait()
        body = b"hello" * (LARGE_BYTES // 5 if scope["path"] == "/large" else 1)
        await PlainTextResponse(body)(scope, receive, send)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


@pytest.fixture
async def app() -> App:
    return App()


@pytest.fixture(params=[BoundedConnection])
async def address(request: pytest.FixtureRequest, app: App, listener: socket.socket) -> AsyncIterator[tuple[str, int]]:
    """The address of a server with connections of the class in the parameter."""
    server = http_server(app, request.param)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    yield listener.getsockname()[:2]
    server.should_exit = True
    await serving


async def answer_to(address: tuple[str, int], *parts: bytes) -> bytes:
    """Send bytes on a new connection, and return all that the server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 30)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def status_and_body(answer: bytes) -> tuple[int, dict[str, object]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"GET /", 414),
        (b"GET / HTTP/1.1\r\nHost: images.test\r\nx: ", 431),
        (b"GET / HTTP/1.1\r\nHost: images.test\r\n" + b"a: b\r\n" * 10_000, 431),
        (b"POST / HTTP/1.1\r\nHost: images.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: ", None),
    ],
)
async def test_endless_head_is_refused_after_64_kib(address: tuple[str, int], start: bytes, status: int | None) -> None:
    # More than the bound, and less than what the kernel buffers, so that the answer is not lost in a reset.
    answer = await answer_to(address, start + b"a" * 100_000)
    if status is not None:
        found, body = status_and_body(answer)
        assert found == status
        assert body["statusCode"] == status
        assert b"connection: close" in answer.lower()


async def test_malformed_request_is_refused_as_json(address: tuple[str, int]) -> None:
    status, body = status_and_body(await answer_to(address, b"no request at all\r\n\r\n"))
    assert (status, body["statusCode"]) == (400, 400)


@pytest.mark.parametrize("address", [QuickConnection], indirect=True)
async def test_silent_connection_is_closed(address: tuple[str, int]) -> None:
    assert await answer_to(address) == b""


@pytest.mark.parametrize("address", [QuickConnection], indirect=True)
@pytest.mark.parametrize("before", [b"", REQUEST])
async def test_half_sent_head_is_answered_408_and_closed(address: tuple[str, int], before: bytes) -> None:
    answer = await answer_to(address, before, b"GET / HTTP/1.1\r\nHost: ")
    last = answer[answer.rindex(b"HTTP/1.1 ") :]
    status, body = status_and_body(last)
    assert status == 408
    assert "was not received within 2 s" in str(body["message"])


@pytest.mark.parametrize("address", [QuickConnection], indirect=True)
async def test_head_that_arrives_byte_by_byte_has_same_deadline(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    answer = asyncio.create_task(reader.readline())
    for byte in itertools.chain(b"GET / HTTP/1.1\r\nHost: images.test\r\nlong: ", itertools.repeat(ord("a"))):
        writer.write(bytes([byte]))
        await asyncio.wait({answer}, timeout=0.01)
        if answer.done():
            break
    assert (await answer).startswith(b"HTTP/1.1 408 ")
    writer.close()


@pytest.mark.parametrize("address", [QuickConnection], indirect=True)
async def test_request_that_takes_longer_than_deadline_is_answered(address: tuple[str, int], app: App) -> None:
    slow = REQUEST.replace(b"/ ", b"/slow ").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    answer = asyncio.create_task(answer_to(address, slow))
    # A second connection, which sends nothing, is closed by the same deadline meanwhile.
    assert await answer_to(address) == b""
    app.release.set()
    assert (await answer).endswith(b"hello")


@pytest.mark.parametrize("address", [FewConnections], indirect=True)
async def test_new_connection_replaces_the_one_that_waits_longest(address: tuple[str, int]) -> None:
    idle = [await asyncio.open_connection(*address) for _ in range(4)]
    reader, writer = await asyncio.open_connection(*address)
    writer.write(REQUEST)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    # Its deadline is 20 seconds away.
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(idle[0][0].read(), 15) == b""
    assert not any(reader.at_eof() for reader, _ in idle[1:])
    for _, one in (*idle, (reader, writer)):
        one.close()


@pytest.mark.parametrize("address", [FewConnections], indirect=True)
async def test_connection_beyond_the_limit_is_answered_503(address: tuple[str, int], app: App) -> None:
    busy = [await asyncio.open_connection(*address) for _ in range(4)]
    for _, writer in busy:
        writer.write(REQUEST.replace(b"/ ", b"/slow "))
    await eventually(lambda: app.started == 4)
    assert status_and_body(await answer_to(address))[0] == 503
    app.release.set()
    for reader, writer in busy:
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_pipelined_requests_are_answered_in_order(address: tuple[str, int]) -> None:
    answer = await answer_to(address, REQUEST * 20 + REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert answer.count(b"HTTP/1.1 200 ") == 21


@pytest.mark.parametrize("address", [QuickConnection], indirect=True)
async def test_client_that_receives_nothing_is_disconnected(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address, limit=2**10)
    writer.write(REQUEST.replace(b"/ ", b"/large "))
    await reader.readline()
    received = 0
    # The client pauses for longer than the server waits, and then finds an incomplete answer.
    await asyncio.sleep(3 * QuickConnection.bounds.stall_s)
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(2**20):
            received += len(part)
    assert received < LARGE_BYTES
    writer.close()


@pytest.mark.parametrize("address", [QuickConnection], indirect=True)
async def test_client_that_receives_slowly_gets_the_whole_answer(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(REQUEST.replace(b"/ ", b"/large ").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    received = 0
    # Together longer than the server waits for one part.
    while part := await reader.read(2**20):
        received += len(part)
        await asyncio.sleep(0.04)
    assert received > LARGE_BYTES
    writer.close()


@pytest.mark.parametrize("address", [FewConnectionsOfAnAddress], indirect=True)
async def test_connection_beyond_the_limit_of_its_address_is_answered_503(address: tuple[str, int]) -> None:
    first = [await asyncio.open_connection(*address) for _ in range(2)]
    status, body = status_and_body(await answer_to(address))
    assert (status, body["message"]) == (503, "too many connections from this address")
    for _, writer in first:
        writer.close()


@pytest.mark.parametrize("address", [FewConnectionsBehindProxy], indirect=True)
async def test_limit_of_an_address_exempts_trusted_proxies(address: tuple[str, int]) -> None:
    opened = [await asyncio.open_connection(*address) for _ in range(4)]
    for reader, writer in opened:
        writer.write(REQUEST)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    for _, writer in opened:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
