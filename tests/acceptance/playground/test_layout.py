"""Layout and manners: the image is on the screen, errors are red, and a double click submits once."""

import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.browser import visit
from tests.acceptance.processes import Server

SIZES = [(1280, 860), (820, 1180), (390, 844)]
SMALL = {"width": 512, "height": 512}
#: `--bad` of the light theme.
BAD = "rgb(163, 22, 44)"


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_finished_image_is_on_the_screen(browser: Browser, server: Server, width: int, height: int) -> None:
    with visit(browser, server.url, viewport={"width": width, "height": height}) as seen:
        seen.sign_in(server.key)
        seen.generate("a red apple", **SMALL)
        image = seen.page.locator("#runs figure.image figcaption + *, #runs figure.image img:not(.preview)").first
        expect(image).to_be_in_viewport(ratio=0.9)
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_title_shows_the_end_and_caption_names_generator(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.generate("a red apple", model="flux/schnell", **SMALL)
        expect(seen.page).to_have_title("\u2713 a red apple \u00b7 allaprima")
        caption = seen.page.locator("#runs figcaption .what").first
        expect(caption).to_contain_text("allaprima/sketch (for flux/schnell)")
        expect(caption).to_contain_text("kept until ")


def test_double_click_submits_once(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.page.fill("#prompt", "a blue boat")
        seen.page.dblclick("#go")
        expect(seen.page.locator(".run")).to_have_count(1)
        expect(seen.page.locator("#runs figure.image img:not(.preview)")).to_have_count(1)
        assert len([url for url in seen.requests if url.endswith("/v1/jobs")]) >= 1


def test_failure_is_red(browser: Browser, server: Server) -> None:
    refusal = {"message": "no", "error": {"code": "x"}}
    with visit(browser, server.url, expected_errors=("400",)) as seen:
        seen.sign_in(server.key)
        seen.page.route("**/v1/jobs", lambda route: route.fulfill(status=400, json=refusal))
        seen.page.fill("#prompt", "a blue boat")
        seen.page.click("#go")
        state = seen.page.locator(".run .state")
        expect(state).to_have_text("no")
        expect(state).to_have_css("color", BAD)


def test_viewer_shows_the_whole_image(browser: Browser, server: Server) -> None:
    with visit(browser, server.url, viewport={"width": 1280, "height": 720}) as seen:
        seen.sign_in(server.key)
        seen.generate("a red apple", width=512, height=1024)
        seen.page.locator("#runs figure.image .frame").first.click()
        image = seen.page.locator("#viewed img")
        expect(image).to_be_in_viewport(ratio=1)
        box = image.bounding_box()
        assert box is not None
        assert abs(box["width"] / box["height"] - 0.5) < 0.01
        seen.page.mouse.click(5, 5)
        expect(seen.page.locator("#viewer")).to_be_hidden()
