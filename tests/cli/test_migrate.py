"""`allaprima migrate` on a data folder and on PostgreSQL, and the option `--database-url`."""

from pathlib import Path

import pytest

from allaprima.store.data_folder import DATABASE_FILE
from allaprima.store.migrations import HEAD
from tests.cli.conftest import Run
from tests.store.postgres_server import server
from tests.store.test_migrations import build

WITH_PASSWORD = "postgresql://me:hunter2@127.0.0.1:1/db"


def test_old_data_folder_is_upgraded_once(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    build(folder / DATABASE_FILE, "0005_starred_images")
    place = f"the database {folder / DATABASE_FILE}"

    done, again = (run("migrate", "--data-dir", folder) for _ in range(2))

    assert (done.exit_code, done.stderr) == (0, f"{place} had the schema 0005_starred_images, and has {HEAD} now\n")
    assert (again.exit_code, again.stderr) == (0, f"{place} has the newest schema, {HEAD}, already\n")


def test_missing_data_folder_is_refused_and_not_created(run: Run, tmp_path: Path) -> None:
    done = run("migrate", "--data-dir", tmp_path / "nowhere")

    assert done.exit_code == 2
    assert f"there is no data folder in {tmp_path / 'nowhere'}" in done.stderr
    assert not (tmp_path / "nowhere").exists()


def test_empty_postgresql_database_gets_the_newest_schema(run: Run, tmp_path: Path) -> None:
    url = server().create("migrated-by-command")
    place = f"the database {url.rpartition('@')[2]}"

    done, again = (run("migrate", "--database-url", url) for _ in range(2))

    assert (done.exit_code, done.stderr) == (0, f"{place} was empty, and has the schema {HEAD} now\n")
    assert (again.exit_code, again.stderr) == (0, f"{place} has the newest schema, {HEAD}, already\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ("serve",),
        ("migrate",),
        ("doctor",),
        ("keys", "create"),
        ("keys", "list"),
        ("keys", "revoke", "abcd1234"),
        ("accounts", "create", "a"),
        ("accounts", "list"),
        ("accounts", "credit", "a", "1"),
        ("accounts", "erase", "a", "--yes"),
    ],
)
def test_password_in_the_option_is_refused_before_anything_is_opened(run: Run, command: tuple[str, ...]) -> None:
    done = run(*command, "--database-url", WITH_PASSWORD)

    assert done.exit_code == 2
    assert "--database-url contains a password, which every user of this machine can read" in done.stderr
    assert "set ALLAPRIMA_STORE__DATABASE_URL instead, or PGPASSWORD, or use a pass file" in done.stderr
    assert "hunter2" not in done.stderr


def test_invalid_url_in_the_option_is_refused_by_the_name_of_the_option(run: Run) -> None:
    done = run("accounts", "list", "--database-url", "mysql://host/db")

    assert done.exit_code == 2
    assert done.stderr == "error: --database-url must look like postgresql://user@host:5432/database\n"


def test_server_without_keys_is_refused_on_a_shared_database(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAPRIMA_STORE__DATABASE_URL", WITH_PASSWORD)

    done = run("serve", "--no-auth")

    assert done.exit_code == 2
    assert done.stderr.startswith("error: --no-auth can't be combined with ALLAPRIMA_STORE__DATABASE_URL, because ")
