"""Free memory: of the machine or of a control group, with the page cache counted as free."""

from pathlib import Path

import pytest

from allaprima.weights import memory
from allaprima.weights.memory import available_bytes

GIB = 2**30


class Machine:
    """A machine with 16 GiB free, whose files are in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/meminfo", f"MemTotal: {32 * 2**20} kB\nMemAvailable: {16 * 2**20} kB\n")

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def group(self, path: str, limit: str | int, used: int, cached: int = 0) -> None:
        """Create a control group of version 2. limit, used, cached: in GiB."""
        folder = f"sys/fs/cgroup/{path}"
        self.write(f"{folder}/memory.max", f"{limit if limit == 'max' else int(limit) * GIB}\n")
        self.write(f"{folder}/memory.current", f"{used * GIB}\n")
        self.write(f"{folder}/memory.stat", f"anon 5\nactive_file {cached * GIB}\ninactive_file 0\n")

    def old_group(self, path: str, limit: int, used: int, cached: int = 0) -> None:
        """Create a control group of version 1. limit, used, cached: in GiB."""
        folder = f"sys/fs/cgroup/memory/{path}"
        self.write(f"{folder}/memory.limit_in_bytes", f"{limit * GIB}\n")
        self.write(f"{folder}/memory.usage_in_bytes", f"{used * GIB}\n")
        self.write(f"{folder}/memory.stat", f"active_file 0\ntotal_inactive_file {cached * GIB}\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(memory, "_ROOT", tmp_path)
    return Machine(tmp_path)


def test_page_cache_of_container_counts_as_free(machine: Machine) -> None:
    machine.group("", limit=8, used=7, cached=4)
    assert available_bytes("cpu") == 5 * GIB


def test_unreported_page_cache_counts_as_used(machine: Machine) -> None:
    machine.group("", limit=8, used=7, cached=4)
    (machine.root / "sys/fs/cgroup/memory.stat").unlink()
    assert available_bytes("cpu") == GIB


def test_container_without_limit_has_free_memory_of_machine(machine: Machine) -> None:
    machine.group("", limit="max", used=7)
    assert available_bytes("cpu") == 16 * GIB


@pytest.mark.parametrize("limits", [(4, "max", "max"), ("max", 4, 12), ("max", "max", 4), (12, 8, 4)])
def test_smallest_limit_of_nested_groups_counts(machine: Machine, limits: tuple[str | int, ...]) -> None:
    machine.write("proc/self/cgroup", "0::/system.slice/allaprima.service\n")
    for path, limit in zip(("", "system.slice", "system.slice/allaprima.service"), limits, strict=True):
        machine.group(path, limit, used=1)
    assert available_bytes("cpu") == 3 * GIB


def test_other_group_does_not_count(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/own\n")
    machine.group("own", limit=8, used=1)
    machine.group("other", limit=2, used=1)
    assert available_bytes("cpu") == 7 * GIB


def test_first_version_of_control_groups_counts(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "9:cpu,cpuacct:/x\n5:memory:/docker/abc\n1:name=systemd:/y\n")
    machine.old_group("docker/abc", limit=8, used=7, cached=4)
    assert available_bytes("cpu") == 5 * GIB


def test_group_outside_of_namespace_counts_as_mounted_root(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "5:memory:/docker/abc\n0::/../other\n")
    machine.old_group("", limit=4, used=1)
    assert available_bytes("cpu") == 3 * GIB


def test_unlimited_group_of_first_version_has_free_memory_of_machine(machine: Machine) -> None:
    machine.old_group("", limit=2**33, used=1)
    assert available_bytes("cpu") == 16 * GIB


def test_unreported_free_memory_is_unknown(machine: Machine) -> None:
    (machine.root / "proc/meminfo").unlink()
    assert available_bytes("cpu") is None
