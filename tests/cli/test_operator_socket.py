"""The path of the operator's socket: in the data folder, else in a private folder named by an address file."""

import errno
import os
import socket
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from allaprima.cli.operator_socket import ADDRESS_FILE, SOCKET_FILE, Bind, find_socket, operator_listener
from allaprima.errors import StoreUnreachable


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path: the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def data(short: Path) -> Path:
    folder = short / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def runtime(short: Path) -> Path:
    folder = short / "run"
    folder.mkdir()
    return folder


def share_without_sockets(*folders: Path, code: int = errno.EOPNOTSUPP) -> Bind:
    """Return a `bind` that fails below some folders, as on file systems without sockets."""

    def bind(listener: socket.socket, path: str) -> None:
        if any(Path(path).is_relative_to(folder) for folder in folders):
            raise OSError(code, os.strerror(code))
        listener.bind(path)

    return bind


def is_reachable(data_dir: Path) -> bool:
    """Whether a client that looks for the socket of a data folder can connect."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(find_socket(data_dir)))
        except OSError:
            return False
    return True


def test_socket_is_for_owner_only_and_removed_at_end(data: Path) -> None:
    with operator_listener(data) as listener:
        assert listener is not None
        assert find_socket(data) == data / SOCKET_FILE
        assert stat.S_IMODE((data / SOCKET_FILE).stat().st_mode) == 0o600
        assert is_reachable(data)

    assert list(data.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL])
def test_socket_moves_to_private_folder_if_needed(data: Path, runtime: Path, code: int) -> None:
    with operator_listener(data, share_without_sockets(data, code=code), [runtime]) as listener:
        assert listener is not None
        path = find_socket(data)
        assert path.parent.parent == runtime
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE((data / ADDRESS_FILE).stat().st_mode) == 0o600
        assert is_reachable(data)

    assert [*data.iterdir(), *runtime.iterdir()] == []


def test_long_socket_path_is_replaced(short: Path, runtime: Path) -> None:
    data = short / ("a" * 60) / ("b" * 60)
    data.mkdir(parents=True)

    with operator_listener(data, parents=[short / ("c" * 100), runtime]) as listener:
        assert listener is not None
        assert find_socket(data).parent.parent == runtime
        assert is_reachable(data)


def test_data_folders_have_different_private_folders(short: Path, runtime: Path) -> None:
    folders = [short / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    bind = share_without_sockets(*folders)

    with operator_listener(folders[0], bind, [runtime]), operator_listener(folders[1], bind, [runtime]):
        assert len({find_socket(folder) for folder in folders}) == 2
        assert all(map(is_reachable, folders))


def occupied(runtime: Path, data: Path, how: str) -> Path:
    """Occupy the private folder's name as another user could; return it."""
    with operator_listener(data, share_without_sockets(data), [runtime]):
        folder = find_socket(data).parent
    if how == "open":
        folder.mkdir()
        folder.chmod(0o777)
    elif how == "link":
        target = runtime / "target"
        target.mkdir(mode=0o700)
        folder.symlink_to(target)
    else:
        folder.write_text("a file")
    return folder


@pytest.mark.parametrize("how", ["open", "link", "file"])
def test_occupied_private_folder_is_not_used(data: Path, runtime: Path, short: Path, how: str) -> None:
    folder = occupied(runtime, data, how)
    second = short / "second"
    second.mkdir()

    with operator_listener(data, share_without_sockets(data), [runtime, second]) as listener:
        assert listener is not None
        assert find_socket(data).parent.parent == second
        assert is_reachable(data)

    assert os.path.lexists(folder)
    assert not folder.is_dir() or list(folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder to another user")
def test_folder_of_other_user_is_not_used(data: Path, runtime: Path) -> None:
    with operator_listener(data, share_without_sockets(data), [runtime]):
        folder = find_socket(data).parent
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)

    with operator_listener(data, share_without_sockets(data), [runtime]) as listener:
        assert listener is None


@pytest.mark.parametrize("parents", [[], ["run"], ["nowhere"]], ids=str)
def test_socket_is_omitted_without_usable_folder(data: Path, short: Path, parents: Iterable[str]) -> None:
    with operator_listener(data, share_without_sockets(short), [short / name for name in parents]) as listener:
        assert listener is None
        assert not is_reachable(data)

    assert list(data.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_other_file_at_socket_path_is_kept(data: Path, runtime: Path, kind: str) -> None:
    path = data / SOCKET_FILE
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("a file")
    else:
        path.symlink_to("elsewhere")

    with operator_listener(data, parents=[runtime]) as listener:
        assert listener is not None
        assert is_reachable(data)

    assert [found.name for found in data.iterdir()] == [SOCKET_FILE]


def test_folder_at_address_file_path_is_kept(data: Path, runtime: Path) -> None:
    (data / ADDRESS_FILE).mkdir()

    with operator_listener(data, parents=[runtime]) as listener:
        assert listener is not None
        assert is_reachable(data)
    with operator_listener(data, share_without_sockets(data), [runtime]) as listener:
        assert listener is None

    assert list(runtime.iterdir()) == []


def test_socket_and_address_of_killed_server_are_replaced(data: Path, runtime: Path) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(data / SOCKET_FILE))
    (data / ADDRESS_FILE).write_text("/nowhere/operator.sock\n")

    with operator_listener(data) as listener:
        assert listener is not None
        assert is_reachable(data)


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o710])
def test_client_refuses_folder_open_to_others(data: Path, short: Path, mode: int) -> None:
    folder = short / "open"
    folder.mkdir()
    folder.chmod(mode)
    (data / ADDRESS_FILE).write_text(f"{folder / SOCKET_FILE}\n")

    with pytest.raises(StoreUnreachable, match="is not private to this user"):
        find_socket(data)


def test_address_in_missing_folder_is_ignored(data: Path) -> None:
    (data / ADDRESS_FILE).write_text("/nowhere/operator.sock")

    assert find_socket(data) == data.resolve() / SOCKET_FILE


@pytest.mark.parametrize("address", ["", "operator.sock", "../data/operator.sock"])
def test_client_refuses_address_outside_private_folder(data: Path, address: str) -> None:
    (data / ADDRESS_FILE).write_text(address)

    with pytest.raises(StoreUnreachable):
        find_socket(data)
