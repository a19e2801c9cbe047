"""Migrations of the SQLite schema: an empty database and filled databases of every revision reach `schema.py`."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, create_engine, event, insert, inspect, select

import allaprima.store.migrations
from allaprima.errors import StoreError
from allaprima.store.data_folder import DATABASE_FILE
from allaprima.store.jobs import JobRepository
from allaprima.store.migrations import HEAD, LOCATION
from allaprima.store.reaper import Reaped, Reaper
from allaprima.store.schema import accounts, metadata
from allaprima.store.sqlite import migrate, open_sqlite
from tests.clock import NOW
from tests.store.old_folder import STATES, write_old_folder
from tests.store.reaping import register

#: A revision that rebuilds the accounts, to which most tables have foreign keys, and changes a column of the jobs.
REBUILD = '''
"""Rebuild the accounts and add a column to the jobs."""

import sqlalchemy as sa
from alembic import op

revision = "9999_rebuild"
down_revision = "{head}"


def upgrade():
    with op.batch_alter_table("accounts", recreate="always") as batch:
        batch.add_column(sa.Column("tier", sa.String(), nullable=False, server_default="free"))
    with op.batch_alter_table("jobs", recreate="always") as batch:
        batch.alter_column("priority", type_=sa.BigInteger())
    {more}
'''


def config_of(migrations: str) -> Config:
    config = Config()
    config.set_main_option("script_location", migrations)
    config.set_main_option("path_separator", "os")
    return config


def revisions(migrations: str = LOCATION) -> list[str]:
    """Return the revisions, oldest first."""
    found = ScriptDirectory.from_config(config_of(migrations)).walk_revisions()
    return [script.revision for script in found][::-1]


@contextmanager
def connected(path: Path) -> Iterator[Connection]:
    """Open a transaction with foreign keys on."""
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))
    # Without a sync to disk of every commit, which takes most of the time.
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def build(path: Path, revision: str, migrations: str = LOCATION) -> None:
    """Create a database at a revision."""
    with connected(path) as connection:
        config = config_of(migrations)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def describe_tables(connection: Connection) -> dict[str, Any]:
    """Return the columns, keys, constraints and indexes of all tables."""
    inspector = inspect(connection)
    return {
        table: {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"], column["default"])
                for column in inspector.get_columns(table)
            ],
            "primary": inspector.get_pk_constraint(table),
            "foreign": sorted(inspector.get_foreign_keys(table), key=str),
            "unique": sorted(inspector.get_unique_constraints(table), key=str),
            # The condition of a partial index is compared by identity, so its text is compared instead.
            "indexes": sorted(
                str(index | {"dialect_options": {k: str(v) for k, v in index.get("dialect_options", {}).items()}})
                for index in inspector.get_indexes(table)
            ),
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def tables_of(connection: Connection) -> list[Table]:
    """Return the tables of the database; a table follows those that its foreign keys refer to."""
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def fill(connection: Connection) -> None:
    """Insert a row into every table, with a value in every column."""
    for table in tables_of(connection):
        connection.execute(insert(table).values({column.name: value_of(column) for column in table.columns}))


def value_of(column: Any) -> Any:
    if column.foreign_keys:
        # The row that `fill` inserted into the referenced table.
        return value_of(next(iter(column.foreign_keys)).column)
    samples = {
        str: f"{column.table.name}.{column.name}",
        int: 7,
        float: 7.5,
        bytes: b"\0\xff",
        object: {"a": [1, None]},
    }
    return samples[column.type.python_type]


def rows(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    return {
        table.name: [dict(row._mapping) for row in connection.execute(select(table))] for table in tables_of(connection)
    }


def assert_upgrade_keeps_all(path: Path, migrations: str = LOCATION) -> None:
    """Fill a database of an older revision and upgrade it; assert that no row or value of a kept column changes."""
    with connected(path) as connection:
        fill(connection)
        before = rows(connection)
    assert all(len(found) == 1 for found in before.values())
    assert set(before) >= {"accounts", "jobs", "ledger"}
    migrate(path, migrations)
    with connected(path) as connection:
        after = rows(connection)
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").all() == [
            (revisions(migrations)[-1],)
        ]
    for table, [old] in before.items():
        [new] = after[table]
        assert {name: new[name] for name in old if name in new} == {name: old[name] for name in old if name in new}


@pytest.fixture
def extended(tmp_path: Path) -> Iterator[Path]:
    """A copy of the migrations, to which a test adds revisions."""
    folder = tmp_path / "migrations"
    [source] = allaprima.store.migrations.__path__
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def add_revision(migrations: Path, more: str = "") -> None:
    text = REBUILD.format(head=revisions()[-1], more=more)
    (migrations / "versions" / "9999_rebuild.py").write_text(text)


# The schema ---------------------------------------------------------------------------------------------------------


def test_migrations_produce_schema(tmp_path: Path) -> None:
    migrate(tmp_path / "a.db")
    with connected(tmp_path / "a.db") as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        migrated = describe_tables(connection)
    with connected(tmp_path / "b.db") as connection:
        metadata.create_all(connection)
        assert describe_tables(connection) == migrated
    assert set(migrated) == set(metadata.tables)


def test_second_migration_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    migrate(path)
    with connected(path) as connection:
        fill(connection)
        before = describe_tables(connection), rows(connection)
    migrate(path)
    with connected(path) as connection:
        assert (describe_tables(connection), rows(connection)) == before


def test_revisions_form_one_chain() -> None:
    script = ScriptDirectory.from_config(config_of(LOCATION))
    assert len(script.get_heads()) == len(script.get_bases()) == 1
    assert revisions()[0] == "0001_initial"
    assert all(revision.doc for revision in script.walk_revisions())


# Upgrades with data -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("revision", "is_extended"),
    [*((revision, False) for revision in revisions()[:-1]), *((revision, True) for revision in revisions())],
)
def test_every_revision_is_upgraded_with_its_data(
    tmp_path: Path, extended: Path, revision: str, is_extended: bool
) -> None:
    """is_extended: whether the upgrade includes a revision after the newest that rebuilds tables."""
    add_revision(extended)
    build(tmp_path / "a.db", revision)
    assert_upgrade_keeps_all(tmp_path / "a.db", str(extended) if is_extended else LOCATION)


def test_upgraded_images_have_account_key_prompt_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / DATABASE_FILE
    build(path, "0004_clock")
    with connected(path) as connection:
        fill(connection)
        tables = {table.name: table for table in tables_of(connection)}
        [job], [image] = rows(connection)["jobs"], rows(connection)["images"]
        for number, request in enumerate(({"prompt": "A Red BOAT"}, ["damaged"])):
            connection.execute(insert(tables["jobs"]).values(job | {"id": f"job {number}", "request": request}))
            values = {"id": f"image {number}", "job_id": f"job {number}", "size_bytes": 100}
            connection.execute(insert(tables["images"]).values(image | values))
    migrate(path)
    with connected(path) as connection:
        found = {row.pop("id"): row for row in rows(connection)["images"]}
        [account] = rows(connection)["accounts"]
    assert [found[f"image {number}"]["search_text"] for number in range(2)] == ["a red boat", ""]
    for row in found.values():
        assert (row["account_id"], row["key_id"], row["is_starred"]) == (job["account_id"], job["key_id"], 0)
    assert account["image_bytes"] == sum(row["size_bytes"] for row in found.values()) == 207


def test_upgrade_check_detects_lost_row(tmp_path: Path, extended: Path) -> None:
    add_revision(extended, 'op.execute("DELETE FROM ledger")')
    build(tmp_path / "a.db", revisions()[0])
    with pytest.raises(ValueError, match="not enough values"):
        assert_upgrade_keeps_all(tmp_path / "a.db", str(extended))


def test_upgrade_that_breaks_foreign_key_is_rolled_back(tmp_path: Path, extended: Path) -> None:
    path = tmp_path / "a.db"
    add_revision(extended, 'op.execute("DELETE FROM accounts")')
    build(path, revisions()[0])
    with connected(path) as connection:
        fill(connection)
        before = describe_tables(connection), rows(connection)
    with pytest.raises(StoreError, match="refer to rows that are missing"):
        migrate(path, str(extended))
    with connected(path) as connection:
        assert (describe_tables(connection), rows(connection)) == before


async def test_interrupted_upgrade_keeps_old_schema(tmp_path: Path, extended: Path) -> None:
    path = tmp_path / DATABASE_FILE
    add_revision(extended)
    build(path, revisions()[-1])
    with connected(path) as connection:
        before = describe_tables(connection)
        connection.exec_driver_sql(
            "CREATE TRIGGER stop BEFORE UPDATE ON alembic_version BEGIN SELECT RAISE(ABORT, 'power failure'); END"
        )
    with pytest.raises(Exception, match="power failure"):
        migrate(path, str(extended))
    with connected(path) as connection:
        assert describe_tables(connection) == before
        connection.exec_driver_sql("DROP TRIGGER stop")
    await (await open_sqlite(tmp_path)).close()
    migrate(path, str(extended))
    with connected(path) as connection:
        assert "tier" in {column["name"] for column in inspect(connection).get_columns(accounts.name)}


def test_head_constant_is_newest_revision() -> None:
    assert ScriptDirectory.from_config(config_of(LOCATION)).get_current_head() == HEAD


async def test_folder_of_release_before_workers_keeps_its_rows_and_requeues_its_running_job(tmp_path: Path) -> None:
    folder = write_old_folder(tmp_path / "data")
    with connected(folder / DATABASE_FILE) as connection:
        before = rows(connection)
    assert all(before.values())
    database = await open_sqlite(folder)
    with connected(folder / DATABASE_FILE) as connection:
        after = rows(connection)
    await register(database, "new")
    reaped = await Reaper(database).reap("new", 3, NOW)
    found = {state: await JobRepository(database).get(f"job-{state}") for state in STATES}
    await database.close()
    for job in before["jobs"]:
        del job["leased_until"]
    for job in after["jobs"]:
        assert (job.pop("worker_id"), job.pop("waits_at")) == (None, None)
    assert (after.pop("workers"), after.pop("installation")) == ([], [])
    assert after == before
    assert reaped == Reaped(requeued=1)
    states = {state: job and job.state for state, job in found.items()}
    assert states == {state: state for state in STATES} | {"running": "queued"}
