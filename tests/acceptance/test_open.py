"""`allaprima open` and `serve --open`: links that sign a browser in once."""

import html
import re
import stat
from collections.abc import Callable
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.acceptance.processes import Server, allaprima
from tests.acceptance.terminal import Terminal
from tests.waiting import LIMIT_S, until

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def browser(tmp_path: Path) -> Path:
    """A browser that writes the address which it is given into a file."""
    program = tmp_path / "browser"
    program.write_text(
        f'#!/bin/sh\necho "$1" > {tmp_path / "given.new"}\nmv {tmp_path / "given.new"} {tmp_path / "given"}\n'
    )
    program.chmod(0o755)
    return program


def opened(tmp_path: Path) -> str:
    """Return the link that the browser was given, which only this user can read."""
    given = until(lambda: _read(tmp_path / "given"), "the browser").strip()
    assert given.startswith("file:///")
    page = Path(given.removeprefix("file://"))
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    [link] = re.findall(r'href="([^"]+)"', page.read_text())
    return html.unescape(link)


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def sign_in(url: str, link: str) -> httpx2.Response:
    base, _, token = link.partition("/#token=")
    assert base == url
    return httpx2.post(f"{url}/v1/sign-in", json={"token": token}, timeout=LIMIT_S)


def test_link_in_a_pipe_signs_in_once(server: Server, tmp_path: Path, browser: Path) -> None:
    done = allaprima("open", "--data-dir", server.data_dir, folder=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    [link] = done.stdout.splitlines()
    key = sign_in(server.url, link).json()["data"]["key"]
    assert server.post(key).status_code == 400
    assert sign_in(server.url, link).status_code == 401
    listed = allaprima("keys", "list", "--data-dir", server.data_dir, folder=tmp_path).stdout
    assert re.search(rf"^{key[3:11]}\tbrowser, \d+ [A-Z][a-z][a-z] 20\d\d\t", listed, re.MULTILINE)
    assert allaprima("keys", "revoke", key[3:11], "--data-dir", server.data_dir, folder=tmp_path).returncode == 0
    assert server.post(key).status_code == 401


def test_terminal_opens_the_browser_and_shows_the_link(server: Server, tmp_path: Path, browser: Path) -> None:
    with Terminal(
        "open", "--data-dir", server.data_dir, folder=tmp_path, columns=200, BROWSER=f"{browser} %s"
    ) as terminal:
        assert terminal.finish() == 0
        link, note = terminal.text.splitlines()

    assert opened(tmp_path) == link
    assert note == "opened the link in the browser; it signs in once, within 5 minutes"
    assert sign_in(server.url, link).status_code == 200


def test_server_stops_while_the_browser_is_open(serve: Callable[..., Server], tmp_path: Path) -> None:
    program = tmp_path / "browser"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'given'}\nexec sleep 100000\n")
    program.chmod(0o755)
    server = serve(tmp_path / "data", "--open", BROWSER=f"{program} %s")
    until(lambda: (tmp_path / "given").exists() or None, "the browser")
    [browser] = psutil.Process(server.pid).children()

    assert server.stop() == 0
    assert browser.is_running()
    browser.kill()


NO_BROWSER = {"BROWSER": "", "DISPLAY": "", "WAYLAND_DISPLAY": ""}


def test_server_without_browser_logs_no_link(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(tmp_path / "data", "--open", **NO_BROWSER)

    note = "note: found no browser to open; `allaprima open` prints a link"
    until(lambda: note in server.output or None, "the note")
    assert "#" not in server.output


def test_missing_browser_is_no_failure(server: Server, tmp_path: Path) -> None:
    for settings in (NO_BROWSER | {"BROWSER": str(tmp_path / "missing")}, NO_BROWSER):
        with Terminal(
            "open", "--data-dir", server.data_dir, folder=tmp_path, columns=200, PATH=str(tmp_path), **settings
        ) as terminal:
            assert terminal.finish() == 0
            link, note = terminal.text.splitlines()
        assert note == "open the link in a browser; it signs in once, within 5 minutes"
        assert sign_in(server.url, link).status_code == 200


def test_open_without_a_server_says_what_to_do(tmp_path: Path) -> None:
    done = allaprima("open", folder=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    problem, advice = done.stderr.splitlines()
    assert problem == f"error: no server answers for the data folder {tmp_path / 'data'}"
    assert "allaprima serve --open" in advice
    assert "--data-dir" in advice
    assert list(tmp_path.iterdir()) == []


def test_server_opens_the_browser_when_it_is_ready(serve: Callable[..., Server], tmp_path: Path, browser: Path) -> None:
    server = serve(tmp_path / "data", "--open", BROWSER=f"{browser} %s")

    link = opened(tmp_path)

    assert sign_in(server.url, link).status_code == 200
    assert "#token" not in server.output
    account = allaprima("accounts", "create", "acme", "--data-dir", server.data_dir, folder=tmp_path)
    assert account.returncode == 0
    refused = allaprima("open", "--data-dir", server.data_dir, folder=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr == "error: there are several accounts, so --account must name one of them: default, acme\n"
    named = allaprima("open", "--account", "acme", "--data-dir", server.data_dir, folder=tmp_path)
    key = sign_in(server.url, named.stdout.strip()).json()["data"]["key"]
    [[owner]] = server.query(f"SELECT account_id FROM api_keys WHERE prefix = '{key[3:11]}'")  # noqa: S608
    assert owner == account.stdout.strip()
