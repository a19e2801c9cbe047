"""Signing in: a link with the key, and a tab that keeps it."""

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.acceptance.browser import visit
from tests.acceptance.processes import Server, allaprima
from tests.acceptance.terminal import Terminal


def test_link_with_key_signs_in_and_leaves_no_key_in_the_address(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as seen:
        seen.page.goto("about:blank")
        seen.page.goto(f"{server.url}/#key={server.key}")
        seen.signed_in()
        assert server.key not in seen.page.url
        assert server.key not in seen.page.evaluate("JSON.stringify(localStorage)")
        assert not any(server.key in url for url in seen.requests)
        seen.page.go_back()
        seen.page.go_forward()
        assert server.key not in seen.page.url


def test_reload_keeps_the_tab_signed_in_until_the_user_signs_out(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.page.fill("#prompt", "a secret plan")
        seen.page.reload()
        seen.signed_in()
        seen.page.click("#sign-out")
        expect(seen.page.locator("#sign-in")).to_be_visible()
        assert seen.page.evaluate("JSON.stringify([localStorage, sessionStorage])") == "[{},{}]"


def test_invalid_key_in_link_is_refused(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, expected_errors=("401",)) as seen:
        seen.page.goto("about:blank")
        seen.page.goto(f"{server.url}/#key=ap_wrong")
        expect(seen.page.locator("#notice")).to_be_visible()
        expect(seen.page.locator("#sign-in")).to_be_visible()
        assert "ap_wrong" not in seen.page.url


def link_to(server: Server) -> str:
    done = allaprima("open", "--data-dir", server.data_dir, folder=server.data_dir.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_link_of_open_signs_in_once_and_leaves_no_token_in_the_address(server: Server, browser: Browser) -> None:
    link = link_to(server)
    token = link.partition("#token=")[2]
    with visit(browser, server.url, expected_errors=("401",)) as seen:
        # The page is open already, so that only the fragment of its address changes.
        seen.page.goto(link)
        expect(seen.page.locator("#user")).to_contain_text("browser, ")
        assert token not in seen.page.url
        assert not any(token in url for url in seen.requests)
        seen.page.reload()
        seen.page.locator("#user").wait_for()
        other = seen.page.context.new_page()
        other.goto(link)
        expect(other.locator("#notice")).to_contain_text("used before, or it has expired")
        expect(other.locator("#sign-in")).to_be_visible()
        assert token not in other.url
        other.close()


def test_link_of_open_keeps_the_remembered_key(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key, is_remembered=True)
        before = server.query("SELECT count(*) FROM api_keys")
        other = seen.page.context.new_page()
        other.goto(link_to(server))
        expect(other.locator("#user")).to_have_text("first")
        assert server.query("SELECT count(*) FROM api_keys") == before
        stored = "localStorage.getItem('allaprima:/:key')"
        assert other.evaluate(stored) == f'"{server.key}"'
        other.close()


def test_file_of_open_leads_the_browser_to_the_playground(server: Server, browser: Browser) -> None:
    folder = server.data_dir.parent
    with Terminal("open", "--data-dir", server.data_dir, folder=folder, columns=200, BROWSER="true %s") as terminal:
        assert terminal.finish() == 0
        assert "opened the link in the browser" in terminal.text
    context = browser.new_context()
    page = context.new_page()
    page.goto((server.data_dir / "open.html").as_uri())
    expect(page.locator("#user")).to_contain_text("browser, ")
    assert page.url.startswith(server.url)
    context.close()


def test_page_of_a_server_without_authentication_is_signed_in(
    serve_module: Callable[..., Server], browser: Browser, tmp_path: Path
) -> None:
    server = serve_module(tmp_path / "data", "--no-auth")
    with visit(browser, server.url) as seen:
        expect(seen.page.locator("#user")).to_have_text("no-auth on this machine")
        expect(seen.page.locator("#sign-out")).to_be_hidden()
        seen.generate("a red apple", steps=1, width=64, height=64)
        seen.finished()
        seen.page.reload()
        seen.page.locator("#user").wait_for()
        seen.open("gallery")
        seen.page.locator("#images img").first.wait_for()
        stored = "[sessionStorage, localStorage].map((one) => one.getItem('allaprima:/:key'))"
        assert seen.page.evaluate(stored) == [None, None]
