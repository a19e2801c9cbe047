"""Keyboard shortcuts, and the list of them."""

import re

import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.browser import LONG, visit
from tests.acceptance.processes import Server

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
SMALL = (512, 512)


def test_question_mark_lists_shortcuts_and_numbers_open_views(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.page.locator("#main").focus()
        seen.page.keyboard.press("?")
        expect(seen.page.locator("#shortcuts")).to_be_visible()
        expect(seen.page.locator("#shortcut-list")).to_contain_text("Cancel the request")
        seen.page.keyboard.press("Escape")
        for number, view in enumerate(("generate", "gallery", "explore", "code", "usage"), 1):
            seen.page.locator("#main").focus()
            seen.page.keyboard.press(str(number))
            expect(seen.page.locator(f"#{view}")).to_be_visible()


def test_letters_in_a_text_field_are_text(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.page.locator("#prompt").focus()
        seen.page.keyboard.type("2 pears?.x")
        assert seen.page.input_value("#prompt") == "2 pears?.x"
        expect(seen.page.locator("#generate")).to_be_visible()


def test_generate_and_cancel_by_keyboard(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.page.fill("#prompt", "a boat on the sea")
        seen.set(**LONG)
        seen.page.locator("#seed").focus()
        seen.page.keyboard.press("Control+Enter")
        seen.previewed()
        seen.page.locator("#main").focus()
        seen.page.keyboard.press("Shift+X")
        expect(seen.page.locator("#stage .state")).to_have_text("Cancelled.")


def test_earlier_prompts_return_by_keyboard_also_after_reload(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        for prompt in ("a red apple", "a blue car"):
            seen.generate(prompt, size=SMALL)
        seen.page.reload()
        seen.signed_in()
        seen.page.fill("#prompt", "draft")
        for key, prompt in (("Up", "a blue car"), ("Up", "a red apple"), ("Down", "a blue car"), ("Down", "draft")):
            seen.page.press("#prompt", f"Alt+Arrow{key}")
            assert seen.page.input_value("#prompt") == prompt


def test_image_is_kept_and_reused_by_keyboard(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.generate("a red apple", seed=5, steps=2, size=SMALL)
        seen.finished()
        seen.page.fill("#prompt", "something else")
        seen.set(seed=9, steps=4)
        seen.page.locator("#main").focus()
        seen.page.keyboard.press(".")
        expect(seen.page.locator("#stage .star")).to_have_text("★ Kept")
        expect(seen.page.locator("#stage .what")).to_have_text(re.compile("kept$"))
        seen.page.keyboard.press("r")
        assert (seen.page.input_value("#prompt"), seen.page.input_value("#steps")) == ("a red apple", "2")
        assert seen.page.input_value("#seed") == "9"
        seen.page.locator("#main").focus()
        seen.page.keyboard.press("a")
        assert seen.page.input_value("#seed") == "5"


def test_arrows_move_through_the_gallery(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.generate("a star at night", count=3, size=SMALL)
        seen.finished()
        seen.open("gallery")
        frames = seen.page.locator("#images .frame")
        expect(frames.nth(2)).to_be_visible()
        assert seen.page.locator('#images .frame[tabindex="0"]').count() == 1
        frames.first.focus()
        seen.page.keyboard.press("ArrowRight")
        expect(frames.nth(1)).to_be_focused()
        seen.page.keyboard.press("ArrowLeft")
        expect(frames.first).to_be_focused()
        seen.page.keyboard.press("Control+a")
        expect(seen.page.locator("#chosen-text")).to_contain_text("images selected")
        seen.page.keyboard.press("Escape")
        expect(seen.page.locator("#chosen")).to_be_hidden()
