"""`allaprima keys` on a data folder that no server holds."""

import re
from pathlib import Path

import pytest

from cli.conftest import Run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_a_new_key_is_alone_on_stdout(run: Run, data: Path) -> None:
    result = run("keys", "create", "--name", "tests", "--data-dir", data)

    assert result.exit_code == 0
    assert re.fullmatch(r"ap_[0-9A-Za-z]{36}\n", result.stdout)
    assert result.stdout[3:11] in result.stderr
    assert result.stdout.strip() not in result.stderr


def test_keys_are_listed_oldest_first_with_names_and_never_whole(run: Run, data: Path) -> None:
    keys = [run("keys", "create", "--name", name, "--data-dir", data).stdout.strip() for name in ("[/one]", "two")]

    listed = run("keys", "list", "--data-dir", data)

    assert listed.exit_code == 0
    rows = [line for line in listed.stdout.splitlines() if "UTC" in line]
    assert [key[3:11] in row for key, row in zip(keys, rows, strict=True)] == [True, True]
    assert ["[/one]" in rows[0], "two" in rows[1]] == [True, True]
    assert not any(key in listed.stdout for key in keys)


def test_a_revoked_key_is_listed_as_such(run: Run, data: Path) -> None:
    kept, gone = (run("keys", "create", "--data-dir", data).stdout[3:11] for _ in range(2))

    revoked = run("keys", "revoke", gone, "--data-dir", data)

    assert (revoked.exit_code, revoked.stdout) == (0, "")
    assert f"revoked the key {gone}" in revoked.stderr
    states = {
        line.split()[1]: line for line in run("keys", "list", "--data-dir", data).stdout.splitlines() if "UTC" in line
    }
    assert "good" in states[kept]
    assert "revoked" in states[gone]


@pytest.mark.parametrize("prefix", ["deadbeef", "", "../keys", "%s"])
def test_revoking_a_key_that_is_not_there_is_refused_by_prefix(run: Run, data: Path, prefix: str) -> None:
    result = run("keys", "revoke", prefix, "--data-dir", data)

    assert result.exit_code == 2
    assert result.stderr == f"error: there is no good key with the prefix {prefix}\n"


def test_a_key_can_not_be_revoked_twice(run: Run, data: Path) -> None:
    prefix = run("keys", "create", "--data-dir", data).stdout[3:11]

    assert run("keys", "revoke", prefix, "--data-dir", data).exit_code == 0
    assert run("keys", "revoke", prefix, "--data-dir", data).exit_code == 2
