"""What `allaprima doctor` says about a PostgreSQL database."""

import itertools
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from allaprima.cli import database_findings
from allaprima.cli.database_findings import check_postgres
from allaprima.cli.finding import Finding
from allaprima.domain.postgres_report import PostgresReport
from allaprima.settings import StoreSettings
from allaprima.store.migrations import HEAD
from allaprima.store.postgres import migrate
from tests.store.postgres_server import server

_numbers = itertools.count()
REPORT = PostgresReport(
    version="15.1",
    major_version=15,
    encoding="UTF8",
    collation="C.UTF-8",
    revision=HEAD,
    newest_revision=HEAD,
    is_empty=False,
    missing_privileges=(),
    is_owner=True,
    is_read_only=False,
    synchronous_commit="on",
    fsync=True,
    max_connections=100,
    connections_per_server=10,
    clock_difference_s=0.01,
    round_trip_s=0.0012,
)


@pytest.fixture
def url() -> str:
    """The URL of an empty database."""
    return server().create(f"doctor-{next(_numbers)}")


def checked(url: str) -> dict[str, Finding]:
    findings = check_postgres(StoreSettings(database_url=url))  # type: ignore[arg-type]
    return {finding.name: finding for finding in findings}


def test_database_in_order_passes_every_check(url: str) -> None:
    migrate(url)
    found = checked(url)
    assert [finding.message for finding in found.values() if not finding.is_ok] == []
    assert url.rpartition("@")[2] in found["database"].message
    assert found["database schema"].message == f"{HEAD}, the newest"


def test_empty_database_passes_and_stays_empty(url: str) -> None:
    for _ in range(2):
        found = checked(url)
        assert all(finding.is_ok for finding in found.values())
        assert "the database is empty" in found["database schema"].message


def test_role_without_privileges_is_named_with_what_it_lacks(url: str) -> None:
    migrate(url)
    server().add_role("visitor")
    found = checked(url.replace("allaprima@", "visitor@"))
    assert "may not SELECT from" in found["database privileges"].message
    assert not found["database privileges"].is_ok
    assert found["database schema"].message == "the role may not read it"


def test_role_that_is_not_the_owner_is_warned_of_upgrades_and_erasures(url: str) -> None:
    migrate(url)
    server().add_role("user_of_tables")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO user_of_tables")
    found = checked(url.replace("allaprima@", "user_of_tables@"))
    privileges = found["database privileges"]
    assert (privileges.is_ok, privileges.is_required) == (False, False)
    assert "does not own the tables" in privileges.message


def test_unreachable_database_is_one_finding_without_the_password() -> None:
    [found] = checked("postgresql://me:hunter2@127.0.0.1:1/db").values()
    assert (found.is_ok, found.is_required) == (False, True)
    assert "Connection refused" in found.message
    assert "hunter2" not in found.message


@pytest.mark.parametrize(
    ("changes", "name", "message", "is_required"),
    [
        ({"major_version": 12, "version": "12.9"}, "database", "allaprima needs version 13 or later", True),
        ({"encoding": "LATIN1"}, "database text", "needs a database with the encoding UTF8", True),
        ({"revision": None}, "database schema", "tables of another program", True),
        ({"revision": "0005"}, "database schema", "run `allaprima migrate`", True),
        ({"is_read_only": True}, "database privileges", "only reads", True),
        ({"clock_difference_s": -1.5}, "database clock", "1.500 s behind this machine's; synchronise both", False),
        ({"synchronous_commit": "off"}, "database commits", "loses accepted jobs", False),
        ({"fsync": False}, "database commits", "fsync off", False),
        ({"max_connections": 9}, "database connections", "at most 0 fit", False),
    ],
)
def test_problem_is_found_by_its_check_alone(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], name: str, message: str, is_required: bool
) -> None:
    report = replace(REPORT, **changes)
    monkeypatch.setattr(database_findings, "report_database", lambda _: report)
    [failed] = [finding for finding in checked("postgresql://host/db").values() if not finding.is_ok]
    assert failed.name == name
    assert message in failed.message
    assert failed.is_required == is_required
