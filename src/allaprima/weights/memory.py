"""How much memory a model may take here."""

from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")


def available_bytes(device: str) -> int | None:
    """Return the bytes that could be taken now without swapping; None where the system does not tell.

    device: "cpu" or "cuda".
    """
    if device != "cpu":
        free, _total = torch.cuda.mem_get_info()
        return int(free)
    if not _MEMINFO.exists():
        return None
    for line in _MEMINFO.read_text("ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
