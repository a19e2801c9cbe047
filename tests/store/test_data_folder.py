"""The data folder: one server at a time, and no access for other users of the machine."""

import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from allaprima.errors import StoreLocked
from allaprima.store.data_folder import DATABASE_FILE, IMAGES_FOLDER, LOCK_FILE, DataFolder
from allaprima.store.objects.local import LocalObjectStore
from allaprima.store.secret import read_secret
from allaprima.store.sqlite import open_sqlite


def modes(folder: Path) -> dict[str, int]:
    """Return the permissions of a folder and of everything in it."""
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in (folder, *folder.rglob("*"))
        if not path.is_symlink()
    }


async def test_new_data_folder_is_private_under_any_umask(tmp_path: Path) -> None:
    folder, earlier = tmp_path / "data", os.umask(0)
    try:
        database = await open_sqlite(folder)
        read_secret(folder)
        await LocalObjectStore(folder / IMAGES_FOLDER).put("image.png", b"image")
        found = modes(folder)
        await database.close()
    finally:
        os.umask(earlier)
    assert {"secret", DATABASE_FILE, LOCK_FILE, f"{IMAGES_FOLDER}/image.png"} < set(found)
    assert {name: mode for name, mode in found.items() if mode & 0o077} == {}


def test_open_data_folder_is_made_private_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, outside = tmp_path / "data", tmp_path / "outside"
    (folder / IMAGES_FOLDER).mkdir(parents=True)
    outside.write_text("another program's file")
    for name in (DATABASE_FILE, f"{IMAGES_FOLDER}/image.png", "notes.txt"):
        (folder / name).touch(0o644)
    (folder / IMAGES_FOLDER / "link.png").symlink_to(outside)
    folder.chmod(0o755)
    outside.chmod(0o644)
    DataFolder(folder).unlock()
    assert modes(folder) == {
        ".": 0o700,
        DATABASE_FILE: 0o600,
        LOCK_FILE: 0o600,
        IMAGES_FOLDER: 0o700,
        f"{IMAGES_FOLDER}/image.png": 0o600,
        "notes.txt": 0o644,
    }
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644
    assert caplog.messages == [
        f"the data folder {folder} was readable by other users of this machine; it is private now"
    ]
    caplog.clear()
    DataFolder(folder).unlock()
    assert caplog.messages == []


def test_file_system_without_permissions_gives_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    # No such file system can be mounted here: `chmod` succeeds on it and changes nothing.
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    with caplog.at_level(logging.WARNING):
        DataFolder(tmp_path).unlock()
    assert "its file system has no permissions" in caplog.text


def test_lock_holds_when_its_file_is_removed(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    (tmp_path / LOCK_FILE).unlink()
    with pytest.raises(StoreLocked, match=f"another server uses the data folder {tmp_path}"):
        DataFolder(tmp_path)
    folder.unlock()
    DataFolder(tmp_path).unlock()


def test_lock_ends_with_its_process(tmp_path: Path) -> None:
    program = (
        "from allaprima.store.data_folder import *\n"
        f"folder = DataFolder(Path({str(tmp_path)!r}))\n"
        "print('locked', flush=True)\n"
        "input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(StoreLocked):
            DataFolder(tmp_path)
        process.kill()
        process.wait()
    DataFolder(tmp_path).unlock()
