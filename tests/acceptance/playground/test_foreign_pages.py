"""What a web page of another origin can do, in a real browser, to a server without authentication: nothing."""

import http.server
import threading
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.processes import LIMIT_S, Server
from tests.programs import need

#: Every way to send a request from a page, without asking the server first where there is one.
ATTEMPTS = {
    "simple request": """async (url) => {
        const body = '{"model": "sketch", "prompt": "a red apple"}';
        await fetch(`${url}/v1/jobs`, {method: "POST", mode: "no-cors", body});
        return "sent";
    }""",
    "request with a preflight": """(url) => fetch(`${url}/v1/jobs`, {
        method: "POST",
        headers: {"Content-Type": "application/json"},
        body: '{"model": "sketch", "prompt": "a red apple"}',
    }).then((answer) => answer.status, () => "refused")""",
    "read": "(url) => fetch(`${url}/v1/jobs`).then((answer) => answer.text(), () => 'refused')",
    "beacon": """(url) => {
        const body = new Blob(['{"model": "sketch", "prompt": "a red apple"}'], {type: "text/plain"});
        return navigator.sendBeacon(`${url}/v1/jobs`, body) ? "sent" : "refused";
    }""",
    "image": """(url) => new Promise((done) => {
        const image = new Image();
        image.onload = image.onerror = (event) => done(event.type);
        image.src = `${url}/playground/favicon.svg`;
    })""",
}


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>foreign</title><p>A page")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def open_server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    return serve_module(tmp_path_factory.mktemp("no auth") / "data", "--no-auth")


@pytest.fixture
def foreign(browser: Browser) -> Iterator[Page]:
    """A page of another port of this machine, which is another origin of the same site."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(LIMIT_S * 1000)
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        yield page
        context.close()
        server.shutdown()


def test_foreign_page_generates_and_reads_nothing(open_server: Server, foreign: Page) -> None:
    with foreign.expect_response(lambda answer: answer.url.endswith("/v1/jobs")) as refused:
        outcomes = {name: foreign.evaluate(attempt, open_server.url) for name, attempt in ATTEMPTS.items()}

    assert refused.value.status == 403
    assert outcomes == {
        "simple request": "sent",
        "request with a preflight": "refused",
        "read": "refused",
        "beacon": "sent",
        "image": "error",
    }
    # A request that the browser sends after the others shows that the server has answered them.
    foreign.evaluate(ATTEMPTS["simple request"], open_server.url)
    assert open_server.query("SELECT count(*) FROM jobs") == [(0,)]


def test_link_on_a_foreign_page_opens_the_playground(open_server: Server, foreign: Page) -> None:
    foreign.evaluate("(url) => { location.href = url; }", f"{open_server.url}/")
    expect(foreign.locator("#user")).to_have_text("no-auth on this machine")


def test_form_of_a_foreign_page_generates_nothing(open_server: Server, foreign: Page) -> None:
    with foreign.expect_navigation() as opened:
        foreign.evaluate(
            """(url) => {
                const form = document.createElement("form");
                Object.assign(form, {method: "POST", action: `${url}/v1/jobs`, enctype: "text/plain"});
                const field = document.createElement("input");
                Object.assign(field, {name: '{"model": "sketch", "prompt": "', value: 'a red apple"}'});
                form.append(field);
                document.body.append(form);
                form.submit();
            }""",
            open_server.url,
        )
    assert opened.value is not None
    assert opened.value.status == 403
    assert open_server.query("SELECT count(*) FROM jobs") == [(0,)]


def test_host_name_that_resolves_to_this_machine_opens_nothing(open_server: Server, browser: Browser) -> None:
    launched = browser.browser_type.launch(
        executable_path=need("chromium", "shows the playground"),
        args=["--no-sandbox", "--host-resolver-rules=MAP rebound.example 127.0.0.1"],
    )
    try:
        page = launched.new_page()
        answer = page.goto(f"http://rebound.example:{open_server.port}/")
        assert answer is not None
        assert (answer.status, "Host 'rebound.example" in answer.text()) == (403, True)
        read = "() => fetch('/v1/jobs').then((answer) => answer.status)"
        assert page.evaluate(read) == 403
    finally:
        launched.close()
