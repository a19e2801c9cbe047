"""Layout and manners: the image is on the screen, a double click submits once, and the viewer fits."""

import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.browser import visit
from tests.acceptance.processes import Server

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
#: Sizes of a window in pixels; the last one is a desktop's at a zoom of 200 %.
SIZES = {"desktop": (1280, 860), "tablet": (820, 1180), "phone": (390, 844), "zoomed": (640, 430)}
SMALL = (512, 512)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_finished_images_are_on_the_screen(browser: Browser, server: Server, size: tuple[int, int]) -> None:
    viewport = {"width": size[0], "height": size[1]}
    with visit(browser, server.url, viewport=viewport, reduced_motion="reduce") as seen:
        seen.sign_in(server.key)
        for shape, count in (((1024, 768), 1), ((576, 1024), 1), ((640, 480), 4)):
            seen.generate("a red apple", size=shape, count=count)
            image = seen.page.locator("#stage figure.image .frame img:not(.preview)")
            expect(image).to_have_count(count)
            for i in range(count):
                expect(image.nth(i)).to_be_in_viewport(ratio=0.99)
            box = image.first.bounding_box()
            assert box is not None
            assert abs(box["width"] / box["height"] - shape[0] / shape[1]) < 0.02
            assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert seen.page.locator("body > header").evaluate("header => header.offsetHeight") < 70


def test_title_shows_the_end_and_caption_names_generator(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.generate("a red apple", model="flux/schnell", size=SMALL)
        expect(seen.page).to_have_title("\u2713 a red apple \u00b7 allaprima")
        caption = seen.page.locator("#stage .what")
        expect(caption).to_contain_text("allaprima/sketch (for flux/schnell)")
        expect(caption).to_contain_text("kept until ")
        expect(seen.page.locator("#demo")).to_contain_text("Demo model")


def test_double_click_submits_once(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        jobs = []
        seen.page.on("request", lambda request: jobs.append(request) if is_submission(request) else None)
        seen.page.fill("#prompt", "a blue boat")
        seen.page.dblclick("#go")
        seen.finished()
        assert len(jobs) == 1


def is_submission(request: object) -> bool:
    text = request.post_data or ""  # type: ignore[attr-defined]
    return request.url.endswith("/v1/jobs") and "dry_run" not in text  # type: ignore[attr-defined]


def test_long_prompt_leaves_the_image_on_the_screen(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.generate("a cat in a meadow " * 150, size=SMALL)
        expect(seen.page.locator("#stage img:not(.preview)")).to_be_in_viewport(ratio=0.99)


def test_settings_used_from_an_image_are_visible(browser: Browser, server: Server) -> None:
    with visit(browser, server.url, viewport={"width": 390, "height": 844}) as seen:
        seen.sign_in(server.key)
        seen.generate("a red apple", seed=8, size=SMALL)
        seen.finished()
        seen.page.fill("#prompt", "")
        seen.page.locator("#stage").get_by_text("Use these settings").click()
        expect(seen.page.locator("#prompt")).to_be_in_viewport()
        expect(seen.page.locator("#prompt")).to_have_value("a red apple")


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_viewer_shows_the_whole_image(browser: Browser, server: Server, size: tuple[int, int]) -> None:
    with visit(browser, server.url, viewport={"width": size[0], "height": size[1]}) as seen:
        seen.sign_in(server.key)
        seen.generate("a red apple", size=(512, 1024))
        seen.finished().click()
        image = seen.page.locator("#viewed img")
        # An image that is not loaded yet has no size, and counts as in the viewport.
        seen.page.wait_for_function("document.querySelector('#viewed img').naturalWidth > 0")
        expect(image).to_be_in_viewport(ratio=0.99)
        box = image.bounding_box()
        assert box is not None
        assert abs(box["width"] / box["height"] - 0.5) < 0.01
        seen.page.mouse.click(2, 2)
        expect(seen.page.locator("#viewer")).to_be_hidden()
