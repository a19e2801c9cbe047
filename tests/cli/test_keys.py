"""`allaprima keys` and `allaprima accounts` on a data folder without a running server."""

import itertools
import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.store.postgres_server import server

_numbers = itertools.count()


@pytest.fixture
def data(tmp_path: Path, run: Run) -> Path:
    """A data folder with one account."""
    assert run("accounts", "create", "default", "--data-dir", tmp_path / "data").exit_code == 0
    return tmp_path / "data"


def test_only_new_key_is_on_stdout(run: Run, data: Path) -> None:
    result = run("keys", "create", "--name", "tests", "--data-dir", data)

    assert result.exit_code == 0
    assert re.fullmatch(r"ap_[0-9A-Za-z]{36}\n", result.stdout)
    assert result.stdout[3:11] in result.stderr
    assert result.stdout.strip() not in result.stderr


def test_keys_are_listed_oldest_first_without_secrets(run: Run, data: Path) -> None:
    keys = [run("keys", "create", "--name", name, "--data-dir", data).stdout.strip() for name in ("[/one]", "two")]

    listed = run("keys", "list", "--data-dir", data)

    assert listed.exit_code == 0
    rows = [line for line in listed.stdout.splitlines() if "UTC" in line]
    assert [key[3:11] in row for key, row in zip(keys, rows, strict=True)] == [True, True]
    assert ["[/one]" in rows[0], "two" in rows[1]] == [True, True]
    assert not any(key in listed.stdout for key in keys)


def test_revoked_key_is_listed_as_revoked(run: Run, data: Path) -> None:
    kept, gone = (run("keys", "create", "--data-dir", data).stdout[3:11] for _ in range(2))

    revoked = run("keys", "revoke", gone, "--data-dir", data)

    assert (revoked.exit_code, revoked.stdout) == (0, "")
    assert f"revoked the key {gone}" in revoked.stderr
    rows = [line.split("\t") for line in run("keys", "list", "--data-dir", data).stdout.splitlines()]
    assert {row[0]: row[-1] for row in rows} == {kept: "valid", gone: "revoked"}


@pytest.mark.parametrize("prefix", ["deadbeef", "../", "../keys", "a/b", "%s", "[/bold]", "?#"])
def test_revoking_unknown_key_is_refused_by_prefix(run: Run, data: Path, prefix: str) -> None:
    result = run("keys", "revoke", prefix, "--data-dir", data)

    assert result.exit_code == 2
    assert result.stderr == f"error: there is no valid key with the prefix {prefix}\n"


def test_revoking_key_twice_is_refused(run: Run, data: Path) -> None:
    prefix = run("keys", "create", "--data-dir", data).stdout[3:11]

    assert run("keys", "revoke", prefix, "--data-dir", data).exit_code == 0
    assert run("keys", "revoke", prefix, "--data-dir", data).exit_code == 2


