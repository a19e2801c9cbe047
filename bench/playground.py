"""Measure how fast the playground loads: its first paint on loopback, the first image after a click, and its bytes.

Each run starts a headless Chromium with an empty profile, and a server. First paint is the browser's
`first-contentful-paint`. Prints a table in Markdown with machine and date.
"""

import argparse
import datetime as dt
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from allaprima.api.web.routes import PLAYGROUND_FOLDER
from service import cpu_name, server


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    files = [file for file in PLAYGROUND_FOLDER.rglob("*") if file.suffix in (".js", ".css", ".html")]
    paints, images = [], []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "data") as (address, key, _process):
            paint, image = load(address, key)
            paints.append(paint)
            images.append(image)
    print(f"{cpu_name()}, {dt.datetime.now(dt.UTC):%Y-%m-%d}, medians of {options.runs}\n")
    print("| figure | value | limit |\n|---|---|---|")
    print(f"| first paint, ms | {statistics.median(paints):.0f} (at most {max(paints):.0f}) | 300 |")
    print(f"| first click to image, s | {statistics.median(images):.2f} (at most {max(images):.2f}) | 2 |")
    print(f"| page, scripts and styles, kB | {sum(file.stat().st_size for file in files) / 1000:.0f} | 150 |")


def load(address: str, key: str) -> tuple[float, float]:
    """Return the milliseconds to the first paint, and the seconds from the click on an example to its image."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        paint = first_paint(browser, address)
        page = browser.new_page()
        page.goto(f"{address}/")
        page.fill("#key", key)
        page.press("#key", "Enter")
        example = page.locator(".greeting button").first
        example.wait_for()
        started = time.perf_counter()
        example.click()
        page.locator(".run figure.image .frame img").wait_for()
        image = time.perf_counter() - started
        browser.close()
    return paint, image


def first_paint(browser: Browser, address: str) -> float:
    """Return the browser's first-contentful-paint of the page in milliseconds."""
    page = browser.new_page()
    page.goto(f"{address}/")
    page.locator("#key").wait_for()
    page.wait_for_timeout(200)
    found: float = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    page.close()
    return found


if __name__ == "__main__":
    main()
