"""`allaprima move` from a data folder to a real PostgreSQL database and a real S3 bucket."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from obstore.store import S3Store

from allaprima.store.data_folder import DATABASE_FILE, IMAGES_FOLDER, DataFolder
from allaprima.store.moved import MOVED_FILE
from allaprima.store.postgres import migrate
from allaprima.store.schema import metadata
from tests.cli.conftest import Run
from tests.seaweed import BUCKET, REGION
from tests.store.old_folder import IMAGES, SECRET, write_old_folder
from tests.store.postgres_server import server
from tests.store.sqlite_file import ask, dump

WAIT_S = 60.0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder of an earlier version, with rows in every table and three images."""
    return write_old_folder(tmp_path / "data")


@pytest.fixture
def url() -> str:
    """The URL of an empty database."""
    return server().create(f"move-{uuid4()}")


def rows_of(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def count(url: str) -> int:
    """Return the number of rows of all tables."""
    return sum(len(rows_of(url, f"TABLE {table}")) for table in metadata.tables)


def objects_of(bucket_url: str) -> dict[str, bytes]:
    """Return the objects of a bucket by name."""
    prefix, _, query = bucket_url.removeprefix(f"s3://{BUCKET}/").partition("?")
    endpoint = query.removeprefix("endpoint=").partition("&")[0]
    store = S3Store(
        BUCKET,
        prefix=prefix,
        endpoint=endpoint,
        region=REGION,
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        client_options={"allow_http": True},
    )
    names = [meta["path"] for page in store.list() for meta in page]
    return {name: bytes(store.get(name).bytes()) for name in names}


def plain(value: object) -> object:
    """Return a value in the form that both databases have; JSON is compared as an object."""
    if isinstance(value, str) and value.startswith(("{", "[")):
        return json.loads(value)
    return value


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def moving(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run `allaprima move` in a process, which is killed at the end of the block."""
    command = [sys.executable, "-m", "allaprima", "move", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


# The copy ------------------------------------------------------------------------------------------------------------


def test_move_copies_rows_images_and_secret_and_prints_what_it_compared(
    run: Run, data: Path, url: str, bucket_url: str
) -> None:
    result = run("move", "--data-dir", data, "--database-url", url, "--bucket", bucket_url)

    assert result.exit_code == 0, result.output
    assert objects_of(bucket_url) == {f"images/{name}": image for name, image in IMAGES.items()}
    assert rows_of(url, "SELECT id, secret FROM installation") == [(1, SECRET)]
    for table in metadata.sorted_tables:
        if table.name != "installation":
            names = ", ".join(f'"{column.name}"' for column in table.columns)
            own = ask(data, f"SELECT {names} FROM {table.name} ORDER BY 1")  # noqa: S608 - names of the schema
            moved = rows_of(url, f"SELECT {names} FROM {table.name} ORDER BY 1")  # noqa: S608 - as above
            assert [tuple(map(plain, row)) for row in moved] == [tuple(map(plain, row)) for row in own]
    table = {row[0]: row[1:] for row in (line.split("\t") for line in result.stdout.splitlines())}
    assert table["accounts, sum of balance"] == ["9007199254740993", "9007199254740993", "equal"]
    assert table["jobs, rows"] == ["5", "5", "equal"]
    assert {row[2] for row in table.values()} == {"equal"}
    assert "copied jobs: 5 rows\n" in result.stderr
    assert "compared 3 images, of which 3 were copied now\n" in result.stderr


def test_moved_folder_refuses_every_command_and_says_where_it_moved_and_how_to_undo(
    run: Run, data: Path, url: str, bucket_url: str
) -> None:
    assert run("move", "--data-dir", data, "--database-url", url, "--bucket", bucket_url).exit_code == 0
    place = url.partition("@")[2]
    for command in (
        ("serve", "--port", 0),
        ("accounts", "list"),
        ("move", "--database-url", url, "--bucket", bucket_url),
    ):
        refused = run(*command, "--data-dir", data)
        assert refused.exit_code == 2
        assert f"was moved to the PostgreSQL database {place} with the images in the bucket s3://" in refused.stderr
        assert f"remove the file {data / MOVED_FILE}" in refused.stderr
    listed = run("accounts", "list", "--database-url", url)
    assert [line.split("\t")[1] for line in listed.stdout.splitlines()] == ["Caf\u00e9", "empty"]
    (data / MOVED_FILE).unlink()
    assert run("accounts", "list", "--data-dir", data).stdout == listed.stdout


def test_options_default_to_the_settings(
    run: Run, data: Path, url: str, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLAPRIMA_STORE__DATABASE_URL", url.replace("allaprima@", "allaprima:a-password@"))
    monkeypatch.setenv("ALLAPRIMA_STORE__BUCKET", bucket_url)
    result = run("move", "--data-dir", data)
    assert result.exit_code == 0
    assert len(objects_of(bucket_url)) == len(IMAGES)
    assert "a-password" not in result.output + (data / MOVED_FILE).read_text()


def test_without_bucket_images_stay_in_the_folder_and_the_command_says_so(run: Run, data: Path, url: str) -> None:
    result = run("move", "--data-dir", data, "--database-url", url)
    assert result.exit_code == 0
    assert f"the images stay in the folder {data / IMAGES_FOLDER}: every server needs" in result.stderr
    assert {path.name: path.read_bytes() for path in (data / IMAGES_FOLDER).iterdir()} == IMAGES


def test_text_that_postgresql_cannot_store_is_changed_and_named(run: Run, data: Path, url: str) -> None:
    with closing(sqlite3.connect(data / DATABASE_FILE)) as raw:
        raw.execute("UPDATE jobs SET error_message = CAST(x'610062' AS TEXT) WHERE id = 'job-failed'")
        raw.execute("UPDATE accounts SET name = CAST(x'61eda08062' AS TEXT) WHERE id = 'other'")
        raw.execute("UPDATE jobs SET request = '{broken' WHERE id = 'job-cancelled'")
        raw.execute("UPDATE jobs SET request = '{\"prompt\": \"\\ud800\\u0000\"}' WHERE id = 'job-failed'")
        raw.commit()
    result = run("move", "--data-dir", data, "--database-url", url)
    assert result.exit_code == 0, result.output
    for change in ("jobs.error_message: NUL", "accounts.name: damaged UTF-8", "jobs.request: not JSON"):
        assert f"changed 1 values that PostgreSQL can't store as they are: {change}\n" in result.stderr
    assert rows_of(url, "SELECT error_message, request::text FROM jobs WHERE id = 'job-failed'") == [
        ("a\ufffdb", '{"prompt": "\\ud800\\u0000"}')
    ]
    assert rows_of(url, "SELECT request::text FROM jobs WHERE id = 'job-cancelled'") == [('"{broken"',)]


# Interruptions -------------------------------------------------------------------------------------------------------


def test_move_that_was_killed_among_the_images_is_repeated(run: Run, data: Path, url: str, bucket_url: str) -> None:
    blocked = data / IMAGES_FOLDER / list(IMAGES)[-1]
    blocked.unlink()
    # A read of it waits for a writer.
    os.mkfifo(blocked)
    arguments = ("--data-dir", data, "--database-url", url, "--bucket", bucket_url)
    with moving(*arguments):
        until(lambda: len(objects_of(bucket_url)) == len(IMAGES) - 1)
    assert count(url) == 0
    blocked.unlink()
    blocked.write_bytes(IMAGES[blocked.name])

    result = run("move", *arguments)

    assert result.exit_code == 0, result.output
    assert "compared 3 images, of which 1 were copied now\n" in result.stderr
    assert objects_of(bucket_url) == {f"images/{name}": image for name, image in IMAGES.items()}


def test_move_that_was_killed_among_the_rows_is_repeated(run: Run, data: Path, url: str) -> None:
    migrate(url)
    before = dump(data)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(600); RETURN NEW; END'"
        )
        connection.execute("CREATE TRIGGER wait BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION wait()")
        sleeping = "FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        with moving("--data-dir", data, "--database-url", url):
            until(lambda: connection.execute(f"SELECT pid {sleeping}".encode()).fetchall())
        connection.execute(f"SELECT pg_terminate_backend(pid) {sleeping}".encode())
        connection.execute("DROP FUNCTION wait CASCADE")
    assert count(url) == 0
    assert not (data / MOVED_FILE).exists()

    assert run("move", "--data-dir", data, "--database-url", url).exit_code == 0
    (data / MOVED_FILE).unlink()
    repeated = run("move", "--data-dir", data, "--database-url", url)

    assert (repeated.exit_code, "the rows were copied before\n" in repeated.stderr) == (0, True)
    assert (data / MOVED_FILE).exists()
    after = dump(data)
    assert [line for line in before.splitlines() if '"ledger"' in line] == [
        line for line in after.splitlines() if '"ledger"' in line
    ]


# Refusals ------------------------------------------------------------------------------------------------------------


def test_target_that_changed_since_is_refused_by_its_row(run: Run, data: Path, url: str) -> None:
    assert run("move", "--data-dir", data, "--database-url", url).exit_code == 0
    (data / MOVED_FILE).unlink()
    changes = {
        "UPDATE accounts SET balance = 1 WHERE id = 'other'": "other values in the row other of accounts",
        "INSERT INTO accounts VALUES ('new', 'n', 1, 0, 0)": "the row new of accounts, which the folder lacks",
        "DELETE FROM cached_results": "lacks rows of cached_results",
        "INSERT INTO workers VALUES ('id', 'host 7', '1', 1, 1, 1)": "its table workers has the server host 7",
        "UPDATE installation SET secret = '\\x00'": "the signing secret of another installation",
    }
    with psycopg.connect(url) as connection:
        for statement, problem in changes.items():
            connection.execute(statement.encode())
            connection.commit()
            refused = run("move", "--data-dir", data, "--database-url", url)
            assert (refused.exit_code, problem in refused.stderr) == (2, True), refused.stderr
            assert "use an empty database" in refused.stderr
            # The next change must be the first that is found.
            connection.execute("UPDATE accounts SET balance = 0 WHERE id = 'other'")
            connection.execute("DELETE FROM accounts WHERE id = 'new'")
            if "cached" in statement:
                connection.execute("INSERT INTO cached_results VALUES ('account', 'fingerprint', 'job-succeeded')")
            connection.execute("DELETE FROM workers")
            connection.commit()
    assert not (data / MOVED_FILE).exists()


def test_target_of_another_program_or_schema_is_refused(run: Run, data: Path, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE theirs (id INT)")
        refused = run("move", "--data-dir", data, "--database-url", url)
        assert (refused.exit_code, "tables of another program" in refused.stderr) == (2, True)
        connection.execute("DROP TABLE theirs")
        migrate(url)
        connection.execute("UPDATE alembic_version SET version_num = '9999_newer'")
        refused = run("move", "--data-dir", data, "--database-url", url)
        assert (refused.exit_code, "9999_newer" in refused.stderr) == (2, True)
    assert ask(data, "SELECT version_num FROM alembic_version") == [("0005_starred_images",)]


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_image_that_is_missing_or_changed_is_an_error_by_name(run: Run, data: Path, url: str, damage: str) -> None:
    name = next(iter(IMAGES))
    path = data / IMAGES_FOLDER / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"other bytes")
    result = run("move", "--data-dir", data, "--database-url", url)
    assert result.exit_code == 1
    assert f"error: the image {name} " in result.stderr
    assert (count(url), (data / MOVED_FILE).exists()) == (0, False)


def test_value_that_does_not_fit_is_refused_by_its_row(run: Run, data: Path, url: str) -> None:
    with closing(sqlite3.connect(data / DATABASE_FILE)) as raw:
        raw.execute("UPDATE jobs SET attempt = 2147483648 WHERE id = 'job-failed'")
        raw.commit()
    result = run("move", "--data-dir", data, "--database-url", url)
    assert result.exit_code == 2
    assert "jobs.attempt is not a whole number of 32 bits in the row job-failed of jobs" in result.stderr
    assert count(url) == 0


def test_folder_in_use_and_folder_without_data_are_refused(run: Run, data: Path, url: str, tmp_path: Path) -> None:
    folder = DataFolder(data)
    try:
        refused = run("move", "--data-dir", data, "--database-url", url)
    finally:
        folder.unlock()
    assert (refused.exit_code, "another server uses the data folder" in refused.stderr) == (2, True)
    refused = run("move", "--data-dir", tmp_path / "typo", "--database-url", url)
    assert (refused.exit_code, "there is no data to move" in refused.stderr) == (2, True)
    assert not (tmp_path / "typo").exists()


def test_missing_url_and_password_on_the_command_line_are_refused(run: Run, data: Path) -> None:
    refused = run("move", "--data-dir", data)
    assert (refused.exit_code, "--database-url or ALLAPRIMA_STORE__DATABASE_URL" in refused.stderr) == (2, True)
    refused = run("move", "--data-dir", data, "--database-url", "postgresql://me:s3cret@db/x")
    assert (refused.exit_code, "contains a password" in refused.stderr) == (2, True)
    refused = run("move", "--data-dir", data, "--database-url", "postgresql://me@db/x", "--bucket", "s3://k:s3cret@b")
    assert (refused.exit_code, "--bucket must contain no credentials" in refused.stderr) == (2, True)
    assert "s3cret" not in refused.output