@pytest.mark.parametrize("name", ["../", "a/b", "..", "?", "#", "%2f", "[/bold]", "Zoë & Söhne"])
def test_account_with_any_name_is_created_and_credited(run: Run, data: Path, name: str) -> None:
    created = run("accounts", "create", name, "--data-dir", data)
    credited = run("accounts", "credit", name, "2.5", "--note", name, "--data-dir", data)
    key = run("keys", "create", "--account", name, "--data-dir", data)

    assert [result.exit_code for result in (created, credited, key)] == [0, 0, 0]
    assert credited.stderr == f"{name} now has 5000000 credits (2.500000 USD)\n"
    listed = run("accounts", "list", "--data-dir", data).stdout
    assert name in listed
    assert created.stdout.strip()[:8] in listed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("accounts", "create", ""), "name: must not be empty"),
        (("accounts", "create", " "), "name: must contain a visible character and no control characters"),
        (("accounts", "create", "a\nb"), "name: must contain a visible character and no control characters"),
        (("accounts", "create", "\udcff"), "name: must be valid Unicode"),
        (("accounts", "create", "a" * 201), "name: must have at most 200 characters; it has 201"),
        (("keys", "create", "--name", ""), "name: must not be empty"),
        (("keys", "create", "--account", ""), "account: must not be empty"),
        (
            ("keys", "create", "--account", "../"),
            "no account has the id or name ../; `allaprima accounts list` shows all ids",
        ),
        (("keys", "revoke", ""), "prefix: must not be empty"),
        (("keys", "revoke", "\udcff"), "prefix: must be valid Unicode"),
        (("accounts", "credit", "", "1"), "account: must not be empty"),
        (
            ("accounts", "credit", "a/b", "1"),
            "no account has the id or name a/b; `allaprima accounts list` shows all ids",
        ),
    ],
)
def test_invalid_or_unknown_account_is_refused_in_one_sentence(
    run: Run, data: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run(*arguments, "--data-dir", data)

    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {message}\n")


@pytest.mark.parametrize(
    "usd",
    ["nan", "snan", "inf", "-inf", "1e30", "8e12", "1e999999999", "1000000.01", "-1000000.01", "ten", "", "\udcff"],
)
def test_invalid_dollar_amount_is_refused(run: Run, data: Path, usd: str) -> None:
    run("accounts", "create", "acme", "--data-dir", data)

    result = run("accounts", "credit", "--data-dir", data, "--", "acme", usd)

    assert result.exit_code == 2
    assert result.stderr.startswith("error: usd: must be a number of US dollars from -1,000,000 to 1,000,000; it is ")
    assert len(result.stderr.splitlines()) == 1
    assert "acme\t0\t0.000000\t0" in run("accounts", "list", "--data-dir", data).stdout


@pytest.mark.parametrize(
    ("usd", "credits_"), [("1000000", 2 * 10**12), ("-0.5", -(10**6)), ("1e-7", 0), ("0.1", 200000)]
)
def test_amount_is_credited_exactly(run: Run, data: Path, usd: str, credits_: int) -> None:
    run("accounts", "create", "acme", "--data-dir", data)

    result = run("accounts", "credit", "--data-dir", data, "--", "acme", usd)

    assert result.exit_code == 0
    assert result.stderr.startswith(f"acme now has {credits_} credits (")


def test_account_name_is_used_once(run: Run, data: Path) -> None:
    assert run("accounts", "create", "acme", "--data-dir", data).exit_code == 0

    again = run("accounts", "create", "acme", "--data-dir", data)

    assert (again.exit_code, again.stderr) == (2, "error: name: an account is called acme already\n")


@pytest.mark.parametrize("command", [("keys", "list"), ("accounts", "list"), ("keys", "revoke", "abcd1234"), ("ps",)])
def test_command_that_reads_creates_nothing(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    for options in ((), ("--data-dir", tmp_path / "elsewhere")):
        result = run(*command, *options)
        assert result.exit_code == 2
        assert "error: there is no data folder in " in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("keys", "create"), ("accounts", "create", "acme")])
