"""A client behind TLS and a proxy, configured as shipped, is served as one that reaches the server directly."""

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from allaprima.cli.http_server import KEEP_ALIVE_S
from allaprima.settings import ServerSettings
from tests.acceptance.conftest import Serve
from tests.acceptance.processes import Server
from tests.acceptance.proxies.processes import DEPLOY, PATH, Proxy, free_port, nginx, trusting_all

pytestmark = pytest.mark.timeout(600)

SMALL = {"model": "allaprima/sketch", "prompt": "a red apple", "size": "64x64", "seed": 7}
LONG = {"model": "allaprima/sketch", "prompt": "a red apple", "size": "1024x1024", "num_inference_steps": 12, "n": 4}


def test_image_link_has_the_public_scheme_host_and_path_and_works_without_a_key(
    client: httpx2.Client, proxy: Proxy
) -> None:
    answer = client.post("/v1/images/generations", json=SMALL)
    assert answer.status_code == 200, answer.text
    link = answer.json()["data"][0]["url"]
    assert link.startswith(f"{proxy.url}/files/")
    with httpx2.Client(verify=trusting_all()) as anonymous:
        image = anonymous.get(link)
    assert image.status_code == 200
    assert image.headers["content-type"] == "image/png"


def test_events_arrive_while_the_job_runs(client: httpx2.Client, proxied: Server) -> None:
    job = client.post("/v1/jobs", json=LONG).json()["id"]
    with client.stream("GET", f"/v1/jobs/{job}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line == "event: step":
                break
        [[state]] = proxied.query(f"SELECT state FROM jobs WHERE id = '{job}'")  # noqa: S608
    assert state == "running"
    assert client.post(f"/v1/jobs/{job}/cancel").status_code < 300


def test_connections_of_a_trusted_proxy_are_not_counted_as_of_one_client(client: httpx2.Client) -> None:
    job = client.post("/v1/jobs", json=LONG).json()["id"]
    with ExitStack() as stack:
        streams = [stack.enter_context(client.stream("GET", f"/v1/jobs/{job}/events")) for _ in range(4)]
        assert [stream.status_code for stream in streams] == [200] * 4
    assert client.post(f"/v1/jobs/{job}/cancel").status_code < 300


def test_body_that_is_too_large_gets_413_with_the_servers_words(client: httpx2.Client) -> None:
    allowed = ServerSettings().max_body_bytes
    answer = client.post("/v1/images/generations", json=SMALL | {"prompt": "a" * (allowed + 1)})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "payload_too_large"
    assert client.post("/v1/images/generations", content=b" " * (8 * allowed)).status_code == 413


def test_page_reference_and_document_are_served_with_links_below_the_path(client: httpx2.Client) -> None:
    for path in ("/", "/docs"):
        page = client.get(path)
        assert page.status_code == 200
        links = re.findall(r'(?:href|src)="([^"#:]+)"', page.text)
        assert links
        for link in links:
            assert client.get(f"/{link}").status_code == 200, link
    assert client.get("/openapi.json").json()["info"]["title"] == "allaprima"


def test_model_whose_name_has_a_slash_is_found(client: httpx2.Client) -> None:
    for name in ("flux/schnell", "flux%2Fschnell"):
        assert client.get(f"/v1/models/{name}").json()["id"] == "flux/schnell"


def test_metrics_are_closed_to_clients_of_the_proxy(client: httpx2.Client, proxied: Server) -> None:
    assert client.get("/metrics").status_code == 403
    assert httpx2.get(f"{proxied.url}/metrics").status_code == 200


def test_forwarded_headers_of_a_client_do_not_pass_the_proxy(client: httpx2.Client, proxy: Proxy) -> None:
    forged = {
        "x-forwarded-proto": "http",
        "x-forwarded-host": "evil.example",
        "x-forwarded-prefix": "/evil",
        "forwarded": "proto=http;host=evil.example",
    }
    answer = client.post("/v1/images/generations", json=SMALL, headers=forged)
    assert answer.json()["data"][0]["url"].startswith(f"{proxy.url}/files/")


@pytest.mark.parametrize("name", ["nginx path", "caddy path"])
def test_path_without_its_last_slash_is_redirected(name: str, start_proxy: Callable[[str], Proxy]) -> None:
    url = start_proxy(name).url
    with httpx2.Client(verify=trusting_all(), follow_redirects=True) as client:
        answer = client.get(url)
    assert str(answer.url) == f"{url}/"
    assert answer.status_code == 200


@pytest.mark.parametrize("name", ["nginx host", "nginx path"])
def test_plain_http_is_redirected_to_tls(name: str, start_proxy: Callable[[str], Proxy]) -> None:
    answer = httpx2.get(f"http://localhost:{start_proxy(name).http_port}/images/docs")
    assert answer.status_code == 301
    assert answer.headers["location"] == "https://localhost/images/docs"


def test_forwarded_headers_of_an_untrusted_address_are_ignored_and_said_once(proxied: Server) -> None:
    headers = {"authorization": f"Bearer {proxied.key}", "x-forwarded-proto": "https", "x-forwarded-prefix": "/a"}
    with httpx2.Client(transport=httpx2.HTTPTransport(local_address="127.0.0.9")) as client:
        for _ in range(2):
            answer = client.post(f"{proxied.url}/v1/images/generations", json=SMALL, headers=headers, timeout=60)
            assert answer.json()["data"][0]["url"].startswith(f"{proxied.url}/files/")
    lines = [json.loads(line) for line in proxied.output.splitlines() if "127.0.0.9" in line]
    [event] = [line["event"] for line in lines]
    assert "ALLAPRIMA_SERVER__TRUSTED_PROXIES" in event


@pytest.mark.parametrize("file", ["nginx/host.conf", "nginx/path.conf"])
def test_nginx_waits_longer_than_a_synchronous_request_takes(file: str) -> None:
    text = (DEPLOY / file).read_text()
    [timeout] = re.findall(r"^\s*proxy_read_timeout (\d+)s;", text, re.MULTILINE)
    assert int(timeout) > ServerSettings().wait_s


@pytest.mark.parametrize("file", ["nginx/host.conf", "nginx/path.conf", "caddy/host.Caddyfile", "caddy/path.Caddyfile"])
def test_proxy_closes_idle_connections_before_the_server_does(file: str) -> None:
    text = (DEPLOY / file).read_text()
    [idle] = re.findall(r"^\s*(?:keepalive_timeout|keepalive) (\d+)s;?$", text, re.MULTILINE)
    assert int(idle) < KEEP_ALIVE_S


def test_public_url_with_a_path_is_the_base_of_links(serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    url = f"https://localhost:{port}{PATH}"
    server = serve(tmp_path / "data", "--public-url", url)
    with nginx("path", tmp_path, server.port, port), httpx2.Client(verify=trusting_all()) as client:
        answer = client.post(
            f"{url}/v1/images/generations", json=SMALL, headers={"authorization": f"Bearer {server.key}"}, timeout=60
        )
        link = answer.json()["data"][0]["url"]
        assert link.startswith(f"{url}/files/")
        assert client.get(link).status_code == 200
    assert "ignored the X-Forwarded headers" not in server.output
