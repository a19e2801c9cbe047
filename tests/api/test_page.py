"""The pages: a strict content security policy, relative links, and only their own files are served."""

import re

import httpx2
import pytest

from allaprima.api.web.routes import PLAYGROUND_FOLDER


def directives(policy: str) -> dict[str, str]:
    return dict(part.strip().split(" ", 1) for part in policy.split(";"))


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_policy_allows_only_files_of_page(anonymous: httpx2.AsyncClient, path: str) -> None:
    page = await anonymous.get(path)
    policy = directives(page.headers["content-security-policy"])
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' data:"
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["referrer-policy"] == "same-origin"
    assert page.headers["x-content-type-options"] == "nosniff"


async def test_every_file_of_page_and_modules_is_served(anonymous: httpx2.AsyncClient) -> None:
    page = (await anonymous.get("/")).text
    links = re.findall(r'(?:href|src)="(playground/[^"]+)"', page)
    modules = {
        f"/playground/js/{name}" for file in PLAYGROUND_FOLDER.rglob("*.js") for name in imported(file.read_text())
    }
    assert len(links) >= 3
    assert len(modules) >= 10
    assert not re.findall(r'(?:href|src)="/', page)
    for link in (*(f"/{link}" for link in links), *modules):
        answer = await anonymous.get(link)
        assert answer.status_code == 200, link
        assert answer.headers["x-content-type-options"] == "nosniff"


def imported(script: str) -> list[str]:
    return re.findall(r'^import .* from "\./([\w.]+)";$', script, re.MULTILINE)


@pytest.mark.parametrize(
    "path", ["/playground/index.html", "/playground/../page.py", "/playground/..%2fapp.py", "/playground/js"]
)
async def test_files_outside_page_folder_are_not_served(anonymous: httpx2.AsyncClient, path: str) -> None:
    assert (await anonymous.get(path)).status_code == 404


async def test_dry_runs_do_not_count_against_rate_limit(client: httpx2.AsyncClient) -> None:
    body = {"model": "sketch", "prompt": "a boat", "dry_run": True}
    for path in ("/v1/jobs", "/v1/images/generations"):
        answer = await client.post(path, json=body)
        assert answer.status_code == 200
        assert "x-ratelimit-remaining-requests" not in answer.headers
