"""Free memory: of the machine or of the container, with the page cache counted as free."""

from pathlib import Path

import pytest

from allaprima.weights import memory
from allaprima.weights.memory import available_bytes

GIB = 2**30


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container limited to 8 GiB that uses 7 GiB, 4 of them page cache, on a machine with 16 GiB free."""
    (tmp_path / "meminfo").write_text(f"MemTotal: {32 * 2**20} kB\nMemAvailable: {16 * 2**20} kB\n")
    (tmp_path / "max").write_text(f"{8 * GIB}\n")
    (tmp_path / "current").write_text(f"{7 * GIB}\n")
    (tmp_path / "stat").write_text(f"anon {3 * GIB}\nfile {4 * GIB}\nactive_file {GIB}\ninactive_file {3 * GIB}\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    for name in ("limit", "used", "stat"):
        file = {"limit": "max", "used": "current"}.get(name, name)
        monkeypatch.setattr(memory, f"_{name.upper()}", tmp_path / file)
    return tmp_path


def test_page_cache_of_container_counts_as_free(container: Path) -> None:
    assert available_bytes("cpu") == 5 * GIB


def test_unreported_page_cache_counts_as_used(container: Path) -> None:
    (container / "stat").unlink()
    assert available_bytes("cpu") == GIB


def test_container_without_limit_has_free_memory_of_machine(container: Path) -> None:
    (container / "max").write_text("max\n")
    assert available_bytes("cpu") == 16 * GIB


def test_unreported_free_memory_is_unknown(container: Path) -> None:
    for name in ("meminfo", "max"):
        (container / name).unlink()
    assert available_bytes("cpu") is None
