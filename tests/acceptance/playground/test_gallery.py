"""The gallery, the viewer, and settings that are read from image files."""

import io
import re

import httpx2
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.acceptance.browser import generated, visit
from tests.acceptance.processes import Server, allaprima
from tests.image_files import read_metadata

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]


def test_gallery_survives_reload_and_shows_in_other_browser(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key, is_remembered=True)
        seen.generate("a penguin in the snow", seed=11)
        seen.finished()
        seen.page.reload()
        seen.page.locator("#user").wait_for()
        seen.open("gallery")
        newest = seen.page.locator("#images figure").first
        expect(newest).to_contain_text("a penguin in the snow")
        expect(newest).to_contain_text("seed 11")
    with visit(browser, server.url) as other:
        other.sign_in(server.key)
        other.open("gallery")
        expect(other.page.locator("#images figure").first).to_contain_text("seed 11")


def test_gallery_shows_images_of_other_keys_on_request(browser: Browser, server: Server) -> None:
    made = allaprima("keys", "create", "--data-dir", server.data_dir, folder=server.data_dir.parent)
    other = re.findall(r"ap_[0-9A-Za-z]{36}", made.stdout)[0]
    generated(server, prompt="a snail in a meadow", size="256x256", model="sketch")
    with visit(browser, server.url) as seen:
        seen.sign_in(other)
        seen.open("gallery")
        expect(seen.page.locator("#images")).to_contain_text("No stored images")
        seen.page.check("#of-account")
        expect(seen.page.locator("#images figure").first).to_contain_text("a snail in a meadow")


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
        seen.page.press("#prompt", "Control+Enter")
        source = seen.finished().get_attribute("src")
        assert str(seed) in seen.page.locator(".run figcaption").first.inner_text()
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
        generated(server, prompt="a house in the snow", seed=5, steps=steps, size="256x256", model="sketch")
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.open("gallery")
        for i in (0, 1):
            seen.page.locator("#images .choose").nth(i).click()
        seen.page.click("#compare")
        expect(seen.page.locator("#viewed img")).to_have_count(2)
        expect(seen.page.locator("#viewer-title")).to_have_text("Comparison: the images differ in steps")
        assert seen.page.locator("#viewed mark").all_inner_texts() == ["steps 4", "steps 2"]
        seen.page.keyboard.press("Escape")
        expect(seen.page.locator("#viewer")).to_be_hidden()


def test_deleted_image_is_gone_from_server(browser: Browser, server: Server) -> None:
    generated(server, prompt="a ghost in the forest", size="256x256", model="sketch")
    with visit(browser, server.url) as seen:
        seen.sign_in(server.key)
        seen.open("gallery")
        figure = seen.page.locator("#images figure").first
        source = figure.locator("img").get_attribute("src")
        figure.get_by_text("Delete", exact=True).click()
        figure.get_by_text("Really delete?").click()
        expect(seen.page.locator(f'img[src="{source}"]')).to_have_count(0)
    assert httpx2.get(source).status_code == 404
