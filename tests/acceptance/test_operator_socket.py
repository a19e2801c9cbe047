"""A real server whose data folder can't hold a Unix socket, as on some network shares."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import Serve, serve
from tests.acceptance.preload import build_library
from tests.acceptance.processes import allaprima

__all__ = ["serve"]

#: Makes `bind` of a Unix socket fail below $NO_SOCKETS_BELOW.
SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
int bind(int fd, const struct sockaddr *address, socklen_t length) {
  int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");
  const char *folder = getenv("NO_SOCKETS_BELOW");
  if (folder && address->sa_family == AF_UNIX &&
      !strncmp(((const struct sockaddr_un *)address)->sun_path, folder, strlen(folder))) {
    errno = EOPNOTSUPP;
    return -1;
  }
  return real(fd, address, length);
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library for LD_PRELOAD that makes `bind` fail."""
    return build_library(tmp_path_factory.mktemp("preload"), SOURCE)


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A folder with a short path: a socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def preloaded(library: Path, folder: Path) -> dict[str, str]:
    return {"LD_PRELOAD": str(library), "NO_SOCKETS_BELOW": str(folder)}


def test_operator_connects_without_sockets_in_data_folder(
    serve: Serve, library: Path, tmp_path: Path, runtime: Path
) -> None:
    data_dir = tmp_path / "data"
    server = serve(data_dir, **preloaded(library, data_dir), XDG_RUNTIME_DIR=str(runtime))

    created = allaprima("keys", "create", "--data-dir", data_dir, folder=tmp_path)

    assert created.returncode == 0, created.stderr
    assert server.post(created.stdout.strip()).status_code == 400
    assert not (data_dir / "operator.sock").exists()
    assert len(list(runtime.glob("allaprima-*/operator.sock"))) == 1
    assert server.stop() == 0
    assert list(runtime.iterdir()) == []


def test_server_starts_without_operator_socket(serve: Serve, library: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    server = serve(data_dir, **preloaded(library, Path("/")))

    assert "`allaprima keys` and `allaprima accounts` do not work while it runs" in server.output
    assert server.post(server.key).status_code == 400
    assert server.stop() == 0
    assert "Traceback" not in server.output


def test_server_starts_with_folder_at_socket_path(serve: Serve, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    (data_dir / "operator.sock").mkdir(parents=True)
    server = serve(data_dir)

    created = allaprima("keys", "create", "--data-dir", data_dir, folder=tmp_path)

    assert created.returncode == 0, created.stderr
    assert server.post(created.stdout.strip()).status_code == 400
