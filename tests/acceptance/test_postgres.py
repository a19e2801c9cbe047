"""Servers and commands on PostgreSQL, as processes: they share a database, and refuse one that can't be used."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import httpx2
import psycopg
import pytest

from allaprima.store.migrations import HEAD
from allaprima.store.postgres import migrate
from tests.acceptance.conftest import Serve
from tests.acceptance.processes import allaprima
from tests.store.postgres_server import server

SETTING = "ALLAPRIMA_STORE__DATABASE_URL"
PASSWORD = "hunter2"
_numbers = itertools.count()


@pytest.fixture
def url() -> str:
    """The URL of an empty database."""
    return server().create(f"acceptance-{next(_numbers)}")


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


# Service ------------------------------------------------------------------------------------------------------------


def test_two_servers_share_accounts_links_and_jobs(tmp_path: Path, serve: Serve, url: str) -> None:
    def command(*arguments: str) -> str:
        done = allaprima(*arguments, folder=tmp_path, **{SETTING: url})
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    one = serve(tmp_path / "data", **{SETTING: url})
    assert not one.keys
    assert "create one with `allaprima accounts create NAME`" in one.output
    assert "its key with `allaprima keys create --account NAME`" in one.output

    command("accounts", "create", "acme")
    key = command("keys", "create", "--account", "acme")
    two = serve(tmp_path / "data", **{SETTING: url})
    assert "there is no account yet" not in two.output
    answer = one.post(key, model="sketch", prompt="a boat", size="64x64")
    assert answer.status_code == 200, answer.text
    [image] = answer.json()["images"]
    link = image["url"].replace(f":{one.port}/", f":{two.port}/")
    assert httpx2.get(link).content == httpx2.get(image["url"]).content
    assert httpx2.get(link).status_code == 200

    assert command("ps")
    assert "acme" in command("accounts", "list")
    command("accounts", "erase", "acme", "--yes")
    assert httpx2.get(link).status_code == 404
    assert two.post(key, model="sketch", prompt="a boat", size="64x64").status_code in (401, 403)


# Refusals -----------------------------------------------------------------------------------------------------------


def migrated(change: str) -> Callable[[str], str]:
    """Return the function that migrates a database and then runs a statement on it."""

    def prepare(url: str) -> str:
        migrate(url)
        execute(url, change)
        return url

    return prepare


def with_guarded_role(url: str) -> str:
    server().add_role("guarded", "the right password")
    return url.replace("allaprima@", f"guarded:{PASSWORD}@")


def with_reading_role(url: str) -> str:
    migrate(url)
    server().add_role("reader")
    execute(url, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    return url.replace("allaprima@", "reader@")


def with_role_without_rights(url: str) -> str:
    server().add_role("stranger")
    return url.replace("allaprima@", "stranger@")


ACCOUNTS = ("accounts", "list")
SERVE = ("serve", "--port", "0")


@pytest.mark.parametrize(
    ("command", "prepare", "problem"),
    [
        (ACCOUNTS, lambda _: f"mysql://me:{PASSWORD}@host/db", "must look like postgresql://user@host:5432/database"),
        (ACCOUNTS, lambda url: f"{url}?pasword={PASSWORD}", "libpq can't read the one given"),
        (ACCOUNTS, with_guarded_role, 'password authentication failed for user "guarded"'),
        (ACCOUNTS, lambda _: server().url("missing", f"allaprima:{PASSWORD}"), 'database "missing" does not exist'),
        (SERVE, lambda _: f"postgresql://me:{PASSWORD}@127.0.0.1:1/db", "Connection refused"),
        (ACCOUNTS, with_reading_role, "a role that may not INSERT into"),
        (ACCOUNTS, with_role_without_rights, "its role lacks a privilege (permission denied for schema public)"),
        (
            SERVE,
            migrated("UPDATE alembic_version SET version_num = '0005_starred_images'"),
            f"the older schema 0005_starred_images, and this version of allaprima needs {HEAD}; run `allaprima mig",
        ),
        (ACCOUNTS, migrated("UPDATE alembic_version SET version_num = '9999_later'"), "(schema 9999_later; this ver"),
    ],
)
def test_database_that_can_not_be_used_is_refused_in_one_sentence_without_its_password(
    tmp_path: Path, url: str, command: tuple[str, ...], prepare: Callable[[str], str], problem: str
) -> None:
    done = allaprima(*command, folder=tmp_path, **{SETTING: prepare(url)})

    assert done.returncode == 2, done.stderr
    assert problem in done.stderr
    assert re.fullmatch(rf"error: {SETTING} [^\n]+\n", done.stderr)
    assert PASSWORD not in done.stderr + done.stdout


def test_missing_driver_is_refused_naming_the_extra(tmp_path: Path, url: str) -> None:
    (tmp_path / "psycopg.py").write_text("raise ModuleNotFoundError(name='psycopg')")
    paths = {"PYTHONPATH": f"{tmp_path}:{allaprima_path()}"}

    done = allaprima("accounts", "list", folder=tmp_path, **{SETTING: url}, **paths)

    assert done.returncode == 2
    extra = "requires the extra `postgres`; install it with `pip install 'allaprima[postgres]'`"
    assert done.stderr == f"error: {SETTING} {extra}\n"


def allaprima_path() -> Path:
    """Return the folder from which a process imports the package."""
    import allaprima as package

    return Path(package.__file__).parents[1]


def test_password_from_the_environment_of_libpq_is_used(tmp_path: Path, url: str) -> None:
    server().add_role("keeper", "the right password")
    execute(url, "ALTER DATABASE " + f'"{url.rpartition("/")[2]}" OWNER TO keeper')
    settings = {SETTING: url.replace("allaprima@", "keeper@"), "PGPASSWORD": "the right password"}

    done = allaprima("accounts", "create", "acme", folder=tmp_path, **settings)

    assert done.returncode == 0, done.stderr
