"""A PostgreSQL server of the tests' own: a cluster in a temporary folder, its port and its socket folder.

Debian's packages install the programs below /usr/lib/postgresql. The server refuses to run as root, so it runs as the
user `nobody` then. Its commits wait for the disk, as in production.
"""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import psycopg
import pytest

UNPRIVILEGED = 65534
START_S = 60.0


class PostgresServer:
    """A running server with one superuser, `allaprima`, and no password."""

    def __init__(self, **settings: str) -> None:
        """Create a cluster and start it. settings: of the server."""
        self._settings = settings
        self._folder = Path(tempfile.mkdtemp(prefix="allaprima-postgres-"))
        if os.geteuid() == 0:
            os.chown(self._folder, UNPRIVILEGED, UNPRIVILEGED)
        self._data = self._folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        options = ["--auth=trust", "--locale=C.UTF-8", "--username=allaprima", "--no-instructions"]
        command = self._command("initdb", *options, "-D", str(self._data))
        subprocess.run(command, cwd=self._folder, stdout=subprocess.DEVNULL, check=True)
        self.start()

    def _command(self, program: str, *arguments: str) -> list[str]:
        as_user = ["setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups"]
        return [*(as_user if os.geteuid() == 0 else []), str(_programs() / program), *arguments]

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": self._folder, "max_connections": 100}
        options |= self._settings
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command = self._command("postgres", "-D", str(self._data), "-p", str(self.port), *arguments)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        end = time.monotonic() + START_S
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self._folder / "log").read_text()
                assert time.monotonic() < end
                time.sleep(0.05)
            else:
                return

    def add_role(self, name: str, password: str | None = None) -> None:
        """Create a role that may log in; with a password, the server asks for it."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password or ''}'")
            if password:
                rules = self._data / "pg_hba.conf"
                rules.write_text(f"host all {name} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
                connection.execute("SELECT pg_reload_conf()")

    def restart_at_once(self) -> None:
        """Stop the server without a checkpoint, as a power failure does, and start it."""
        self.stop_at_once()
        self.start()

    def stop_at_once(self) -> None:
        """Stop the server without a checkpoint."""
        self._stop(signal.SIGQUIT)

    def signal_backends(self, application: str, how: signal.Signals) -> list[int]:
        """Send a signal to the server's processes of all connections of an application; return their ids."""
        wanted = "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
        with psycopg.connect(self.url("postgres")) as connection:
            found = [pid for (pid,) in connection.execute(wanted, [application])]
        signalled = []
        for pid in found:
            # A process of a closed connection may be ending.
            with suppress(ProcessLookupError):
                os.kill(pid, how)
                signalled.append(pid)
        return signalled

    def _stop(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        self._process.wait(START_S)

    def close(self) -> None:
        """Stop the server, if it runs, and remove its cluster."""
        if self._process.poll() is None:
            self._stop(signal.SIGINT)
        shutil.rmtree(self._folder)

    def url(self, database: str, user: str = "allaprima") -> str:
        """Return the URL of a database. user: may be followed by a colon and a password."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Create an empty database; return its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"')
        return self.url(database)


@cache
def _programs() -> Path:
    """Return the folder of the newest installed version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found and os.environ.get("CI") != "true":
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    assert found, "PostgreSQL is not installed: apt-get install postgresql"
    return found[-1].parent


@cache
def server() -> PostgresServer:
    """Return the server of this process, started at the first call and stopped when the process ends."""
    started = PostgresServer()
    atexit.register(started.close)
    return started
