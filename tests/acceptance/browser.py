"""A real headless Chromium on the playground, which records console errors and all requests."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.acceptance.processes import LIMIT_S, Server
from tests.programs import need

expect.set_options(timeout=LIMIT_S * 1000)

#: Settings of a request that is still running when the test acts.
LONG = {"steps": 12, "count": 2, "width": 1024, "height": 1024}
VIEWS = ("generate", "gallery", "explore", "code", "usage")


@dataclass
class Visit:
    """A page, with the console errors and the requests while it was open."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def foreign(self) -> list[str]:
        """Requests to other hosts than the server."""
        return [url for url in self.requests if not url.startswith((f"{self.url}/", "data:", "blob:"))]

    def sign_in(self, key: str, *, is_remembered: bool = False) -> None:
        """Sign in on the page."""
        self.page.fill("#key", key)
        if is_remembered:
            self.page.check("#remember")
        self.page.press("#key", "Enter")
        self.signed_in()

    def signed_in(self) -> None:
        """Wait until the page is signed in; narrow pages show no name."""
        self.page.locator("#sign-out").wait_for()

    def open(self, view: str) -> None:
        """Go to a view by its link."""
        self.page.click(f'#views a[href="#{view}"]')
        self.page.locator(f"main > section#{view}").wait_for()

    def set(self, **settings: Any) -> None:
        """Fill the form: steps, count, model, size, or the text of a field by its id. Opens the settings first."""
        self.page.evaluate("for (const id of ['settings', 'more-settings']) document.getElementById(id).open = true")
        width, height = settings.pop("size", (None, None))
        if width:
            settings |= {"width": width, "height": height}
        for name, value in settings.items():
            if name == "model":
                self.page.select_option("#model", str(value))
            elif name == "count":
                self.page.check(f"#count-{value}")
            else:
                self.page.fill(f"#{name}", str(value))
                self.page.dispatch_event(f"#{name}", "change")

    def generate(self, prompt: str, **settings: Any) -> None:
        """Fill the form and submit it."""
        self.page.fill("#prompt", prompt)
        if settings:
            self.set(**settings)
        self.page.press("#prompt", "Control+Enter")

    def finished(self) -> Any:
        """Wait until the request on the stage has ended with images, and return the element of the first one."""
        image = self.page.locator("#stage figure.image .frame img").first
        image.wait_for()
        return image

    def previewed(self) -> None:
        """Wait until the request on the stage has shown a preview. It counts previews, so that none is missed."""
        self.page.locator(".run[data-previews]").first.wait_for()

    def drop(self, name: str, data: bytes) -> None:
        """Drop a file somewhere on the page."""
        transfer = self.page.evaluate_handle(
            """([name, text]) => {
                const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
                const transfer = new DataTransfer();
                transfer.items.add(new File([bytes], name, {type: "image/png"}));
                return transfer;
            }""",
            [name, base64.b64encode(data).decode()],
        )
        for event in ("dragenter", "dragover", "drop"):
            self.page.dispatch_event("body", event, {"dataTransfer": transfer})


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium, without a window."""
    path = need("chromium", "shows the playground")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=LIMIT_S * 1000)
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser, url: str, **options: Any) -> Iterator[Visit]:
    """Open the playground in a fresh profile; fail at the end if there was an error or a request to another host.

    options: of the browser's context, and `expected_errors`: texts that a console error may contain.
    """
    expected: tuple[str, ...] = options.pop("expected_errors", ())
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(LIMIT_S * 1000)
    seen = Visit(page, url)
    page.on("console", lambda message: seen.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.errors.append(error.message))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.goto(f"{url}/")
    try:
        yield seen
    finally:
        context.close()
    assert [error for error in seen.errors if not any(text in error for text in expected)] == []
    assert seen.foreign == []


def generated(server: Server, **body: object) -> bytes:
    answer = server.post(server.key, **body)
    assert answer.status_code == 200, answer.text
    return httpx2.get(answer.json()["images"][0]["url"]).content
