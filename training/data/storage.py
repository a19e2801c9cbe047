"""Tensors on disk."""

from pathlib import Path

import torch


def write_whole(state: object, path: Path) -> None:
    """Write what `torch.load` reads, whole or not at all."""
    draft = path.with_suffix(".tmp")
    torch.save(state, draft)
    draft.replace(path)
