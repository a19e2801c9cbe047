"""A TCP port before a server: it can refuse connections, and hold back the server's answers."""

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class Gate:
    """Forwards connections from a port of its own to a server. It refuses them until `open` is called."""

    def __init__(self, endpoint: str) -> None:
        """endpoint: URL of the server."""
        self._target = urlsplit(endpoint).hostname, urlsplit(endpoint).port
        # A port that is bound and not listened on refuses connections, and no other program gets it.
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        #: Whether requests reach the server and its answers are dropped.
        self.holds_answers = False

    def open(self) -> None:
        """Accept connections."""
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no further connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for ends in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._forward, args=ends, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with suppress(OSError), sink:
            while data := source.recv(65_536):
                if not (is_answer and self.holds_answers):
                    sink.sendall(data)
