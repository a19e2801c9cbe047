"""How much memory a model may take here."""

from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
#: A container's own limit and use, where there is one.
_LIMIT, _USED, _STAT = (Path("/sys/fs/cgroup") / f"memory.{name}" for name in ("max", "current", "stat"))


def available_bytes(device: str) -> int | None:
    """Return the bytes that could be taken now without swapping; None where the system does not tell.

    device: "cpu" or "cuda".
    """
    if device != "cpu":
        free, _total = torch.cuda.mem_get_info()
        return int(free)
    told = [_machine_bytes(), _container_bytes()]
    return min((free for free in told if free is not None), default=None)


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
    # Files that the system remembers count as used, and are forgotten when somebody needs the room.
    told = dict(line.split() for line in _STAT.read_text("ascii").splitlines()) if _STAT.exists() else {}
    cached = int(told.get("active_file", 0)) + int(told.get("inactive_file", 0))
    return max(0, int(limit) - int(_USED.read_text("ascii")) + cached)
