"""Real `allaprima` processes in a pseudo-terminal."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.acceptance.processes import environment
from tests.waiting import LIMIT_S

#: Sequences that colour text and move the cursor.
_SEQUENCE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>()][0-9A-Z]?|\][^\x07]*\x07)")
#: Makes the terminal the controlling one, so that Ctrl-C reaches the process, and becomes the command.
_START = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class Terminal:
    """A command in a terminal. What it writes to stdout and stderr is one text."""

    def __init__(self, *arguments: object, folder: Path, columns: int = 80, **settings: str) -> None:
        """Start the command. settings: environment variables."""
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        variables = environment(TERM="xterm-256color", **settings)
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            variables.pop(name, None)
        command = [sys.executable, "-c", _START, sys.executable, "-m", "allaprima", *map(str, arguments)]
        self._process = subprocess.Popen(
            command, cwd=folder, env=variables, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(LIMIT_S)
        os.close(self._master)

    @property
    def text(self) -> str:
        """What the command wrote so far, without colours and movements of the cursor."""
        return _SEQUENCE.sub("", self._received.decode("utf-8", "replace")).replace("\r\n", "\n")

    def press(self, keys: str) -> None:
        """Type into the terminal, such as "\\x03" for Ctrl-C."""
        os.write(self._master, keys.encode())

    def until(self, text: str) -> str:
        """Wait until the command has written a text, and return all that it wrote."""
        deadline = time.monotonic() + LIMIT_S
        while text not in self.text:
            assert self._process.poll() is None or self._receive(), f"the command ended:\n{self.text}"
            assert time.monotonic() < deadline, f"waited {LIMIT_S} s for {text!r} in:\n{self.text}"
            if not self._receive():
                time.sleep(0.01)
        return self.text

    def finish(self) -> int:
        """Wait for the end, and return the exit status."""
        deadline = time.monotonic() + LIMIT_S
        while self._process.poll() is None:
            # A process that writes to a full terminal would wait.
            self._receive()
            assert time.monotonic() < deadline, f"waited {LIMIT_S} s for the end of:\n{self.text}"
            time.sleep(0.01)
        while self._receive():
            pass
        return self._process.returncode

    def _receive(self) -> bool:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # nothing to read, or no process has the terminal open
            return False
        self._received += data
        return bool(data)
