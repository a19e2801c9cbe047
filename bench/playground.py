"""Measure the playground: its first paint on loopback, the first image after a click, its bytes, and its gallery.

Each run starts a headless Chromium with an empty profile, and a server. First paint is the browser's
`first-contentful-paint`. The gallery has 500 images; its frames are measured while the mouse wheel scrolls through all
of them. Prints a table in Markdown with machine and date.
"""

import argparse
import datetime as dt
import shutil
import statistics
import tempfile
from pathlib import Path

import httpx2
from playwright.sync_api import Browser, Page, sync_playwright

from allaprima.api.web.routes import PLAYGROUND_FOLDER
from service import cpu_name, server

IMAGES = 500
#: Pixels of one turn of the mouse wheel.
WHEEL_PX = 300
#: Collects the durations of frames in milliseconds.
WATCH_FRAMES = """() => {
    window.frames_ms = [];
    let last = performance.now();
    const count = (now) => { window.frames_ms.push(now - last); last = now; requestAnimationFrame(count); };
    requestAnimationFrame(count);
}"""

#: Clicks the first example; returns the seconds until its image is on the page. Measured in the page, because waiting
#: for an element from outside polls in steps of up to half a second.
CLICK_EXAMPLE = """() => new Promise((done) => {
    const start = performance.now();
    document.querySelector(".greeting button").click();
    const look = () => {
        const image = document.querySelector("#stage figure.image .frame img");
        if (image?.complete && image.naturalWidth) done((performance.now() - start) / 1000);
        else requestAnimationFrame(look);
    };
    look();
})"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--images", type=int, default=IMAGES, help="images of the gallery; 0 leaves it out")
    options = parser.parse_args()
    paints, images = [], []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "data") as (address, key, _process):
            paint, image = load(address, key)
            paints.append(paint)
            images.append(image)
    size = sum(file.stat().st_size for file in PLAYGROUND_FOLDER.rglob("*") if file.is_file())
    print(f"{cpu_name()}, {dt.datetime.now(dt.UTC):%Y-%m-%d}, medians of {options.runs}\n")
    print("| figure | value | limit |\n|---|---|---|")
    print(f"| first paint, ms | {statistics.median(paints):.0f} (at most {max(paints):.0f}) | 300 |")
    print(f"| first click to image, s | {statistics.median(images):.2f} (at most {max(images):.2f}) | 1 |")
    print(f"| page, scripts, styles and samples, kB | {size / 1000:.0f} | 180 |")
    if options.images:
        loaded, frame = gallery(options.images)
        print(f"| gallery of {options.images} images: first screen, kB | {loaded / 1000:.0f} | 1000 |")
        print(f"| gallery of {options.images} images: frame while scrolling, p95, ms | {frame:.0f} | 60 |")


def load(address: str, key: str) -> tuple[float, float]:
    """Return the milliseconds to the first paint, and the seconds from the click on an example to its image."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        paint = first_paint(browser, address)
        page = browser.new_page()
        sign_in(page, address, key)
        page.locator(".greeting button").first.wait_for()
        image: float = page.evaluate(CLICK_EXAMPLE)
        browser.close()
    return paint, image


def gallery(images: int) -> tuple[int, float]:
    """Return the bytes that the first screen of a gallery loads, and the 95th percentile of its frames in ms."""
    with (
        tempfile.TemporaryDirectory() as folder,
        server(Path(folder) / "data") as (address, key, _process),
        sync_playwright() as playwright,
    ):
        fill(address, key, images)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        sizes: list[int] = []
        sign_in(page, address, key)
        page.locator("#history img").first.wait_for()
        page.wait_for_load_state("networkidle")
        page.on("requestfinished", lambda request: sizes.append(request.sizes()["responseBodySize"]))
        page.click('#views a[href="#gallery"]')
        page.locator("#images .tile img").first.wait_for()
        page.wait_for_load_state("networkidle")
        loaded = sum(sizes)
        page.mouse.move(640, 500)
        page.evaluate(WATCH_FRAMES)
        while page.locator("#images .tile").count() < images or not is_at_end(page):
            page.mouse.wheel(0, WHEEL_PX)
            page.wait_for_timeout(30)
        frames: list[float] = page.evaluate("window.frames_ms")
        browser.close()
    return loaded, statistics.quantiles(frames, n=20)[-1]


def is_at_end(page: Page) -> bool:
    """Return whether the page is scrolled to its end."""
    return bool(page.evaluate("scrollY + innerHeight >= document.documentElement.scrollHeight - 2"))


def fill(address: str, key: str, images: int) -> None:
    """Generate images of different seeds in the default size of the playground."""
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=address, headers=headers, timeout=600) as client:
        for first in range(0, images, 4):
            body = {
                "model": "flux/schnell",
                "prompt": "a fox in the forest",
                "image_size": {"width": 1024, "height": 768},
                "num_images": min(4, images - first),
                "num_inference_steps": 1,
                "seed": first,
            }
            client.post("/v1/images/generations", json=body).raise_for_status()


def sign_in(page: Page, address: str, key: str) -> None:
    """Sign in with a key."""
    page.goto(f"{address}/")
    page.fill("#key", key)
    page.press("#key", "Enter")
    page.locator("#sign-out").wait_for()


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
