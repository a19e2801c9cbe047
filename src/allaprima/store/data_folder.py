"""The data folder: one server at a time, and no access for other users of the machine."""

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from allaprima.errors import StoreError, StoreLocked

logger = logging.getLogger(__name__)

DATABASE_FILE = "allaprima.db"
LOCK_FILE = "allaprima.lock"
IMAGES_FOLDER = "images"
FOLDER_MODE, FILE_MODE = 0o700, 0o600
#: The files of the data folder itself. SQLite creates the two files of its log with the mode of the database.
_FILES = (DATABASE_FILE, f"{DATABASE_FILE}-wal", f"{DATABASE_FILE}-shm", LOCK_FILE)


class DataFolder:
    """A locked data folder.

    Two locks keep a second server out: the lock file, and the folder itself, whose lock holds even if the lock file is
    removed. A file system without locks of folders, such as some network shares, has the lock file alone.
    """

    def __init__(self, path: Path) -> None:
        """Lock the folder, created if missing, and remove other users' access to its files.

        Raises `StoreLocked` when another process has locked it, and `StoreError` when it can't be created or written.
        """
        self.path = path
        self._descriptor: int | None = None
        self._lock = FileLock(path / LOCK_FILE, mode=FILE_MODE)
        try:
            path.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            self._descriptor = _lock_folder(path)
            _create_private(path / DATABASE_FILE)
        except Timeout as exc:
            raise StoreLocked(f"another server uses the data folder {path}") from exc
        except StoreLocked:
            self._lock.release()
            raise
        except OSError as exc:
            self.unlock()
            reason = "it is a file, not a folder" if path.is_file() else exc.strerror
            raise StoreError(f"the data folder {path} can't be used: {reason}") from exc
        _make_private(path)

    @property
    def database(self) -> Path:
        """The database file. It exists, and may be empty."""
        return self.path / DATABASE_FILE

    def unlock(self) -> None:
        """Release both locks. The thread that locked the folder must call this."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._lock.release()


def _lock_folder(path: Path) -> int | None:
    """Return a descriptor whose lock ends when it is closed; None where folders have no locks.

    Raises `StoreLocked` when another process has the lock.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(descriptor)
        raise StoreLocked(f"another server uses the data folder {path}") from exc
    except OSError as exc:
        os.close(descriptor)
        logger.debug("the folder %s can't be locked: %s", path, exc.strerror)
        return None
    return descriptor


def _create_private(path: Path) -> None:
    """Create an empty file that no other user can read, if there is none."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE))


def _make_private(path: Path) -> None:
    """Remove other users' access to the folder and to the files in it that the server wrote.

    The content is changed only if the folder was open to others: an earlier version left it so.
    """
    try:
        if not _is_open(path):
            return
        for entry in (path, *_contents(path)):
            entry.chmod(FOLDER_MODE if entry.is_dir() else FILE_MODE)
    except OSError as exc:
        logger.warning("other users of this machine may read the data folder %s: %s", path, exc.strerror)
        return
    if _is_open(path):
        logger.warning(
            "other users of this machine may read the data folder %s: its file system has no permissions", path
        )
    else:
        logger.warning("the data folder %s was readable by other users of this machine; it is private now", path)


def _is_open(path: Path) -> bool:
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _contents(path: Path) -> Iterator[Path]:
    yield from (file for name in _FILES if (file := path / name).is_file() and not file.is_symlink())
    for folder, folders, files in os.walk(path / IMAGES_FOLDER):
        yield from (path for name in ("", *folders, *files) if not (path := Path(folder) / name).is_symlink())
