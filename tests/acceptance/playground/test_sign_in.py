"""Signing in: a link with the key, and a tab that keeps it."""

from playwright.sync_api import Browser, expect

from tests.acceptance.browser import visit
from tests.acceptance.processes import Server


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
