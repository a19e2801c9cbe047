"""The mark of a data folder that was moved to another database: no server may change both.

The mark is a file, `MOVED`, whose one line says where the data is now. The operator removes it to undo the move.
"""

from pathlib import Path

from allaprima.errors import StoreError
from allaprima.store.secret import write_whole

MOVED_FILE = "MOVED"


def mark_moved(folder: Path, place: str) -> None:
    """Mark a folder as moved, durably. place: where the data is, without a password. Raises `StoreError`."""
    path = folder / MOVED_FILE
    try:
        write_whole(path, f"{place}\n".encode())
    except OSError as exc:
        raise StoreError(f"{path} can't be written: {exc.strerror}") from exc


def require_not_moved(folder: Path) -> None:
    """Raise `StoreError`, which says where the data is and how to undo the move, for a folder that was moved."""
    path = folder / MOVED_FILE
    try:
        place = " ".join(path.read_text(errors="replace").split())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as exc:
        raise StoreError(f"{path} can't be read: {exc.strerror}") from exc
    raise StoreError(
        f"the data folder {folder} was moved to {place or 'another database'}; serve that with "
        f"ALLAPRIMA_STORE__DATABASE_URL, or remove the file {path} to use the folder's own database again, which lacks "
        "all later changes"
    )
