"""The gallery, the viewer, and settings that are read from image files."""

import io
import re
import zipfile
from pathlib import Path

import httpx2
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.acceptance.browser import Visit, generated, visit
from tests.acceptance.processes import Server, allaprima
from tests.image_files import read_metadata

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
#: Settings of an image that is generated in little time.
QUICK = {"size": "256x256", "model": "sketch"}


def open_gallery(seen: Visit, server: Server) -> None:
    seen.sign_in(server.key)
    seen.open("gallery")
    seen.page.locator("#images .tile").first.wait_for()


def test_gallery_shows_thumbnails_in_other_browser(browser: Browser, server: Server) -> None:
    generated(server, prompt="a penguin in the snow", seed=11, **QUICK)
    with visit(browser, server.url) as seen:
        open_gallery(seen, server)
        newest = seen.page.locator("#images .tile img").first
        expect(newest).to_have_attribute("alt", "a penguin in the snow, seed 11")
        assert newest.evaluate("image => image.decode().then(() => image.naturalWidth)") <= 320
        assert "/thumbnails/" in newest.get_attribute("src")


def test_search_and_star_filter_the_gallery(browser: Browser, server: Server) -> None:
    generated(server, prompt="a cactus in the desert", **QUICK)
    generated(server, prompt="a whale on the sea", **QUICK)
    with visit(browser, server.url) as seen:
        open_gallery(seen, server)
        seen.page.fill("#search", "DESERT cactus")
        expect(seen.page.locator("#images .tile")).to_have_count(1)
        tile = seen.page.locator("#images .tile").first
        tile.hover()
        tile.locator(".star").click()
        expect(tile.locator(".star")).to_have_attribute("aria-pressed", "true")
        seen.page.fill("#search", "")
        seen.page.check("#only-starred")
        expect(seen.page.locator("#images .tile img")).to_have_count(1)
        seen.page.reload()
        seen.signed_in()
        seen.page.check("#only-starred")
        expect(seen.page.locator("#images .tile img")).to_have_count(1)
        seen.page.locator("#images .tile .frame").first.click()
        expect(seen.page.locator("#viewed .what")).not_to_contain_text("until")


def test_gallery_shows_images_of_other_keys_on_request(browser: Browser, server: Server) -> None:
    made = allaprima("keys", "create", "--data-dir", server.data_dir, folder=server.data_dir.parent)
    other = re.findall(r"ap_[0-9A-Za-z]{36}", made.stdout)[0]
    generated(server, prompt="a snail in a meadow", **QUICK)
    with visit(browser, server.url) as seen:
        seen.sign_in(other)
        seen.open("gallery")
        expect(seen.page.locator("#images")).to_contain_text("No stored images")
        seen.page.check("#of-account")
        expect(seen.page.locator("#images .tile img").first).to_have_attribute("alt", re.compile("a snail in a meadow"))


def test_dropped_png_restores_its_settings(browser: Browser, server: Server) -> None:
    seed = 2**63 - 2
    image = generated(server, prompt="a crab, “on” a beach 🏖", seed=seed, size="512x320", steps=3, model="sketch")
    assert read_metadata(image)["seed"] == seed
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.open("gallery")
        seen.drop("any name.png", image)
        seen.page.locator("#generate").wait_for()
        assert seen.page.input_value("#prompt") == "a crab, “on” a beach 🏖"
        assert seen.page.input_value("#seed") == str(seed)
        assert (seen.page.input_value("#width"), seen.page.input_value("#height")) == ("512", "320")
        assert seen.page.input_value("#steps") == "3"
        assert seen.page.input_value("#model") == "allaprima/sketch"
        before = seen.page.locator("#history .frame").count()
        seen.page.press("#prompt", "Control+Enter")
        expect(seen.page.locator("#history .frame")).to_have_count(before + 1)
        source = seen.finished().get_attribute("src")
        assert str(seed) in seen.page.locator("#stage .what").inner_text()
        assert httpx2.get(source).content == image


def test_dropped_file_without_settings_shows_message(browser: Browser, server: Server) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.drop("other.png", file.getvalue())
        expect(seen.page.locator("#notice")).to_contain_text("contains no settings")


