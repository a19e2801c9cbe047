"""Restarts under load: clients with open connections see answers, and no reset."""

import http.client
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from allaprima.cli.connections import ConnectionBounds
from tests.acceptance.conftest import Serve
from tests.acceptance.processes import LIMIT_S
from tests.stress.conftest import BODY, SMALL
from tests.stress.test_kills import free_port

SHORT, LONG = 2, 50
CLIENTS = 4
#: Seconds of load before each stop.
LOAD_S = 1.5


class Client(threading.Thread):
    """Sends requests on one connection, which it keeps open as long as the server does.

    A server may close an idle connection while a request is on its way (RFC 9112, section 9.5). As other clients do,
    this one then sends the request again (section 9.3.1), but only if its connection was idle for as long as the server
    waits for a last request when it stops. A close of a new connection, or soon after an answer that did not announce
    it, counts as a reset.
    """

    def __init__(self, port: int, key: str, ends: threading.Event) -> None:
        super().__init__()
        self._ends = ends
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
        #: When the last answer ended on the connection; infinite: it is new.
        self._answered_at = math.inf
        self.outcomes: Counter[str] = Counter()

    def run(self) -> None:
        """Send requests until the end, and count their outcomes."""
        requests = [("GET", "/v1/models", None), ("POST", "/v1/images/generations", json.dumps(BODY))]
        number = 0
        while not self._ends.is_set():
            # The key lets the server recognize a request that it has executed already.
            headers = self._headers | {"idempotency-key": f"{self.name}-{number}"}
            try:
                self.outcomes[str(self._status_of(*requests[number % 2], headers))] += 1
            except ConnectionRefusedError:
                # Between two processes nothing listens.
                self.outcomes["refused"] += 1
                self._connection.close()
                time.sleep(0.05)
            except (OSError, http.client.HTTPException) as exc:
                self.outcomes[type(exc).__name__] += 1
                self._connection.close()
            number += 1
        self._connection.close()

    def _status_of(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> int:
        if self._connection.sock is None:
            self._answered_at = math.inf
        idle_s = 0.0
        try:
            try:
                self._connection.request(method, path, body, headers)
            finally:
                idle_s = time.monotonic() - self._answered_at
            answer = self._connection.getresponse()
        except (ConnectionResetError, BrokenPipeError):
            if idle_s < ConnectionBounds().last_request_s:
                raise
            self._connection.close()
            return self._status_of(method, path, body, headers)
        answer.read()
        self._answered_at = time.monotonic()
        return answer.status


@pytest.mark.timeout(7200)
def test_restarts_under_load_reset_no_connection(
    serve: Serve, tmp_path: Path, full: bool, figures: Callable[[str], None]
) -> None:
    folder, port = tmp_path / "data", free_port()
    server = serve(folder, "--port", port, **SMALL)
    ends = threading.Event()
    clients = [Client(port, server.key, ends) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    restarts = LONG if full else SHORT
    try:
        for _ in range(restarts):
            time.sleep(LOAD_S)
            assert server.stop() == 0, server.output
            server = serve(folder, "--port", port, **SMALL)
        time.sleep(LOAD_S)
    finally:
        ends.set()
        for client in clients:
            client.join()
    outcomes = sum((client.outcomes for client in clients), Counter[str]())
    figures(f"{restarts} restarts under load of {CLIENTS} clients: {dict(outcomes)}")
    assert set(outcomes) <= {"200", "429", "503", "refused"}
    assert outcomes["200"] > restarts
