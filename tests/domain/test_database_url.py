"""URLs of PostgreSQL databases: which are refused, and which contain a password."""

import pytest

from allaprima.domain.database_url import check_database_url, has_password, place_of

VALID = [
    "postgresql://host/db",
    "postgres://me:secret@host:5432/db?sslmode=require",
    "postgresql:///db",
    "postgresql:///db?host=/run/postgresql",
    "postgresql://a:1,b:2/db?target_session_attrs=read-write",
    "postgresql://[::1]:5432/db",
]


@pytest.mark.parametrize("url", VALID)
def test_url_of_a_database_is_accepted(url: str) -> None:
    check_database_url(url)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "must look like postgresql://user@host:5432/database"),
        ("hunter2", "must look like"),
        ("mysql://me:hunter2@host/db", "must look like"),
        ("host=localhost password=hunter2", "must look like"),
        ("postgresql://me:hunter2@host", "names no database"),
        ("postgresql://me:hunter2@host/", "names no database"),
        ("postgresql://me:hunt/er2@host/db", "must be percent-encoded"),
        ("postgresql://me:12/hunter2@host/db", "must be percent-encoded"),
        ("postgresql://host:hunter2/db", "must be percent-encoded"),
    ],
)
def test_other_url_is_refused_without_quoting_it(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as refused:
        check_database_url(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        *((url, "secret" in url) for url in VALID),
        ("postgresql://me@host/db", False),
        ("postgresql://me:a/b@host/db", True),
        ("postgresql://host/db?user=me&password=a", True),
        ("postgresql://host/db?sslpassword=a", True),
        ("", False),
    ],
)
def test_password_in_a_url_is_found(url: str, expected: bool) -> None:
    assert has_password(url) is expected


def test_place_of_a_database_has_neither_user_nor_password() -> None:
    assert place_of("postgresql://me:secret@host:5432/db?password=x") == "host:5432/db"
