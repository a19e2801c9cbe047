"""An HTTP server whose stop answers every request that has arrived, and every connection that it has accepted."""

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.flow_control import CLOSE_HEADER

from allaprima.cli.connections import BoundedConnection

#: Seconds from the first signal until open connections are closed.
SHUTDOWN_TIMEOUT_S = 20
BACKLOG = 2048
#: Seconds until the server closes an idle connection. Clients close theirs earlier, so none is closed during a request.
KEEP_ALIVE_S = 75


class HTTPServer(uvicorn.Server):
    """A uvicorn server without signal handlers: its owner sets `should_exit`, since one signal stops two servers."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listeners, answer the requests that were sent, and close each connection after its answer."""
        # Connections read this list. A client that reads the header sends no further request on its connection.
        self.server_state.default_headers.append(CLOSE_HEADER)
        accepted = [connection for listener in sockets or [] for connection in _accept_waiting(listener)]
        for server in self.servers:
            server.close()
        for connection in accepted:
            # A client may have left meanwhile.
            with suppress(OSError):
                await asyncio.get_running_loop().connect_accepted_socket(self._connection, connection)
        await super().shutdown(sockets)

    def _connection(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle no signal."""
        yield


def _accept_waiting(listener: socket.socket) -> list[socket.socket]:
    """Accept the connections that wait in the kernel's queue: closing the listener would reset them.

    No call of a system closes a listener only if its queue is empty. A connection whose handshake ends between the last
    `accept` and the `close` that follows is reset.
    """
    accepted = list[socket.socket]()
    listener.settimeout(0)
    while True:
        try:
            connection, _ = listener.accept()
        except ConnectionAbortedError:
            continue
        except OSError:
            # The queue is empty, or the process can open no more files.
            return accepted
        connection.settimeout(0)
        accepted.append(connection)


def http_server(app: ASGIApp, connections: type[BoundedConnection] = BoundedConnection) -> HTTPServer:
    """Return a server of an application. connections: the class of its connections."""
    return HTTPServer(
        uvicorn.Config(
            app,
            # httptools does not read the body after `Upgrade: h2c` and parses it as the next request; h11 does read it.
            http=connections,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
            timeout_keep_alive=KEEP_ALIVE_S,
            backlog=BACKLOG,
        )
    )
