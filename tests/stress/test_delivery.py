"""Kills and stops of the server while it answers `store=false`: no client is charged for images that it lacks."""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import Serve
from tests.acceptance.processes import allaprima
from tests.stress.conftest import BODY, CREDITS, PRICE, SMALL
from tests.stress.deployments import Folder
from tests.stress.request_log import check_billing, wait_until_done
from tests.stress.test_kills import free_port
from tests.waiting import LIMIT_S

SHORT, LONG = 2, 30
CLIENTS = 6
REQUEST = json.dumps(BODY | {"store": False, "response_format": "b64_json"})
CHARGED = "SELECT job_id FROM usage WHERE credits > 0"
IMAGES = "SELECT count(*) FROM images"


class Client(threading.Thread):
    """Requests images without storing them, and records the ids of the jobs whose responses it received whole."""

    def __init__(self, port: int, key: str, ends: threading.Event) -> None:
        super().__init__()
        self._port, self._ends = port, ends
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self.delivered: list[str] = []

    def run(self) -> None:
        """Send requests until the end."""
        while not self._ends.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LIMIT_S)
            try:
                while not self._ends.is_set():
                    connection.request("POST", "/v1/images/generations", REQUEST, self._headers)
                    answer = connection.getresponse()
                    body = answer.read()
                    if answer.status == 200 and json.loads(body)["data"][0]["b64_json"]:
                        self.delivered.append(answer.headers["x-inference-id"])
            except (OSError, http.client.HTTPException):
                # The server is stopped or killed.
                time.sleep(0.05)
            finally:
                connection.close()


@pytest.mark.timeout(3600)
def test_only_delivered_images_are_charged(
    serve: Serve, tmp_path: Path, full: bool, figures: Callable[[str], None]
) -> None:
    chance = random.Random(7)
    folder, port = tmp_path / "data", free_port()
    server = serve(folder, "--port", port, **SMALL, **PRICE)
    assert allaprima("accounts", "credit", "default", "1000", "--data-dir", folder, folder=tmp_path).returncode == 0
    ends = threading.Event()
    clients = [Client(port, server.key, ends) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    rounds = LONG if full else SHORT
    try:
        for number in range(2 * rounds):
            time.sleep(chance.uniform(0.5, 1.5))
            if number % 2:
                assert server.stop(twice=number % 4 == 1) == 0, server.output
            else:
                server.kill()
            server = serve(folder, "--port", port, **SMALL, **PRICE)
    finally:
        ends.set()
        for client in clients:
            client.join()
    wait_until_done(Folder(folder).read)
    delivered = [job_id for client in clients for job_id in client.delivered]
    charged = [str(job_id) for (job_id,) in Folder(folder).read(CHARGED)]
    undelivered = set(charged) - set(delivered)
    figures(
        f"{rounds} kills and {rounds} stops with store=false: {len(delivered)} delivered, {len(charged)} charged, "
        f"{len(undelivered)} charged and not delivered"
    )
    assert undelivered == set()
    assert len(charged) == len(set(charged))
    assert check_billing(Folder(folder).read) == len(charged) * CREDITS
    assert Folder(folder).read(IMAGES) == [(0,)]
    # At most one response of each client was on its way when the server was killed.
    assert len(delivered) - len(charged) <= rounds * CLIENTS
