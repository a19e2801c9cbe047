"""Real `allaprima` processes: commands, and servers on free ports, each with its own data folder."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2

from tests.waiting import LIMIT_S, until

_GREETING = re.compile(r"^allaprima serves at (http://\S+)", re.MULTILINE)
#: A client of its own for each request would load the certificates of all authorities each time. No connection is kept,
#: because a test may kill the server and start another on the same port.
_CLIENT = httpx2.Client(timeout=LIMIT_S, limits=httpx2.Limits(max_keepalive_connections=0))
_KEY = re.compile(r"\bap_[0-9A-Za-z]{36}\b")


def environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without allaprima's settings, and with `extra`."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("ALLAPRIMA_")} | extra


def allaprima(*arguments: object, folder: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end in a folder. settings: environment variables."""
    command = [sys.executable, "-m", "allaprima", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment(**settings), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


class Server:
    """A running `allaprima serve` on a free port. Its output goes to a file next to its data folder."""

    def __init__(self, data_dir: Path, *arguments: object, **settings: str) -> None:
        """Start the server and wait until it is ready. settings: environment variables."""
        self.data_dir = data_dir
        self._log = data_dir.with_name(f"{data_dir.name}-{time.monotonic_ns()}.log")
        command = [sys.executable, "-m", "allaprima", "serve", "--port", "0", "--data-dir", data_dir]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*map(str, command), *map(str, arguments)],
                cwd=data_dir.parent,
                env=environment(**settings),
                stdout=log,
                stderr=log,
            )
        try:
            self.url = until(self._address, "the greeting")
            until(self._is_ready, "the models")
        except BaseException:
            self.kill()
            raise

    @property
    def output(self) -> str:
        """The output so far, of stdout and stderr."""
        return self._log.read_text()

    @property
    def keys(self) -> list[str]:
        """The keys that the server printed."""
        return _KEY.findall(self.output)

    @property
    def key(self) -> str:
        """The only key that the server printed."""
        [key] = self.keys
        return key

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return int(self.url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def _address(self) -> str | None:
        found = _GREETING.search(self.output)
        assert self.is_running, self.output
        return found[1] if found else None

    def _is_ready(self) -> bool | None:
        assert self.is_running, self.output
        # The server accepts connections before it prints its address, so this request must not fail.
        return _CLIENT.get(f"{self.url}/ready").status_code == 200 or None

    def post(self, key: str, **body: Any) -> httpx2.Response:
        """Send a request for images."""
        headers = {"authorization": f"Bearer {key}"}
        return _CLIENT.post(f"{self.url}/v1/images/generations", headers=headers, json=body)

    def query(self, statement: str) -> list[Any]:
        """Query the server's database, read-only."""
        return query(self.data_dir, statement)

    def stop(self, *, twice: bool = False) -> int:
        """Stop the server by one SIGTERM, or by two; return the exit status."""
        self._process.send_signal(signal.SIGTERM)
        if twice:
            # The kernel merges pending signals of one kind, so the server must have handled the first.
            until(self._refuses_connections, "the server's stop")
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(LIMIT_S)

    def _refuses_connections(self) -> bool | None:
        try:
            socket.create_connection(("127.0.0.1", self.port), LIMIT_S).close()
        except ConnectionRefusedError:
            return True
        return None

    def kill(self) -> None:
        """Kill the server by SIGKILL."""
        self._process.kill()
        self._process.wait(LIMIT_S)


def query(data_dir: Path, statement: str) -> list[Any]:
    """Query a data folder's database, read-only."""
    with closing(sqlite3.connect(f"file:{data_dir / 'allaprima.db'}?mode=ro", uri=True, timeout=LIMIT_S)) as connection:
        return connection.execute(statement).fetchall()
