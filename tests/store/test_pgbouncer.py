"""PostgreSQL behind PgBouncer in transaction mode, where nothing that belongs to a session lasts."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from allaprima.bootstrap.hints import open_hints
from allaprima.domain.accounts import Account, ApiKey
from allaprima.domain.hints import Hint, HintKind, Reconnected
from allaprima.settings import StoreSettings
from allaprima.store.accounts import AccountRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository
from allaprima.store.keys import KeyRepository
from allaprima.store.open import open_database
from tests.clock import NOW
from tests.store.backends import open_emptied_postgres
from tests.store.factories import new_job
from tests.store.postgres_server import START_S, UNPRIVILEGED, server
from tests.store.reaping import WORKER, register

LIMIT_S = 60
#: Fewer connections to the server than clients have, so that clients take turns on them.
CONNECTIONS = 3
CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
default_pool_size = {connections}
auth_type = trust
auth_file = {folder}/users
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a running PgBouncer before the server of this process."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="allaprima-pgbouncer-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = int(free.getsockname()[1])
    text = CONFIGURATION.format(server_port=server().port, port=found, connections=CONNECTIONS, folder=folder)
    (folder / "pgbouncer.ini").write_text(text)
    (folder / "users").write_text('"allaprima" ""\n')
    folder.chmod(0o755)
    # It refuses to run as root.
    as_user = ["setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups"]
    command = [*(as_user if os.geteuid() == 0 else []), program, str(folder / "pgbouncer.ini")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_it_answers(process, found)
        yield found
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(START_S)
        shutil.rmtree(folder)


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            psycopg.connect(f"postgresql://allaprima@127.0.0.1:{port}/postgres").close()
        except psycopg.OperationalError:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        else:
            return


@pytest.fixture
async def settings(port: int, tmp_path: Path) -> StoreSettings:
    """Settings of an empty database behind PgBouncer, and of the direct way to it."""
    await (await open_emptied_postgres(tmp_path / "data")).close()
    pooled = SecretStr(f"postgresql://allaprima@127.0.0.1:{port}/store")
    direct = SecretStr(server().url("store"))
    return StoreSettings(data_dir=tmp_path, database_url=pooled, pooled=True, hints_url=direct)


async def test_concurrent_transactions_share_few_connections(settings: StoreSettings) -> None:
    database = await open_database(settings)
    await register(database)
    await AccountRepository(database).add(Account("account", "default", NOW))
    owner = ApiKey(id="key", account_id="account", name="first", prefix="abcd1234", created_at=NOW, updated_at=NOW)
    await KeyRepository(database).add(owner, "hash")
    transitions, jobs = JobTransitions(database), JobRepository(database)
    # Often enough that the driver would prepare each statement.
    admitted = await asyncio.gather(*(transitions.admit(new_job(owner), 1000) for _ in range(60)))
    leases = await asyncio.gather(*(transitions.lease(WORKER, NOW) for _ in admitted))
    assert {lease.job.id for lease in leases if lease.job} == {job.id for job in admitted}
    assert len(await jobs.progress([job.id for job in admitted])) == 60
    await database.close()


class _Received:
    """The hints that one process receives."""

    def __init__(self, hints: AsyncIterator[Hint | Reconnected]) -> None:
        self.items: list[Hint | Reconnected] = []
        self._hints = hints

    async def until(self, wanted: Hint | Reconnected) -> None:
        while wanted not in self.items:
            self.items.append(await asyncio.wait_for(anext(self._hints), LIMIT_S))


async def test_hints_need_the_direct_url(settings: StoreSettings, caplog: pytest.LogCaptureFixture) -> None:
    pooled = settings.database_url
    without_direct = settings.model_copy(update={"hints_url": None})
    wrong = settings.model_copy(update={"hints_url": pooled})
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(open_hints(one)) for one in (settings, settings, wrong)]
        sender, direct, through_pooler = [
            _Received(await stack.enter_async_context(hints.follow())) for hints in opened
        ]
        for one in (sender, direct, through_pooler):
            await one.until(Reconnected())
        assert "ALLAPRIMA_STORE__HINTS_URL" not in caplog.text
        off = await stack.enter_async_context(open_hints(without_direct))
        assert "set ALLAPRIMA_STORE__HINTS_URL to the URL of PostgreSQL itself" in caplog.text
        off.send(Hint(HintKind.ENDED, "off"))
        opened[0].send(Hint(HintKind.ENDED, "on"))
        await direct.until(Hint(HintKind.ENDED, "on"))
        assert direct.items == [Reconnected(), Hint(HintKind.ENDED, "on")]
        # What the setting prevents: notifications do not pass the pooler, and nothing reports it.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await through_pooler.until(Hint(HintKind.ENDED, "on"))
