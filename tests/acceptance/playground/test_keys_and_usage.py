"""Signing in and out, keys, and the usage view."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.browser import LONG, VIEWS, generated, visit
from tests.acceptance.processes import Server, allaprima
from tests.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]


def test_signing_out_clears_runs_and_prompt(browser: Browser, server: Server) -> None:
    made = allaprima("keys", "create", "--data-dir", server.data_dir, folder=server.data_dir.parent)
    other = re.findall(r"ap_[0-9A-Za-z]{36}", made.stdout)[0]
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.generate("a secret lion", **LONG)
        seen.previewed()
        seen.page.click("#sign-out")
        seen.page.locator("#sign-in").wait_for()
        seen.sign_in(other)
        expect(seen.page.locator(".run")).to_have_count(0)
        assert "secret" not in seen.page.content()
        assert seen.page.input_value("#prompt") == ""


def test_wrong_key_shows_message_and_is_not_stored(browser: Browser, server: Server) -> None:
    with visit(browser, server.url, expected_errors=("401",)) as seen:
        seen.page.fill("#key", "ap_" + "0" * 36)
        seen.page.check("#remember")
        seen.page.click("#sign-in-form button")
        expect(seen.page.locator("#notice")).to_have_text("This key is invalid, deleted or disabled.")
        assert "ap_" not in seen.page.evaluate("JSON.stringify([localStorage, sessionStorage])")
        assert seen.page.locator("#views a[href='#generate']").is_hidden()


def test_key_is_stored_only_on_request_and_never_in_urls(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        for view in VIEWS:
            seen.open(view)
        assert server.key not in seen.page.evaluate("JSON.stringify(localStorage)")
        assert not any(server.key in url for url in (*seen.requests, seen.page.url))
        seen.page.click("#sign-out")
        seen.page.locator("#sign-in").wait_for()
        seen.sign_in(server.key, is_remembered=True)
        seen.page.evaluate("sessionStorage.clear()")
        seen.page.reload()
        seen.signed_in()
        seen.page.click("#sign-out")
        seen.page.locator("#sign-in").wait_for()
        assert seen.page.evaluate("JSON.stringify([localStorage, sessionStorage])") == "[{},{}]"


def test_usage_view_shows_spending_and_latest_requests(browser: Browser, server: Server) -> None:
    generated(server, prompt="a bus in the city", size="512x512", model="sketch")
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.open("usage")
        expect(seen.page.locator("#account")).to_contain_text(re.compile(r"Balance of the account\s*\$2\d"))
        expect(seen.page.locator("#chart rect[class^='c']").first).to_be_attached()
        seen.page.click("#days summary")
        expect(seen.page.locator("#days td").nth(1)).to_have_text(re.compile("allaprima/sketch|flux/schnell"))
        expect(seen.page.locator("#recent tr").nth(1)).to_contain_text("a bus in the city")


def test_no_money_is_shown_where_no_price_is_set(
    browser: Browser, serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve(tmp_path / "data")
    generated(server, prompt="a bus in the city", size="256x256", model="sketch")
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.open("usage")
        seen.page.locator("#recent table").wait_for()
        assert "$" not in seen.page.locator("#usage").inner_text()
        row = seen.page.locator("#by-key tr").nth(1)
        expect(row).to_contain_text(re.compile(r"first ap_\w+|first \w{8}"))
        assert row.locator("td").nth(3).inner_text() == "1"


def test_management_key_creates_limits_and_disables_keys(browser: Browser, server: Server) -> None:
    account = server.query("SELECT id FROM accounts")[0][0]
    folder = server.data_dir.parent
    made = allaprima(
        "keys", "create", "--account", account, "--management", "--data-dir", server.data_dir, folder=folder
    )
    manager = re.findall(r"ap_[0-9A-Za-z]{36}", made.stdout)[0]
    with visit(browser, server.url, expected_errors=("403", "401")) as seen:
        seen.sign_in(manager)
        seen.page.locator("#keys").wait_for()
        assert seen.page.locator("#views a[href='#generate']").is_hidden()
        seen.page.fill("#key-name", "a colleague")
        seen.page.fill("#key-limit", "5")
        seen.page.fill("#key-rate", "90")
        seen.page.click("#new-key button")
        key = seen.page.locator("#made-key code").inner_text()
        prefix = key[3:11]
        row = seen.page.locator("#key-list tr", has_text=prefix)
        expect(row).to_contain_text("per month")
        assert status(server, key) == 200
        expect(row.get_by_label("Requests a minute")).to_have_value("90")
        row.get_by_label("Limit in US dollars").fill("7.5")
        row.get_by_text("Set limit").click()
        until(lambda: limit_of(server, key) == 7.5 or None, "the limit")
        row.get_by_label("Requests a minute").fill("120")
        row.get_by_text("Set rate").click()
        until(lambda: about(server, key)["requests_per_minute"] == 120 or None, "the rate")
        seen.page.locator(f'button[aria-label="Disable {prefix}"]').click()
        expect(row).to_contain_text("disabled")
        assert status(server, key) == 401
        seen.page.locator(f'button[aria-label="Enable {prefix}"]').click()
        expect(row).to_contain_text("valid")
        assert status(server, key) == 200


def status(server: Server, key: str) -> int:
    return httpx2.get(f"{server.url}/v1/key", headers={"authorization": f"Bearer {key}"}).status_code


def about(server: Server, key: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{server.url}/v1/key", headers={"authorization": f"Bearer {key}"}).json()[
        "data"
    ]
    return found


def limit_of(server: Server, key: str) -> float | None:
    found = about(server, key)["limit"]
    return found and found["threshold"]
