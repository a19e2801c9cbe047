"""Take the screenshots of the playground for the README and the docs, light, dark and on a phone, from a new server."""

import shutil
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from service import server

FOLDER = Path("docs/images")
PROMPT = "A T-Rex relaxing on a beach, lying on a sun lounger and wearing sunglasses."
SHEET = "a red apple, blue background\na fox in the forest\na rocket in space"


def main() -> None:
    """Write the screenshots into docs/images."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        server(Path(folder) / "data") as (address, key, _),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        take(browser, address, key, name="light", scheme="light", size=(1280, 860))
        take(browser, address, key, name="dark", scheme="dark", size=(1280, 860))
        take(browser, address, key, name="phone", scheme="light", size=(390, 844))
        browser.close()


def take(
    browser: Browser, address: str, key: str, *, name: str, scheme: Literal["light", "dark"], size: tuple[int, int]
) -> None:
    """Take one screenshot: the Generate view with the example prompt, or for `dark` a sheet of the Explore view."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page.goto(f"{address}/")
    page.fill("#key", key)
    page.press("#key", "Enter")
    page.locator("#user").wait_for()
    page.fill("#seed", "0")
    page.check("#lock")
    if name == "dark":
        page.select_option("#preset", "512x512")
        page.click('#views a[href="#explore"]')
        page.fill("#prompts", SHEET)
        page.click("#explore-form button.primary")
        page.locator("#sheet img").nth(11).wait_for()
        page.locator("#explore-note").evaluate("note => note.scrollIntoView()")
    else:
        page.fill("#prompt", PROMPT)
        page.press("#prompt", "Control+Enter")
        page.locator(".run figure.image .frame img").wait_for()
        page.locator("#tokens:not(:empty)").wait_for()
    page.wait_for_timeout(500)
    path = FOLDER / f"playground-{name}.png"
    page.screenshot(path=path, full_page=name == "phone")
    page.close()
    print(path)


if __name__ == "__main__":
    main()
