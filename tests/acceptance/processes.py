"""Real `allaprima` processes: commands that end, and servers on free ports with data folders of their own."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import httpx2

T = TypeVar("T")

#: Longest wait for a start, a stop, a command or a picture, in seconds. A busy machine takes many times an idle one's.
LIMIT_S = 240

_GREETING = re.compile(r"^allaprima serves at (http://\S+)", re.MULTILINE)
_KEY = re.compile(r"\bap_[0-9A-Za-z]{36}\b")


def environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without any setting of allaprima's, and with `extra`."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("ALLAPRIMA_")} | extra


def allaprima(*arguments: object, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end in a folder."""
    command = [sys.executable, "-m", "allaprima", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def until(found: Callable[[], T | None], what: str, *, every_s: float = 0.05) -> T:
    """Ask again and again until there is an answer; fail, saying what was waited for, when it takes too long."""
    deadline = time.monotonic() + LIMIT_S
    while (answer := found()) is None:
        assert time.monotonic() < deadline, f"waited {LIMIT_S} s for {what}"
        time.sleep(every_s)
    return answer


class Server:
    """A running `allaprima serve` on a free port. What it says goes into a file beside its data folder."""

    def __init__(self, data_dir: Path, *arguments: object, **settings: str) -> None:
        """Start and wait until it is ready. settings: environment variables."""
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
    def words(self) -> str:
        """What it said so far, on stdout and stderr."""
        return self._log.read_text()

    @property
    def keys(self) -> list[str]:
        """The keys that it said."""
        return _KEY.findall(self.words)

    @property
    def key(self) -> str:
        """The one key that it said."""
        [key] = self.keys
        return key

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def _address(self) -> str | None:
        found = _GREETING.search(self.words)
        assert self.is_running, self.words
        return found[1] if found else None

    def _is_ready(self) -> bool | None:
        assert self.is_running, self.words
        # The greeting is a promise: nobody who read it is refused.
        return httpx2.get(f"{self.url}/ready", timeout=LIMIT_S).status_code == 200 or None

    def post(self, key: str, **body: Any) -> httpx2.Response:
        """Send a request for pictures."""
        headers = {"authorization": f"Bearer {key}"}
        return httpx2.post(f"{self.url}/v1/images/generations", headers=headers, json=body, timeout=LIMIT_S)

    def query(self, statement: str) -> list[Any]:
        """Read from its database, as an onlooker."""
        return query(self.data_dir, statement)

    def stop(self, signals: int = 1) -> int:
        """End it as an operator does, who may ask more than once; return its exit status."""
        for _ in range(signals):
            self._process.send_signal(signal.SIGTERM)
            # Signals of one kind that come at once count as one.
            time.sleep(0.2)
        return self._process.wait(LIMIT_S)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._process.kill()
        self._process.wait(LIMIT_S)


def query(data_dir: Path, statement: str) -> list[Any]:
    """Read from a data folder's database without ever writing to it."""
    with closing(sqlite3.connect(f"file:{data_dir / 'allaprima.db'}?mode=ro", uri=True, timeout=LIMIT_S)) as connection:
        return connection.execute(statement).fetchall()
