"""The reference at /docs loads nothing from other hosts, and the OpenAPI document agrees with the server."""

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from allaprima.api.dialects.aiml.requests import MEMBERS
from allaprima.api.v1.paths import IMAGES_PATH

# No test changes state that another test reads, so all tests share one service.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def anonymous(shared_anonymous: httpx2.AsyncClient) -> httpx2.AsyncClient:
    return shared_anonymous


@pytest.fixture
def client(shared_client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    return shared_client


@pytest_asyncio.fixture(loop_scope="module")
async def document(anonymous: httpx2.AsyncClient) -> dict[str, Any]:
    answer = await anonymous.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


@pytest.fixture
def post(document: dict[str, Any]) -> dict[str, Any]:
    return document["paths"][IMAGES_PATH]["post"]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "$ref":
                yield inner
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def resolve(document: dict[str, Any], value: Any) -> Any:
    while isinstance(value, dict) and "$ref" in value:
        found = document
        start, *steps = value["$ref"].split("/")
        assert start == "#"
        for step in steps:
            found = found[step]
        value = found
    return value


def links_in(page: str) -> list[str]:
    return re.findall(r'(?:href|src)="([^"]+)"', page)


# The page -----------------------------------------------------------------------------------------------------------


async def test_reference_page_refers_to_no_other_host(anonymous: httpx2.AsyncClient) -> None:
    page = await anonymous.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert len(links_in(page.text)) == 4
    assert all(re.match(r"[^/:]+/", link) for link in links_in(page.text))
    assert "://" not in page.text


async def test_every_file_that_reference_page_loads_is_served(anonymous: httpx2.AsyncClient) -> None:
    page = await anonymous.get("/docs")
    types = {".js": "javascript", ".css": "text/css", ".svg": "image/svg"}
    for link in links_in(page.text):
        answer = await anonymous.get(f"/{link}")
        assert answer.status_code == 200, link
        assert len(answer.content) > 100
        assert types["." + link.rpartition(".")[2]] in answer.headers["content-type"]


async def test_style_sheet_loads_nothing_from_other_hosts(anonymous: httpx2.AsyncClient) -> None:
    styles = (await anonymous.get("/docs/assets/swagger-ui.css")).text
    targets = re.findall(r"url\(([^)]{0,20})", styles)
    assert all(target.strip("\"'").startswith(("data:", "#")) for target in targets)
    assert "@import" not in styles


@pytest.mark.parametrize("path", ["/docs/assets/../app.py", "/docs/assets/%2e%2e/app.py", "/docs/assets/..%2fapp.py"])
async def test_only_files_of_assets_folder_are_served(anonymous: httpx2.AsyncClient, path: str) -> None:
    assert (await anonymous.get(path)).status_code == 404


# The document -------------------------------------------------------------------------------------------------------


async def test_every_schema_reference_resolves(document: dict[str, Any]) -> None:
    found = list(references(document))
    assert found
    for reference in found:
        assert isinstance(resolve(document, {"$ref": reference}), dict)


async def test_openapi_lists_exactly_public_routes(document: dict[str, Any], anonymous: httpx2.AsyncClient) -> None:
    assert {path: set(methods) for path, methods in document["paths"].items()} == {
        IMAGES_PATH: {"post"},
        "/v1/images/{image_id}/sign": {"post"},
        "/v1/images/{image_id}": {"get", "patch", "delete"},
        "/v1/images": {"get"},
        "/v1/images/archive": {"post"},
        "/v1/jobs": {"get", "post"},
        "/v1/jobs/{job_id}": {"get", "delete"},
        "/v1/jobs/{job_id}/cancel": {"post"},
        "/v1/jobs/{job_id}/events": {"get"},
        "/v1/groups/{group_id}/cancel": {"post"},
        "/files/{token}/{name}": {"get"},
        "/thumbnails/{token}/{name}": {"get"},
        "/v1/keys": {"get", "post"},
        "/v1/keys/{prefix}": {"patch", "put", "delete"},
        "/v1/keys/{prefix}/rotate": {"post"},
        "/v1/key": {"get"},
        "/v1/sign-in": {"get", "post"},
        "/v2/usage": {"get"},
        "/v2/usage/detail": {"get"},
        "/v2/usage/by-key": {"get"},
        "/v2/logs": {"get"},
        "/v2/billing": {"get"},
        "/v2/billing/detail": {"get"},
        "/v2/billing/transactions": {"get"},
        "/v1/billing/balance": {"get"},
        "/v1/webhooks": {"get"},
        "/v1/webhooks/secret": {"get"},
        "/v1/webhooks/secret/rotate": {"post"},
        "/v1/webhooks/{endpoint_id}": {"delete"},
        "/v1/models": {"get"},
        "/v1/models/{name}": {"get"},
        "/model/{name}": {"get"},
        "/models/metrics": {"get"},
        "/health": {"get"},
        "/ready": {"get"},
    }


async def test_openapi_shows_members_of_request_body(post: dict[str, Any]) -> None:
    assert post["requestBody"]["required"] is True
    assert set(post["requestBody"]["content"]) == {"application/json"}
    schema = post["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == set(MEMBERS)
    assert sorted(schema["required"]) == ["model", "prompt"]
    assert schema["additionalProperties"] is True
    assert [parameter["name"] for parameter in post["parameters"]] == [
        "Idempotency-Key",
        "X-Start-Deadline",
        "X-On-Disconnect",
    ]


async def test_openapi_shows_bounds_of_server(post: dict[str, Any]) -> None:
    schema = post["requestBody"]["content"]["application/json"]["schema"]["properties"]

    def first(name: str) -> dict[str, Any]:
        return schema[name]["anyOf"][0]

    assert (schema["prompt"]["minLength"], schema["prompt"]["maxLength"]) == (1, 4000)
    assert (first("num_images")["minimum"], first("num_images")["maximum"]) == (1, 4)
    assert (first("num_inference_steps")["minimum"], first("num_inference_steps")["maximum"]) == (1, 12)
    assert first("n") == first("num_images")
    assert first("steps") == first("num_inference_steps")
    for side in ("width", "height"):
        limits = first("image_size")["properties"][side]
        assert (limits["minimum"], limits["maximum"], limits["multipleOf"]) == (64, 1536, 32)
    assert schema["size"]["anyOf"] == schema["image_size"]["anyOf"]
    assert first("seed")["minimum"] == 0


async def test_largest_documented_seed_is_valid(post: dict[str, Any]) -> None:
    seed = post["requestBody"]["content"]["application/json"]["schema"]["properties"]["seed"]["anyOf"][0]
    assert int(seed.get("maximum", seed.get("exclusiveMaximum", 0) - 1)) <= 2**63 - 1 or (
        seed.get("exclusiveMaximum") == 2**63 and "maximum" not in seed
    )


async def test_response_matches_its_schema(
    document: dict[str, Any], post: dict[str, Any], client: httpx2.AsyncClient
) -> None:
    body = (await client.post(IMAGES_PATH, json={"model": "sketch", "prompt": "a boat", "size": "64x64"})).json()
    # The other schema is the quote of a dry run.
    [schema, _] = post["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"]
    schema = resolve(document, schema)

    def check(schema: dict[str, Any], value: Any) -> None:
        schema = resolve(document, schema)
        if schema.get("type") == "object":
            assert set(schema.get("required", ())) <= set(value) <= set(schema["properties"])
            for name, inner in value.items():
                check(schema["properties"][name], inner)
        if schema.get("type") == "array":
            for inner in value:
                check(schema["items"], inner)

    check(schema, body)


async def test_every_error_status_is_documented_with_error_body(
    document: dict[str, Any], post: dict[str, Any], client: httpx2.AsyncClient
) -> None:
    assert set(post["responses"]) >= {"200", "400", "401", "413", "415", "429", "500", "503", "504"}
    refused = (await client.post(IMAGES_PATH, json={})).json()
    for status, response in post["responses"].items():
        if status != "200":
            schema = resolve(document, response["content"]["application/json"]["schema"])
            assert set(schema["properties"]) >= set(refused)
            error = resolve(document, schema["properties"]["error"])
            assert set(error["properties"]) == set(refused["error"])


async def test_openapi_has_no_unused_422(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            description = operation["responses"].get("422", {}).get("description", "")
            assert description in ("", "The Idempotency-Key was used for another request."), path


async def test_query_parameters_are_documented_with_their_bounds(document: dict[str, Any]) -> None:
    def schemas(path: str) -> dict[str, Any]:
        parameters = document["paths"][path]["get"]["parameters"]
        assert all(one["in"] == "query" and one["description"] and not one["required"] for one in parameters)
        return {one["name"]: one["schema"] for one in parameters}

    logs = schemas("/v2/logs")
    assert set(logs) == {"start", "end", "period", "key_prefix", "model", "status", "limit", "offset"}
    assert (logs["limit"]["minimum"], logs["limit"]["maximum"], logs["limit"]["default"]) == (1, 100, 50)
    assert logs["start"]["anyOf"][0]["format"] == "date-time"
    assert logs["model"]["type"] == logs["status"]["type"] == "array"
    ledger = schemas("/v2/billing/transactions")
    assert set(ledger) == {"from", "to", "direction", "type", "limit", "cursor"}
    assert resolve(document, ledger["direction"]["anyOf"][0])["enum"] == ["TOPUP", "CHARGE"]
    assert set(schemas("/v1/jobs")) == {"status", "group_id", "key_prefix", "limit", "cursor"}
    assert set(schemas("/v1/images")) == {"q", "starred", "key_prefix", "limit", "cursor"}
    assert set(schemas("/v2/usage/detail")) == {"start", "end", "period", "key_prefix", "group_by", "tz"}


async def test_responses_of_image_link_are_documented(document: dict[str, Any]) -> None:
    responses = document["paths"]["/files/{token}/{name}"]["get"]["responses"]
    assert {"200", "206", "304", "416"} <= set(responses)
    assert "404" in responses or "4XX" in responses
    assert set(responses["200"]["content"]) == {"image/png", "image/jpeg", "image/webp"}


async def test_openapi_shows_which_routes_need_key(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    needed = {
        path: [name for requirement in operation.get("security", []) for name in requirement]
        for path, methods in document["paths"].items()
        for operation in methods.values()
    }
    open_paths = {path for path, names in needed.items() if not names}
    assert open_paths == {
        "/files/{token}/{name}",
        "/thumbnails/{token}/{name}",
        "/v1/models",
        "/v1/models/{name}",
        "/model/{name}",
        "/models/metrics",
        "/health",
        "/ready",
        "/v1/sign-in",
    }
    assert [(schemes[name]["type"], schemes[name]["scheme"].lower()) for name in needed[IMAGES_PATH]] == [
        ("http", "bearer")
    ]
