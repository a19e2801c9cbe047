"""Files of tensors in the work folder."""

from pathlib import Path

import torch


def write_atomically(state: object, path: Path) -> None:
    """Write a state for `torch.load`; an interrupted write leaves the old file."""
    draft = path.with_suffix(".tmp")
    torch.save(state, draft)
    draft.replace(path)
