"""Signing in: a link with the key, and a tab that keeps it."""

from playwright.sync_api import Browser, expect

from tests.acceptance.browser import visit
from tests.acceptance.processes import Server


def test_link_with_key_signs_in_and_leaves_no_key_in_the_address(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as seen:
        seen.page.goto("about:blank")
        seen.page.goto(f"{server.url}/#key={server.key}")
        seen.page.locator("#user").wait_for()
        assert server.key not in seen.page.url
        assert seen.page.evaluate("localStorage.length") == 0
        assert not any(server.key in url for url in seen.requests)
        seen.page.go_back()
        seen.page.go_forward()
        assert server.key not in seen.page.url


def test_reload_keeps_the_tab_signed_in_and_a_new_tab_is_not(server: Server, browser: Browser) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.page.reload()
        seen.page.locator("#user").wait_for()
        other = seen.page.context.new_page()
        other.goto(server.url)
        expect(other.locator("#sign-in")).to_be_visible()
        other.close()


def test_invalid_key_in_link_is_refused(server: Server, browser: Browser) -> None:
    with visit(browser, server.url, expected_errors=("401",)) as seen:
        seen.page.goto("about:blank")
        seen.page.goto(f"{server.url}/#key=ap_wrong")
        expect(seen.page.locator("#notice")).to_be_visible()
        expect(seen.page.locator("#sign-in")).to_be_visible()
        assert "ap_wrong" not in seen.page.url
