"""The playground by keyboard, by axe and by size."""

import re

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from allaprima.api.web.routes import PLAYGROUND_FOLDER
from tests.acceptance.browser import VIEWS, generated, visit
from tests.acceptance.processes import Server

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]


def test_skip_link_moves_focus_and_keeps_view(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.open("gallery")
        seen.page.locator(".skip").focus()
        seen.page.keyboard.press("Enter")
        expect(seen.page.locator("#main")).to_be_focused()
        expect(seen.page.locator("#gallery")).to_be_visible()


def test_playground_works_with_keyboard_alone(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        keyboard = seen.page.keyboard
        expect(seen.page.locator("#key")).to_be_focused()
        keyboard.type(server.key)
        keyboard.press("Enter")
        expect(seen.page.locator("#prompt")).to_be_focused()
        keyboard.type("a robot in space")
        keyboard.press("Control+Enter")
        seen.finished()
        for _ in range(60):
            keyboard.press("Tab")
            if seen.page.evaluate("document.activeElement.matches('#stage .frame')"):
                break
        keyboard.press("Enter")
        expect(seen.page.locator("#viewer")).to_be_visible()
        keyboard.press("Escape")
        expect(seen.page.locator("#viewer")).to_be_hidden()
        assert seen.page.evaluate("document.activeElement.matches('#stage .frame')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_every_view_passes_axe_and_fits_screen(
    browser: Browser, server: Server, scheme: str, size: tuple[int, int]
) -> None:
    axe = Axe()
    viewport = {"width": size[0], "height": size[1]}
    generated(server, prompt="a fox at sunset", size="256x256", model="sketch")
    with visit(browser, server.url, color_scheme=scheme, viewport=viewport) as seen:

        def check(view: str) -> None:
            found = axe.run(seen.page)
            assert found.violations_count == 0, f"{view}: {found.generate_report()}"
            wide = seen.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{view} is {wide} px too wide"

        check("sign-in")
        seen.sign_in(server.key)
        for view in VIEWS:
            seen.open(view)
            if view == "generate":
                seen.generate("a fox at sunset", size=(512, 512))
                seen.finished()
            if view == "gallery":
                seen.page.locator("#images .tile").first.hover()
                seen.page.locator("#images .choose").first.click()
            if view == "usage":
                seen.page.locator("#recent table").wait_for()
            check(view)
        seen.open("gallery")
        seen.page.locator("#images .frame").first.click()
        check("viewer")
        seen.page.keyboard.press("Escape")
        if seen.page.locator("#help").is_visible():
            seen.page.click("#help")
            check("shortcuts")


def test_playground_is_under_180_kb() -> None:
    assert sum(file.stat().st_size for file in PLAYGROUND_FOLDER.rglob("*") if file.is_file()) < 180_000


def test_page_and_its_policy_have_no_inline_script_or_style(server: Server) -> None:
    answer = httpx2.get(f"{server.url}/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", answer.text)
