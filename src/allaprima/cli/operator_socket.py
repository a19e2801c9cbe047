"""The operator's Unix socket of a data folder: a server listens on it, and other commands connect to it.

The socket is in the data folder. If the path is too long or the file system has no sockets, the socket is in a private
folder under `$XDG_RUNTIME_DIR` or the temporary folder instead. The file `operator.address` in the data folder then
contains its path.
"""

import errno
import hashlib
import logging
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from allaprima.errors import StoreUnreachable

logger = logging.getLogger(__name__)

SOCKET_FILE = "operator.sock"
#: Contains the path of a socket outside the data folder.
ADDRESS_FILE = "operator.address"
BACKLOG = 128
#: Longest content of an address file, in characters.
MAX_ADDRESS = 4096

#: Binds a socket to a path. Raises `OSError`.
Bind = Callable[[socket.socket, str], None]


@contextmanager
def operator_listener(
    data_dir: Path, bind: Bind = socket.socket.bind, parents: Iterable[Path] | None = None
) -> Iterator[socket.socket | None]:
    """Listen on the operator's socket of a data folder until the context exits; None if no socket can be bound.

    Only this user can connect. The caller must hold the data folder's lock, because the socket of a killed server is
    replaced. parents: folders in which a private folder may be created, best first.
    """
    address_file, listener, failures = data_dir / ADDRESS_FILE, None, []
    _remove_file(address_file)
    with ExitStack() as stack:
        for path in _candidates(data_dir, default_parents() if parents is None else parents):
            is_elsewhere = path.parent != data_dir.resolve()
            try:
                listener = stack.enter_context(_listening(path, address_file if is_elsewhere else None, bind))
                break
            except OSError as exc:
                failures.append(f"{path}: {exc.strerror or exc}")
        if failures:
            outcome = "could not be bound" if listener is None else f"is {path}"
            logger.info("the operator's socket %s (%s)", outcome, "; ".join(failures))
        yield listener


@contextmanager
def shared_operator_listener(data_dir: Path) -> Iterator[socket.socket | None]:
    """Listen as `operator_listener` does, for a folder that several servers of one database may use at once.

    The first of them has the socket; None for the others, and for a folder that can't be created.
    """
    try:
        data_dir.mkdir(0o700, parents=True, exist_ok=True)
        is_taken = is_listening(find_socket(data_dir))
    except (OSError, StoreUnreachable) as exc:
        logger.info("the operator's socket could not be bound: %s", exc)
        is_taken = True
    with nullcontext() if is_taken else operator_listener(data_dir) as listener:
        yield listener


def is_listening(path: Path) -> bool:
    """Whether a server listens on the socket at a path."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


@contextmanager
def _listening(path: Path, address_file: Path | None, bind: Bind) -> Iterator[socket.socket]:
    """Listen at a path. address_file: the file for its path, if it is outside the data folder. Raises `OSError`."""
    with ExitStack() as stack:
        if address_file is not None:
            _make_private(path.parent)
            stack.callback(_remove_folder, path.parent)
        listener = stack.enter_context(_listen(path, bind))
        stack.callback(_remove_file, path)
        if address_file is not None:
            _write_address(address_file, path)
            stack.callback(_remove_file, address_file)
        yield listener


def find_socket(data_dir: Path) -> Path:
    """Return the path of the socket on which a running server of a data folder listens.

    Raises `StoreUnreachable` if the path is in a folder to which other users have access.
    """
    usual = data_dir.resolve() / SOCKET_FILE
    try:
        with (data_dir / ADDRESS_FILE).open(encoding="utf-8", errors="surrogateescape") as file:
            path = Path(file.read(MAX_ADDRESS).strip())
    except OSError:
        # The usual case: the socket is in the data folder.
        return usual
    if path.is_absolute() and not os.path.lexists(path.parent):
        # A killed server left this file; the next server replaces it.
        return usual
    if not (path.is_absolute() and is_private(path.parent)):
        raise StoreUnreachable(
            f"{data_dir / ADDRESS_FILE} contains the socket path {path}, whose folder is not private to this user; run "
            "this command as the user that runs the server"
        )
    return path


def default_parents() -> list[Path]:
    """Return the folders in which a private folder may be created, best first."""
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    parents = [runtime] if runtime.is_absolute() else []
    # The path of TMPDIR may be too long for a socket.
    return list(dict.fromkeys([*parents, Path(tempfile.gettempdir()), Path("/tmp")]))  # noqa: S108 - the folder in it is checked


def is_private(folder: Path) -> bool:
    """Whether a path is a folder (not a link) that belongs to this user and that no other user can enter."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077


def _candidates(data_dir: Path, parents: Iterable[Path]) -> Iterator[Path]:
    folder = data_dir.resolve()
    yield folder / SOCKET_FILE
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    for parent in parents:
        yield parent / f"allaprima-{os.geteuid()}-{digest}" / SOCKET_FILE


def _make_private(folder: Path) -> None:
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not is_private(folder):
        raise PermissionError(errno.EPERM, "its folder does not belong to this user alone")


def _listen(path: Path, bind: Bind) -> socket.socket:
    _remove_stale_socket(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        bind(listener, str(path))
        # Clients can connect only after `listen`, so the socket is private before the first connection.
        _make_file_private(path)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        _remove_file(path)
        raise
    return listener


def _remove_stale_socket(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "the path exists and is not a socket")
    path.unlink()


def _make_file_private(path: Path) -> None:
    path.chmod(0o600)
    if stat.S_IMODE(path.lstat().st_mode) & 0o077:
        raise PermissionError(errno.EPERM, "its file can't be made private")


def _write_address(file: Path, path: Path) -> None:
    draft = file.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(os.fsencode(path) + b"\n")
    draft.replace(file)


def _remove_folder(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _remove_file(path: Path) -> None:
    # Deletion fails for a folder of this name and in a read-only folder; neither is an error here.
    with suppress(OSError):
        path.unlink()
