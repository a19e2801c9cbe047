"""HTTP connections with bounds: deadlines for the head of a request and for a reader, a largest number, and an end.

uvicorn's protocol waits for ever for the first request of a connection and for the rest of a half-sent head, and it
answers a head that is too long with 400. When the server stops, it closes connections without a request at once, and
others after a response that does not announce it. h11 bounds the size of a head, and reads no further request while one
is being answered.
"""

import asyncio
import json
import selectors
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import h11
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from allaprima.api.errors import protocol_error
from allaprima.api.http.addresses import is_address_in
from allaprima.errors import Draining

#: Seconds and bytes for which a refused client may go on sending: a reset would reach it before the answer.
LINGER_S, LINGER_BYTES = 2.0, 2**20
#: File descriptors that connections leave to the store, the engine and the webhooks.
RESERVED_DESCRIPTORS = 128
#: Most connections, whatever the system allows.
MAX_CONNECTIONS = 10_000


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """The bounds of the connections of one server."""

    max_connections: int = MAX_CONNECTIONS
    #: Most connections of one address; None: not limited. Trusted proxies are exempt.
    max_per_address: int | None = None
    #: Networks of proxies, whose connections carry many clients.
    trusted_proxies: tuple[str, ...] = ()
    #: Seconds for the first request of a connection, and for the head of each request from its first byte.
    head_s: float = 20.0
    #: Seconds within which a client must receive some part of a response that waits to be sent.
    stall_s: float = 60.0
    #: Seconds for which a connection without a request waits for one while the server stops.
    last_request_s: float = 1.0


def largest_number_of_connections() -> int:
    """Return how many connections the process may have open, after raising its limit of file descriptors."""
    try:
        import resource
    except ImportError:  # Windows
        return MAX_CONNECTIONS
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems refuse to raise it to a hard limit that they call unlimited.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    available = MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else soft - RESERVED_DESCRIPTORS
    return max(1, min(MAX_CONNECTIONS, available))