def test_only_data_dir_creates_a_data_folder(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    assert run(*command).exit_code == 2
    assert list(tmp_path.iterdir()) == []

    assert run(*command, "--data-dir", tmp_path / "new").exit_code == 0
    assert (tmp_path / "new" / "allaprima.db").exists()


def test_created_key_names_its_folder(run: Run, tmp_path: Path) -> None:
    result = run("keys", "create", "--data-dir", "new")

    assert f"created the data folder {tmp_path / 'new'}" in result.stderr
    assert f"created the key {result.stdout[3:11]} in {tmp_path / 'new'}; it is shown only once:" in result.stderr


def test_lists_are_tab_separated_lines_in_a_pipe(run: Run, data: Path) -> None:
    created = run("accounts", "create", "a name", "--data-dir", data).stdout.strip()

    lines = run("accounts", "list", "--data-dir", data).stdout.splitlines()

    assert [line.count("\t") for line in lines] == [4, 4]
    assert lines[1].split("\t") == [created, "a name", "0", "0.000000", "0"]


@pytest.mark.parametrize("command", [("keys", "list"), ("accounts", "list"), ("ps",)])
def test_lists_are_printed_as_json(run: Run, data: Path, command: tuple[str, ...]) -> None:
    run("keys", "create", "--name", "first", "--data-dir", data)

    found = json.loads(run(*command, "--json", "--data-dir", data).stdout)

    names = [one["name"] for one in found]
    assert names == {"keys": ["first"], "accounts": ["default"], "ps": []}[command[0]]


def test_account_is_erased_without_a_server(run: Run, data: Path) -> None:
    run("accounts", "credit", "default", "5", "--data-dir", data)
    prefix = run("keys", "create", "--data-dir", data).stdout[3:11]

    erased = run("accounts", "erase", "default", "--yes", "--data-dir", data)

    assert (erased.exit_code, erased.stdout) == (0, "")
    assert erased.stderr == (
        "erased the account default: removed 0 jobs with their prompts, 0 images (0 bytes), 0 log entries, "
        "0 idempotency records and 0 webhook endpoints; disabled 1 keys\n"
        "kept 1 ledger entries and 0 sums of usage, which contain no prompts, and the names of the account and of its "
        "keys\n"
    )
    [row] = [line.split("\t") for line in run("keys", "list", "--data-dir", data).stdout.splitlines()]
    assert (row[0], row[-1]) == (prefix, "disabled")


def test_erasure_without_a_terminal_needs_yes(run: Run, data: Path) -> None:
    run("keys", "create", "--data-dir", data)

    refused = run("accounts", "erase", "default", "--data-dir", data, stdin="y\n")

    assert refused.exit_code == 2
    assert refused.stderr == "error: --yes: is required without a terminal, which could ask\n"
    assert "valid" in run("keys", "list", "--data-dir", data).stdout


def test_erasure_of_unknown_account_is_refused(run: Run, data: Path) -> None:
    refused = run("accounts", "erase", "acme", "--yes", "--data-dir", data)

    assert refused.exit_code == 2
    assert refused.stderr == "error: no account has the id or name acme; `allaprima accounts list` shows all ids\n"


# PostgreSQL ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty PostgreSQL database in the settings."""
    monkeypatch.setenv("ALLAPRIMA_STORE__DATABASE_URL", server().create(f"operator-{next(_numbers)}"))


@pytest.mark.usefixtures("shared")
def test_commands_open_the_database_and_create_no_folder(run: Run, tmp_path: Path) -> None:
    refused = run("keys", "create")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == "error: there is no account; create one with `allaprima accounts create NAME`\n"

    assert run("accounts", "create", "acme").exit_code == 0
    key = run("keys", "create", "--account", "acme")
    assert (key.exit_code, key.stderr) == (
        0,
        f"created the key {key.stdout[3:11]} in the database; it is shown only once:\n",
    )
    assert run("accounts", "credit", "acme", "2").exit_code == 0
    assert run("keys", "revoke", key.stdout[3:11]).exit_code == 0
    [listed] = json.loads(run("accounts", "list", "--json").stdout)
    assert (listed["name"], listed["balance"]) == ("acme", 4_000_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("shared")
def test_account_on_shared_database_is_erased_only_with_the_folder_of_its_images(run: Run, tmp_path: Path) -> None:
    run("accounts", "create", "acme")

    refused = run("accounts", "erase", "acme", "--yes")
    (tmp_path / "data" / "images").mkdir(parents=True)
    erased = run("accounts", "erase", "acme", "--yes")

    assert refused.exit_code == 2
    assert f"there is no folder {tmp_path / 'data' / 'images'}, so the images of the account can't be" in refused.stderr
    assert erased.exit_code == 0, erased.stderr
