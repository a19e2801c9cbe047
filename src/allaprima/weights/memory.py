"""Measures the free memory of the machine, of the control groups of this process, or of the GPU."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import torch

#: Root of the files that this module reads.
_ROOT = Path("/")
#: Names in a control group: its folder below `/sys/fs/cgroup`, limit, use, and the prefix of the kinds of use. An
#: unlimited group has the limit `max` in version 2, and a number that no machine has in version 1.
_FILES = {
    "2": ("", "memory.max", "memory.current", ""),
    "1": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}


def available_bytes(device: str) -> int | None:
    """Return the number of bytes that a process can allocate now without swapping.

    device: "cpu" or "cuda". Returns None if the system does not report the number.
    """
    if device != "cpu":
        free, _total = torch.cuda.mem_get_info()
        return int(free)
    limits = [_machine_bytes(), *_group_bytes()]
    return min((free for free in limits if free is not None), default=None)


def _machine_bytes() -> int | None:
    meminfo = _ROOT / "proc" / "meminfo"
    if not meminfo.exists():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text("ascii").splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None


def _group_bytes() -> Iterator[int]:
    """Yield the free bytes of each control group that contains this process and has a limit."""
    for version, group in sorted(_groups()):
        folder, limit_name, used_name, prefix = _FILES[version]
        root = _ROOT / "sys" / "fs" / "cgroup" / folder
        # A group's limit holds for the groups in it, too.
        for path in {root / part for part in (group, *group.parents)}:
            limit, used = _number(path / limit_name), _number(path / used_name)
            if limit is not None and used is not None:
                yield max(0, limit - used + _page_cache(path / "memory.stat", prefix))


def _number(path: Path) -> int | None:
    """Return the number in a file, or None if the file is missing or says `max`."""
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None


def _page_cache(path: Path, prefix: str) -> int:
    """Return the bytes of page cache, which the kernel counts as used but reclaims when a process needs memory."""
    try:
        stat = dict(line.split() for line in path.read_text("ascii").splitlines())
    except (OSError, ValueError):
        return 0
    return sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))


def _groups() -> set[tuple[str, PurePosixPath]]:
    """Return the memory groups of this process: version and path. The mounted root is always one of them."""
    groups = {(version, PurePosixPath()) for version in _FILES}
    try:
        lines = (_ROOT / "proc" / "self" / "cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        return groups
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" or "memory" in controllers.split(","):
            # In a namespace of its own, a group outside of it starts with `/..`.
            group = PurePosixPath(path.lstrip("/"))
            groups.add(("2" if number == "0" else "1", group if ".." not in group.parts else PurePosixPath()))
    return groups