class BoundedConnection(H11Protocol):
    """A connection whose requests must arrive in time."""

    #: Set once for the process.
    bounds = ConnectionBounds()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request. If there are too many connections, close the one that has waited longest for one."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._end: asyncio.Handle | None = None
        #: Bytes that the client sent after it was refused; None while it is not refused.
        self._discarded: int | None = None
        #: When the connection began to wait for a request.
        self.waiting_since = time.monotonic()
        self._expect_head()
        if len(self.connections) > self.bounds.max_connections:
            self._make_room()
        elif self._is_one_too_many_of_its_address():
            self._answer(HTTPException(503, "too many connections from this address", {"retry-after": "1"}))
        elif self._is_stopping:
            self.shutdown()

    def _make_room(self) -> None:
        others = [one for one in self.connections if isinstance(one, BoundedConnection) and one is not self]
        for one in sorted((one for one in others if one.is_idle), key=lambda one: one.waiting_since):
            if not one.has_unread_bytes:
                one.abort()
                return
        self._answer(HTTPException(503, "too many connections", {"retry-after": "1"}))

    def _is_one_too_many_of_its_address(self) -> bool:
        if self.bounds.max_per_address is None or self.client is None:
            return False
        address = self.client[0]
        if is_address_in(address, self.bounds.trusted_proxies):
            return False
        clients = [one.client for one in self.connections if isinstance(one, BoundedConnection)]
        return sum(client is not None and client[0] == address for client in clients) > self.bounds.max_per_address

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def has_unread_bytes(self) -> bool:
        """Whether the kernel has received bytes, or the client's end, since the event loop read the last ones."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.transport.get_extra_info("socket").fileno(), selectors.EVENT_READ)
            return bool(selector.select(0))

    @property
    def _is_stopping(self) -> bool:
        """Whether the server closes every connection after its next response."""
        return CLOSE_HEADER in self.server_state.default_headers

    def abort(self) -> None:
        """Close the connection without an answer."""
        self._cancel_deadline()
        self._unset_keepalive_if_required()
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse data, and start or end the deadline of a head."""
        if self._discarded is not None:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.abort()
            return
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """Wait for the next request, whose beginning may already be there."""
        super().on_response_complete()
        self.waiting_since = time.monotonic()
        if self.conn.trailing_data[0]:
            self._watch_head()
        if self._is_stopping and self.is_idle and not self.transport.is_closing():
            # The head of the response was sent before the stop, so the client may send a further request.
            self._expect_last_request()

    def shutdown(self) -> None:
        """Close the connection after the response to the request that runs, or that arrives in time.

        The server has added `Connection: close` to its default headers by then.
        """
        if self.is_idle:
            self._expect_last_request()
        else:
            # uvicorn replaces the list every second, so a running exchange may hold one of before the stop.
            self.cycle.default_headers = self.server_state.default_headers

    def _expect_last_request(self) -> None:
        if self._end is None:
            self._end = self.loop.call_later(self.bounds.last_request_s, self._end_idle)

    def _end_idle(self) -> None:
        """Close a connection without a request; answer 503 if the client can't know that it may be closed.

        HTTP lets a server close an idle connection at any time, and clients expect that of a connection that they use
        again (RFC 9112, sections 9.3.1 and 9.5). A client does not expect it of a new connection, or inside a request.
        """
        self._end = None
        if not self.is_idle or self._discarded is not None or self.transport.is_closing():
            return
        if self.has_unread_bytes:
            self._end = self.loop.call_soon(self._end_idle)
        elif self.cycle is None or self.conn.trailing_data[0]:
            self._answer(HTTPException(503, str(Draining(retry_after_s=1)), {"retry-after": "1"}), Draining.code)
        else:
            self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was idle for long, unless a request has arrived meanwhile."""
        if not self.transport.is_closing() and not self.has_unread_bytes:
            super().timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        """Stop the application until the client has received more; close the connection if it receives nothing."""
        super().pause_writing()
        self._expect_reader()

    def resume_writing(self) -> None:
        """Let the application send more."""
        self._cancel_stall()
        super().resume_writing()

    def _expect_reader(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        self._stall = self.loop.call_later(self.bounds.stall_s, self._check_reader, unsent)

    def _check_reader(self, unsent: int) -> None:
        if self.transport.get_write_buffer_size() < unsent:
            self._expect_reader()
        else:
            self.abort()

    def _cancel_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._cancel_deadline()
        self._cancel_stall()
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        if self.transport.is_closing() or self._discarded is not None or self.conn.their_state is not h11.IDLE:
            self._cancel_deadline()
        elif self._deadline is None and self.is_idle:
            self._expect_head()

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(self.bounds.head_s, self._miss_head)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _miss_head(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:
            self._answer(
                HTTPException(408, f"the head of the request was not received within {self.bounds.head_s:g} s")
            )
        elif not self.has_unread_bytes:
            self.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that the parser refuses, with the parser's status."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if status == 431 and b"\n" not in self.conn.trailing_data[0]:
            status = 414
        self._answer(HTTPException(status, str(error) if error else msg))

    def _answer(self, error: HTTPException, code: str | None = None) -> None:
        """Send an error that no application sees, and close the connection when the client has had time to read it."""
        if self.conn.our_state is not h11.IDLE and self.conn.our_state is not h11.SEND_RESPONSE:
            self.abort()
            return
        body, headers = protocol_error(error, code)
        content = json.dumps(body).encode()
        sent = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        sent += [(name.encode(), value.encode()) for name, value in headers.items()]
        events: list[Any] = [
            h11.Response(
                status_code=error.status_code,
                headers=[*sent, (b"connection", b"close")],
                reason=STATUS_PHRASES[error.status_code],
            ),
            h11.Data(data=content),
            h11.EndOfMessage(),
        ]
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.write_eof()
        self._cancel_deadline()
        self._discarded = 0
        self._deadline = self.loop.call_later(LINGER_S, self.abort)
