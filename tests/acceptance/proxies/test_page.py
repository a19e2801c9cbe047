"""The playground and the reference in a real browser, behind nginx with TLS and below a path."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.browser import chromium, visit
from tests.acceptance.processes import Server
from tests.acceptance.proxies.processes import Proxy
from tests.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def url(start_proxy: Callable[[str], Proxy]) -> str:
    return start_proxy("nginx path").url


def shows(page: Page, images: str) -> None:
    """Wait until the browser shows one of the images. images: their selector."""
    locator = page.locator(images)
    until(
        lambda: locator.evaluate_all("all => all.some((one) => one.naturalWidth && one.checkVisibility())") or None,
        images,
    )


def test_user_signs_in_generates_and_sees_the_image_in_the_gallery(browser: Browser, url: str, proxied: Server) -> None:
    before = len(proxied.query("SELECT id FROM images"))
    with visit(browser, url, ignore_https_errors=True) as seen:
        seen.page.fill("#key", proxied.key)
        seen.page.get_by_role("button", name="Sign in", exact=True).click()
        seen.page.fill("#prompt", "a red apple, blue background")
        seen.page.click("#go")
        until(lambda: len(proxied.query("SELECT id FROM images")) > before or None, "the image")
        shows(seen.page, "#generate img")
        seen.page.evaluate("location.hash = '#gallery'")
        shows(seen.page, "#gallery img")


def test_reference_shows_and_calls_a_route(browser: Browser, url: str) -> None:
    with visit(browser, url, ignore_https_errors=True) as seen:
        seen.page.goto(f"{url}/docs")
        operation = seen.page.locator("#operations-operation-health_health_get")
        operation.locator(".opblock-summary").click()
        operation.get_by_role("button", name="Try it out").click()
        operation.get_by_role("button", name="Execute").click()
        expect(operation.locator(".live-responses-table tbody .response-col_status")).to_contain_text("200")
        assert f"{url}/health" in seen.requests
