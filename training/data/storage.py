"""Files of tensors in the work folder."""

from pathlib import Path

import torch


def write_atomically(state: object, path: Path) -> None:
    """Write a state that `torch.load` can read. If the write is interrupted, the previous file remains."""
    draft = path.with_suffix(".tmp")
    torch.save(state, draft)
    draft.replace(path)
