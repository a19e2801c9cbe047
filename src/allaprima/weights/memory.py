"""Measures the free memory of the machine, its container, or the GPU."""

from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
#: Files of cgroup v2 with a container's memory limit, its memory use, and the use by kind.
_LIMIT, _USED, _STAT = (Path("/sys/fs/cgroup") / f"memory.{name}" for name in ("max", "current", "stat"))


def available_bytes(device: str) -> int | None:
    """Return the number of bytes that a process can allocate now without swapping.

    device: "cpu" or "cuda". Returns None if the system does not report the number.
    """
    if device != "cpu":
        free, _total = torch.cuda.mem_get_info()
        return int(free)
    limits = [_machine_bytes(), _container_bytes()]
    return min((free for free in limits if free is not None), default=None)


def _machine_bytes() -> int | None:
    if not _MEMINFO.exists():
        return None
    lines = dict(line.split(":", 1) for line in _MEMINFO.read_text("ascii").splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None


def _container_bytes() -> int | None:
    if not (_LIMIT.exists() and _USED.exists()):
        return None
    limit = _LIMIT.read_text("ascii").strip()
    if limit == "max":
        return None
    # The kernel counts the page cache as used, but reclaims it when a process needs the memory.
    stat = dict(line.split() for line in _STAT.read_text("ascii").splitlines()) if _STAT.exists() else {}
    cached = int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0))
    return max(0, int(limit) - int(_USED.read_text("ascii")) + cached)
