"""The system's clock is set while the server runs or between two starts: nothing expires early."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from allaprima.domain.clock import Clocks, SteadyClock
from allaprima.errors import StoreError
from allaprima.service.jobs.events import MemoryEventBus
from allaprima.service.jobs.signal import MemoryQueueSignal
from allaprima.service.lifecycle import Lifecycle
from allaprima.service.timekeeper import DatabaseTimekeeper, Timekeeper, boot_id, elapsed
from allaprima.store.clock import ClockRecord, ClockRepository
from allaprima.store.sqlite import SqliteDatabase, open_sqlite
from tests.clock import NOW, FakeClock
from tests.waiting import eventually

DAY = 86_400
JUMPS = [3600, -3600, 400 * DAY, -400 * DAY]


class Machine:
    """A system's clock that can be set, and a monotonic one."""

    def __init__(self, database: SqliteDatabase) -> None:
        self.unix, self.monotonic = FakeClock(), FakeClock(1000.0)
        self.records = ClockRepository(database)

    def set(self, seconds: float) -> None:
        """Set the system's clock by some seconds."""
        self.unix.now += seconds

    def start(self, boot: str | None = "boot") -> tuple[SteadyClock, Timekeeper]:
        """Return the clock and the timekeeper of a new server."""
        clocks = Clocks(self.unix, self.monotonic)
        lifecycle = Lifecycle(MemoryEventBus(*clocks), MemoryQueueSignal())
        clock = SteadyClock(clocks)
        return clock, Timekeeper(self.records, clock, lifecycle, boot)


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    database = await open_sqlite(tmp_path)
    yield Machine(database)
    await database.close()


@pytest.mark.parametrize("seconds", JUMPS)
async def test_clock_follows_only_together_with_deadlines(machine: Machine, seconds: int) -> None:
    clock, timekeeper = machine.start()
    async with timekeeper.running():
        machine.set(seconds)
        assert clock() == NOW
        await timekeeper.check()
        assert (clock(), clock.shift) == (NOW + seconds, seconds)
        assert await machine.records.find() == ClockRecord("boot", NOW + seconds - 1000, seconds)


async def test_small_correction_moves_no_deadline(machine: Machine) -> None:
    clock, timekeeper = machine.start()
    async with timekeeper.running():
        machine.set(0.5)
        await timekeeper.check()
    assert (clock(), clock.shift) == (NOW + 0.5, 0)


@pytest.mark.parametrize("seconds", JUMPS)
async def test_clock_set_between_two_starts_of_one_boot_moves_deadlines(machine: Machine, seconds: int) -> None:
    async with machine.start()[1].running():
        pass
    machine.set(seconds)
    clock, timekeeper = machine.start()
    async with timekeeper.running():
        assert (clock(), clock.shift) == (NOW + seconds, seconds)


@pytest.mark.parametrize("boot", [None, "another"])
async def test_system_is_believed_after_a_boot(machine: Machine, boot: str | None) -> None:
    async with machine.start()[1].running():
        pass
    machine.set(400 * DAY)
    clock, timekeeper = machine.start(boot)
    async with timekeeper.running():
        assert (clock(), clock.shift) == (NOW + 400 * DAY, 0)


async def test_shift_survives_a_boot(machine: Machine) -> None:
    _, timekeeper = machine.start()
    async with timekeeper.running():
        machine.set(3600)
        await timekeeper.check()
    clock, timekeeper = machine.start("another")
    async with timekeeper.running():
        assert clock.shift == 3600


@pytest.mark.parametrize("seconds", JUMPS)
async def test_failing_store_is_retried(machine: Machine, seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, timekeeper = machine.start()
    async with timekeeper.running():
        machine.set(seconds)
        with monkeypatch.context() as patch:

            async def fail(*_: object) -> None:
                raise StoreError("the disk is full")

            patch.setattr(machine.records, "shift_deadlines", fail)
            with pytest.raises(StoreError):
                await timekeeper.check()
        assert (clock(), clock.shift) == (NOW, 0)
        await timekeeper.check()
        assert (clock(), clock.shift) == (NOW + seconds, seconds)


async def test_running_timekeeper_looks_at_the_clock(machine: Machine) -> None:
    clock, timekeeper = machine.start()
    async with timekeeper.running():
        machine.set(3600)
        await eventually(lambda: clock.shift == 3600)


def test_elapsed_time_only_increases() -> None:
    assert elapsed() <= elapsed()
    assert boot_id() == boot_id()


class Server:
    """The clock of a shared database, and a server whose own clock is wrong."""

    def __init__(self, ahead: float) -> None:
        self.database, self.monotonic = FakeClock(), FakeClock(1000.0)
        self.clock = SteadyClock(Clocks(FakeClock(NOW + ahead), self.monotonic))
        #: Seconds that an answer of the database takes, half of them on the way to it.
        self.round_trip_s = 0.0
        lifecycle = Lifecycle(MemoryEventBus(self.database, self.monotonic), MemoryQueueSignal())
        self.timekeeper = DatabaseTimekeeper(self, self.clock, self.monotonic, lifecycle)

    async def find(self) -> ClockRecord | None:
        return ClockRecord("another machine", 1.0, 400 * DAY)

    async def database_time(self) -> float:
        self.pass_seconds(self.round_trip_s / 2)
        time = self.database()
        self.pass_seconds(self.round_trip_s / 2)
        return time

    def pass_seconds(self, seconds: float) -> None:
        self.database.now += seconds
        self.monotonic.now += seconds


@pytest.mark.parametrize("ahead", JUMPS)
async def test_server_of_a_shared_database_has_its_time(ahead: float) -> None:
    server = Server(ahead)
    async with server.timekeeper.running():
        assert server.clock() == NOW
        server.pass_seconds(60)
        assert server.clock() == NOW + 60
        server.database.now += 5
        await server.timekeeper.check()
        assert server.clock() == NOW + 65


async def test_links_of_a_moved_data_folder_stay_valid() -> None:
    server = Server(ahead=0)
    async with server.timekeeper.running():
        assert server.clock.shift == 400 * DAY


async def test_time_of_an_answer_is_taken_into_account() -> None:
    server = Server(ahead=100)
    server.round_trip_s = 0.5
    async with server.timekeeper.running():
        assert server.clock() == pytest.approx(server.database(), abs=1e-6)


async def test_slow_answer_changes_no_clock() -> None:
    server = Server(ahead=0)
    async with server.timekeeper.running():
        server.database.now += 5
        server.round_trip_s = 3.0
        await server.timekeeper.check()
        assert server.clock() == server.database() - 5
