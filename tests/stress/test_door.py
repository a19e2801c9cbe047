"""Restarts under load: clients with open connections see answers, and no reset."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import Serve
from tests.acceptance.processes import LIMIT_S
from tests.stress.conftest import BODY, SMALL
from tests.stress.test_kills import free_port

SHORT, LONG = 2, 50
CLIENTS = 4
#: Seconds of load before each stop.
LOAD_S = 1.5


class Client(threading.Thread):
    """Sends requests on one connection, which it keeps open as long as the server does."""

    def __init__(self, port: int, key: str, ends: threading.Event) -> None:
        super().__init__()
        self._port, self._ends = port, ends
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self.outcomes: Counter[str] = Counter()

    def run(self) -> None:
        """Send requests until the end, and count their outcomes."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LIMIT_S)
        requests = [("GET", "/v1/models", None), ("POST", "/v1/images/generations", json.dumps(BODY))]
        number = 0
        while not self._ends.is_set():
            method, path, body = requests[number % 2]
            number += 1
            try:
                connection.request(method, path, body, self._headers)
                answer = connection.getresponse()
                answer.read()
                self.outcomes[str(answer.status)] += 1
            except ConnectionRefusedError:
                # Between two processes nothing listens.
                self.outcomes["refused"] += 1
                connection.close()
                time.sleep(0.05)
            except (OSError, http.client.HTTPException) as exc:
                self.outcomes[type(exc).__name__] += 1
                connection.close()
        connection.close()


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
