"""The reference at /docs shows the API in a real browser, without errors and without requests to other hosts."""

import pytest
from playwright.sync_api import ConsoleMessage, Error, Request, sync_playwright

from tests.acceptance.processes import LIMIT_S, Server
from tests.programs import need

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

PATH = "/v1/images/generations"


def test_reference_page_loads_without_errors_or_other_hosts(server: Server) -> None:
    chromium = need("chromium", "shows the reference")
    errors: list[str] = []
    requests: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(message.text)

    def on_request(request: Request) -> None:
        requests.append(request.url)

    def on_page_error(error: Error) -> None:
        errors.append(error.message)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=LIMIT_S * 1000)
        page = browser.new_page()
        page.set_default_timeout(LIMIT_S * 1000)
        page.on("console", on_console)
        page.on("pageerror", on_page_error)
        page.on("request", on_request)
        page.goto(f"{server.url}/docs")
        operation = page.locator(".opblock", has_text=PATH).first
        operation.wait_for()
        operation.locator(".opblock-summary").click()
        operation.locator(".opblock-body", has_text="image_size").first.wait_for()
        page.wait_for_load_state("networkidle")
        shown = operation.inner_text()
        browser.close()

    assert "POST" in shown
    assert "image_size" in shown
    assert errors == []
    assert f"{server.url}/openapi.json" in requests
    foreign = [url for url in requests if not url.startswith((f"{server.url}/", "data:"))]
    assert foreign == []
