"""The stop of the HTTP server: each request that has arrived is answered once, and so is each new connection."""

import asyncio
import http.client
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import uvloop
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from allaprima.cli.connections import BoundedConnection, ConnectionBounds
from allaprima.cli.http_server import HTTPServer, http_server
from tests.waiting import LIMIT_S, eventually

HEAD = b"GET / HTTP/1.1\r\nHost: images.test\r\n"
REQUEST = HEAD + b"\r\n"
CLIENTS = 20


class QuickConnection(BoundedConnection):
    """A connection that waits for its last request for a short time."""

    bounds = ConnectionBounds(last_request_s=0.05)


class PatientConnection(BoundedConnection):
    """A connection that waits for its last request for longer than any test."""

    bounds = ConnectionBounds(last_request_s=10 * LIMIT_S)


class App:
    """An application: `/slow` is answered, and the answer to `/stream` ends, after `release` is set."""

    def __init__(self) -> None:
        self.release, self.started = asyncio.Event(), list[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self.started.append(scope["path"])
        if scope["path"] == "/slow":
            await self.release.wait()
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
            await self.release.wait()
            await send({"type": "http.response.body", "body": b"hello"})
        else:
            await PlainTextResponse("hello")(scope, receive, send)


class Running:
    """A running server, and clients whose sockets belong to no event loop."""

    def __init__(self, app: App, server: HTTPServer, listener: socket.socket) -> None:
        self.app, self.server, self._listener = app, server, listener
        self.serving = asyncio.create_task(server.serve(sockets=[listener]))
        self._clients = list[socket.socket]()

    def connect(self, *parts: bytes) -> socket.socket:
        """Connect and send, while the event loop of the server can do nothing."""
        client = socket.create_connection(self._listener.getsockname(), LIMIT_S)
        self._clients.append(client)
        for part in parts:
            client.sendall(part)
        return client

    async def connected(self, *parts: bytes) -> socket.socket:
        """Connect and send, and wait until the server has the connection."""
        before = len(self.server.server_state.connections)
        client = self.connect(*parts)
        await eventually(lambda: len(self.server.server_state.connections) > before)
        return client

    @property
    def connection(self) -> BoundedConnection:
        """The only connection of the server."""
        [found] = self.server.server_state.connections
        assert isinstance(found, BoundedConnection)
        return found

    async def stop(self) -> None:
        """Stop the server, to its end."""
        self.server.should_exit = True
        await self.serving

    async def begin_stop(self) -> "asyncio.Task[None]":
        """Stop the server, and wait until the stop has reached the connections."""
        stopping = asyncio.create_task(self.stop())
        await eventually(lambda: (b"connection", b"close") in self.server.server_state.default_headers)
        return stopping

    def close(self) -> None:
        """Close the clients' connections."""
        for client in self._clients:
            client.close()


def read(client: socket.socket) -> http.client.HTTPResponse:
    """Read a response with its body. Raises what `http.client` raises at a connection that ends without one."""
    answer = http.client.HTTPResponse(client)
    answer.begin()
    answer.read()
    return answer


async def answer_on(client: socket.socket) -> http.client.HTTPResponse:
    return await asyncio.to_thread(read, client)


def read_to_end(client: socket.socket) -> bytes:
    """Read all that the server sends until it closes the connection."""
    return b"".join(iter(lambda: client.recv(2**16), b""))


def is_closed_after(client: socket.socket) -> bool:
    """Whether the server closes the connection without a further byte."""
    return client.recv(1) == b""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=CLIENTS) as opened:
        yield opened


@pytest.fixture(params=[QuickConnection])
async def running(request: pytest.FixtureRequest, listener: socket.socket) -> AsyncIterator[Running]:
    app = App()
    found = Running(app, http_server(app, request.param), listener)
    await eventually(lambda: found.server.started)
    yield found
    found.close()
    await found.stop()


async def test_request_of_before_the_stop_is_told_that_its_connection_closes(running: Running) -> None:
    client = await running.connected(REQUEST.replace(b"/ ", b"/slow "))
    await eventually(lambda: running.app.started)
    # uvicorn replaces the headers once per second, so an older exchange holds a list that the stop does not change.
    await running.server.on_tick(0)
    stopping = await running.begin_stop()
    await asyncio.sleep(3 * QuickConnection.bounds.last_request_s)
    running.app.release.set()
    answer = await answer_on(client)
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    await stopping


@pytest.mark.parametrize("running", [PatientConnection], indirect=True)
async def test_connection_of_a_stream_takes_one_more_request(running: Running) -> None:
    client = await running.connected(REQUEST.replace(b"/ ", b"/stream "))
    await eventually(lambda: running.app.started)
    stopping = await running.begin_stop()
    running.app.release.set()
    streamed = await answer_on(client)
    assert (streamed.status, streamed.headers["connection"]) == (200, None)
    client.sendall(REQUEST)
    answer = await answer_on(client)
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    await stopping


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_connections_that_the_kernel_holds_are_answered(
    listener: socket.socket, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def check() -> None:
        app, clients = App(), list[socket.socket]()

        class Server(HTTPServer):
            """A server that is stopped while the kernel holds connections, which the event loop has not seen."""

            async def main_loop(self) -> None:
                clients.extend(running.connect(REQUEST) for _ in range(CLIENTS))

        running = Running(app, Server(http_server(app, QuickConnection).config), listener)
        await running.serving
        answers = [read(client) for client in clients]
        assert [(answer.status, answer.headers["connection"]) for answer in answers] == [(200, "close")] * CLIENTS
        assert app.started == ["/"] * CLIENTS
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        running.close()

    address = listener.getsockname()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(check())


@pytest.mark.parametrize("sent", [b"", HEAD])
async def test_connection_without_a_whole_request_is_answered_503(running: Running, sent: bytes) -> None:
    client = await running.connected(sent)
    stopping = await running.begin_stop()
    head, _, body = (await asyncio.to_thread(read_to_end, client)).partition(b"\r\n\r\n")
    status, *headers = head.decode().lower().split("\r\n")
    assert status.startswith("http/1.1 503 ")
    assert {"connection: close", "retry-after: 1"} <= set(headers)
    assert json.loads(body)["error"]["code"] == "draining"
    # A request that comes too late is read, so that no reset overtakes the answer, and not executed.
    client.sendall(REQUEST)
    assert is_closed_after(client)
    client.close()
    await stopping
    assert running.app.started == []


async def test_idle_connection_of_earlier_requests_is_closed(running: Running) -> None:
    client = await running.connected(REQUEST)
    assert (await answer_on(client)).headers["connection"] is None
    await running.stop()
    assert is_closed_after(client)


async def test_connection_whose_request_is_in_the_kernel_is_not_closed_as_idle(running: Running) -> None:
    client = await running.connected(REQUEST)
    await answer_on(client)
    connection = running.connection
    client.sendall(REQUEST)
    # The event loop has had no chance to read the request.
    connection.timeout_keep_alive_handler()
    assert (await answer_on(client)).status == 200


async def test_request_that_arrives_at_the_end_of_the_grace_is_answered(running: Running) -> None:
    client = await running.connected(REQUEST)
    await answer_on(client)
    running.connection.shutdown()
    # Both timers are due when the event loop continues: that which sends the request, and then the end of the grace.
    asyncio.get_running_loop().call_later(0, client.sendall, REQUEST)
    time.sleep(2 * QuickConnection.bounds.last_request_s)  # noqa: ASYNC251 - the event loop shall be late
    assert (await answer_on(client)).status == 200
