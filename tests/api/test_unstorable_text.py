"""A NUL or a lone surrogate, which PostgreSQL can't store, in every field of every request: refused or not found."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from sqlalchemy import Engine, event

from allaprima.api.operator import create_operator_app
from allaprima.service.app import Service

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Each character as it is in JSON, and as the bytes of a URL.
TEXTS = {"NUL": ("a\\u0000b", "a%00b"), "surrogate": ("a\\ud800b", "a%ED%A0%80b")}
#: The members that the bodies of a path need, in addition to the one that is tested.
BODIES: dict[str, dict[str, Any]] = {
    "/v1/images/generations": {"prompt": "a boat", "model": "sketch", "size": "64x64"},
    "/v1/jobs": {"prompt": "a boat", "model": "sketch", "size": "64x64"},
}


def unstorable(value: Any) -> list[str]:
    """Return the texts in the parameters of a statement that PostgreSQL can't store."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [text for item in value for text in unstorable(item)]
    is_bad = isinstance(value, str) and ("\0" in value or any("\ud800" <= char <= "\udfff" for char in value))
    return [value] if is_bad else []


@contextmanager
def statements_with_unstorable_text() -> Iterator[list[str]]:
    """Collect the statements that such a text reaches, on either database."""
    found: list[str] = []

    def check(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if unstorable(parameters):
            found.append(statement)

    event.listen(Engine, "before_cursor_execute", check)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", check)


def members(document: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    """Return the names of an object's members, those of all its alternatives."""
    if reference := schema.get("$ref"):
        return members(document, document["components"]["schemas"][reference.rpartition("/")[2]])
    alternatives = [*schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("allOf", [])]
    return set(schema.get("properties", {})).union(*(members(document, one) for one in alternatives))


def requests(document: dict[str, Any], kind: str) -> Iterator[tuple[str, str, str, bytes | None]]:
    """Return a method, a path, a query and a body for each parameter and each member of a body."""
    in_json, in_url = TEXTS[kind]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            named = operation.get("parameters", [])
            plain = "/".join("x" if part.startswith("{") else part for part in path.split("/"))
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for name in (item["name"] for item in named if item["in"] == "path"):
                yield method, path.replace(f"{{{name}}}", in_url), "", b"{}" if content else None
            for name in (item["name"] for item in named if item["in"] == "query"):
                yield method, plain, f"{quote(name)}={in_url}", None
            for name in members(document, content.get("schema", {})):
                fields = {key: f'"{value}"' for key, value in BODIES.get(path, {}).items()} | {name: f'"{in_json}"'}
                yield method, plain, "", ("{" + ", ".join(f'"{key}": {fields[key]}' for key in fields) + "}").encode()


@pytest.mark.parametrize("kind", TEXTS)
async def test_text_that_can_not_be_stored_reaches_no_statement(shared_client: httpx2.AsyncClient, kind: str) -> None:
    document = (await shared_client.get("/openapi.json")).json()
    headers = {"content-type": "application/json"}
    asked, reached = 0, []
    for method, path, query, body in requests(document, kind):
        url = f"{path.replace('{', '%7B').replace('}', '%7D')}?{query}"
        with statements_with_unstorable_text() as found:
            answer = await shared_client.request(method, url, content=body, headers=headers)
        assert answer.status_code < 500, (method, url, body, answer.text)
        if found:
            reached.append((method, url, body, answer.status_code))
        asked += 1
    assert not reached
    assert asked > 100


#: The bodies of the operator's requests by path; each `?` is tested.
OPERATOR_BODIES: dict[str, tuple[dict[str, str], ...]] = {
    "/keys": ({"name": "?"}, {"account": "?"}),
    "/keys/revoke": ({"prefix": "?"},),
    "/accounts": ({"name": "?"},),
    "/accounts/credit": ({"account": "?", "usd": "1"}, {"account": "default", "usd": "1", "note": "?"}),
    "/accounts/erase": ({"account": "?"},),
    "/sign-in-links": ({"account": "?"},),
}


@pytest.mark.parametrize("kind", TEXTS)
async def test_operator_text_that_can_not_be_stored_reaches_no_statement(shared: Service, kind: str) -> None:
    async def link_to(account: str | None) -> str:
        return (await shared.operator.accounts.find(account or "default")).id

    transport = httpx2.ASGITransport(create_operator_app(shared.operator, None, link_to))
    async with httpx2.AsyncClient(transport=transport, base_url="http://operator.test") as operator:
        for path, bodies in OPERATOR_BODIES.items():
            for body in bodies:
                with statements_with_unstorable_text() as found:
                    answer = await operator.post(path, content=json.dumps(body).replace("?", TEXTS[kind][0]))
                assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), (path, body)
                assert not found, (path, body)