def test_two_images_are_compared_side_by_side(browser: Browser, server: Server) -> None:
    for steps in (2, 4):
        generated(server, prompt="a house in the snow", seed=5, steps=steps, **QUICK)
    with visit(browser, server.url) as seen:
        open_gallery(seen, server)
        for i in (0, 1):
            seen.page.locator("#images .tile").nth(i).hover()
            seen.page.locator("#images .choose").nth(i).click()
        seen.page.click("#compare")
        expect(seen.page.locator("#viewed img")).to_have_count(2)
        expect(seen.page.locator("#viewer-title")).to_have_text("Comparison: the images differ in steps")
        assert seen.page.locator("#viewed mark").all_inner_texts() == ["steps 4", "steps 2"]
        seen.page.keyboard.press("Escape")
        expect(seen.page.locator("#viewer")).to_be_hidden()


def test_deletion_can_be_undone_until_the_page_is_left(browser: Browser, server: Server) -> None:
    for number in range(3):
        generated(server, prompt=f"a ghost in the forest {number}", **QUICK)
    with visit(browser, server.url) as seen:
        open_gallery(seen, server)
        tiles = seen.page.locator("#images .tile:not([hidden])")
        before = tiles.count()
        ids = [tiles.nth(i).get_attribute("data-image") for i in range(2)]
        tiles.nth(0).locator(".frame").focus()
        seen.page.keyboard.press("Delete")
        expect(tiles).to_have_count(before - 1)
        assert seen.page.evaluate("document.activeElement.closest('.tile').dataset.image") == ids[1]
        seen.page.locator("#toast button").click()
        expect(tiles).to_have_count(before)
        seen.page.locator("#images .frame").first.focus()
        seen.page.keyboard.press("x")
        seen.page.keyboard.press("ArrowRight")
        seen.page.keyboard.press("x")
        seen.page.keyboard.press("Delete")
        expect(seen.page.locator("#toast")).to_contain_text("2 images deleted")
        seen.page.goto("about:blank")
        headers = {"authorization": f"Bearer {server.key}"}
        for _ in range(100):
            found = [httpx2.get(f"{server.url}/v1/images/{one}", headers=headers).status_code for one in ids]
            if found == [404, 404]:
                break
            seen.page.wait_for_timeout(50)
        assert found == [404, 404]


def test_selected_images_are_downloaded_in_one_archive(browser: Browser, server: Server, tmp_path: Path) -> None:
    images = [generated(server, prompt=f"a cup on a table {number}", **QUICK) for number in range(3)]
    with visit(browser, server.url) as seen:
        open_gallery(seen, server)
        seen.page.locator("#images .frame").nth(0).click(modifiers=["ControlOrMeta"])
        seen.page.locator("#images .frame").nth(2).click(modifiers=["Shift"])
        expect(seen.page.locator("#chosen-text")).to_have_text("3 images selected")
        with seen.page.expect_download() as download:
            seen.page.click("#download-chosen")
        download.value.save_as(tmp_path / "images.zip")
    with zipfile.ZipFile(tmp_path / "images.zip") as archive:
        assert sorted(archive.read(name) for name in archive.namelist()) == sorted(images)


def test_viewer_steps_through_images_by_arrow_keys(browser: Browser, server: Server) -> None:
    for number in range(3):
        generated(server, prompt=f"a tree at sunset {number}", **QUICK)
    with visit(browser, server.url) as seen:
        open_gallery(seen, server)
        seen.page.locator("#images .frame").first.focus()
        seen.page.keyboard.press("Enter")
        title = seen.page.locator("#viewer-title")
        expect(title).to_have_text("a tree at sunset 2")
        seen.page.keyboard.press("ArrowRight")
        expect(title).to_have_text("a tree at sunset 1")
        seen.page.keyboard.press("Delete")
        expect(title).to_have_text("a tree at sunset 0")
        seen.page.locator("#viewer #toast button").click()
        seen.page.keyboard.press("Escape")
        expect(seen.page.locator("#images .tile:not([hidden]) img").nth(1)).to_have_attribute(
            "alt", re.compile("sunset 1")
        )


def test_server_failure_keeps_loaded_images_and_offers_retry(browser: Browser, server: Server) -> None:
    generated(server, prompt="a cow in a meadow", **QUICK)
    with visit(browser, server.url, expected_errors=("ERR_",)) as seen:
        open_gallery(seen, server)
        before = seen.page.locator("#images .tile").count()
        seen.page.route("**/v1/images?*", lambda route: route.abort())
        seen.page.fill("#search", "cow")
        expect(seen.page.locator("#notice")).to_contain_text("The server can't be reached.")
        assert seen.page.locator("#images .tile").count() == before
        seen.page.unroute("**/v1/images?*")
        seen.page.locator("#notice button").click()
        expect(seen.page.locator("#notice")).to_be_hidden()
