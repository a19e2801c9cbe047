"""The list of models, health and readiness, all without a key."""

from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from allaprima.api.v1.paths import IMAGES_PATH
from tests.fakes import LOCAL, SCHNELL, SKETCH, FakeClock, FakeEngine, client_of, open_service


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
async def test_models_are_listed_without_key(anonymous: httpx2.AsyncClient, path: str) -> None:
    answer = await anonymous.get(path)
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"object", "data"}
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["flux/schnell", "allaprima/sketch"]


async def test_model_has_platform_and_openai_members(anonymous: httpx2.AsyncClient) -> None:
    for model in (await anonymous.get("/v1/models")).json()["data"]:
        assert set(model) == {
            "id", "object", "created", "owned_by", "aliases", "type", "info", "tags", "modalities", "capabilities",
            "pricing",
            "served_by", "revision", "precision",
        }  # fmt: skip
        assert model["object"] == "model"
        assert type(model["created"]) is int
        assert all(type(model[name]) is str for name in ("id", "owned_by", "type", "served_by", "revision"))
        assert model["type"] == "openai/image-generations"
        assert set(model["info"]) == {
            "name", "developer", "description", "releasedAt", "url", "docsUrl", "docsJson",
        }  # fmt: skip
        assert model["modalities"] == {"input": ["text"], "output": ["image"]}
        assert model["capabilities"] == ["text_to_image"]
        assert model["pricing"]["kind"] == "fixed"
        assert model["pricing"]["units"][0]["price"] == 0


async def test_model_list_names_fallback(anonymous: httpx2.AsyncClient) -> None:
    schnell, sketch = (await anonymous.get("/v1/models")).json()["data"]
    assert schnell["served_by"] == sketch["served_by"] == sketch["id"] == "allaprima/sketch"
    assert schnell["revision"] == SKETCH.revision
    assert "flux-schnell" in schnell["aliases"]


async def test_every_listed_id_and_alias_is_accepted(client: httpx2.AsyncClient) -> None:
    for model in (await client.get("/v1/models")).json()["data"]:
        for name in (model["id"], *model["aliases"]):
            answer = await client.post(IMAGES_PATH, json={"model": name, "prompt": "a boat", "size": "64x64"})
            assert answer.headers["x-model"] == model["served_by"]


async def test_model_list_contains_loaded_models(tmp_path: Path, clock: FakeClock) -> None:
    engine = FakeEngine(SKETCH, LOCAL, SCHNELL)
    async with (
        open_service(tmp_path, engine, clock, engine_settings={"has_fallback": False}) as service,
        client_of(service) as client,
    ):
        models = (await client.get("/v1/models")).json()["data"]
        assert [(model["id"], model["served_by"]) for model in models] == [
            ("flux/schnell", "flux/schnell"),
            ("allaprima/sketch", "allaprima/sketch"),
            ("mine/own", "mine/own"),
        ]


async def test_named_model_is_addressed_by_its_name_everywhere(tmp_path: Path, clock: FakeClock) -> None:
    named = replace(SCHNELL, id="mine/fast.v1", name="mine/fast.v1", own_id="flux/schnell")
    async with (
        open_service(tmp_path, FakeEngine(SKETCH, named), clock) as service,
        client_of(service, key=service.first_key) as client,
    ):
        listed = (await client.get("/v1/models")).json()["data"]
        assert [(model["id"], model["served_by"]) for model in listed] == [
            ("flux/schnell", "allaprima/sketch"),
            ("allaprima/sketch", "allaprima/sketch"),
            ("mine/fast.v1", "mine/fast.v1"),
        ]
        entry = listed[2]
        assert entry["info"]["developer"] == "Black Forest Labs"
        assert (await client.get("/v1/models/mine/fast.v1")).json() == entry
        assert (await client.get("/model/mine%2Ffast.v1")).json()["data"] == entry
        assert (await client.get("/v1/models?id=mine/fast.v1")).json()["data"] == [entry]
        document = (await client.get("/openapi.json")).json()
        body = document["paths"][IMAGES_PATH]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert "mine/fast.v1" in body["properties"]["model"]["enum"]
        answer = await client.post(IMAGES_PATH, json={"model": "mine/fast.v1", "prompt": "a boat", "size": "64x64"})
        assert answer.headers["x-model"] == answer.json()["meta"]["model"] == "mine/fast.v1"
        refused = await client.post(IMAGES_PATH, json={"model": "mine/fast", "prompt": "a boat"})
        assert refused.status_code == 400
        assert "it serves 'flux/schnell', 'allaprima/sketch', 'mine/fast.v1'" in refused.text


async def test_matching_etag_of_model_list_answers_304(client: httpx2.AsyncClient) -> None:
    whole = await client.get("/v1/models")
    etag = whole.headers["etag"]
    assert etag.startswith('W/"')
    for tags in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
        assert (await client.get("/v1/models", headers={"if-none-match": tags})).status_code == 304
    assert (await client.get("/v1/models", headers={"if-none-match": '"other"'})).status_code == 200


async def test_model_list_is_filtered(client: httpx2.AsyncClient) -> None:
    whole = await client.get("/v1/models")
    assert (await client.get("/api/v1/models")).json() == whole.json()

    async def ids(query: str) -> list[str]:
        return [model["id"] for model in (await client.get(f"/v1/models?{query}")).json()["data"]]

    everything = [model["id"] for model in whole.json()["data"]]
    assert await ids("id=FLUX-SCHNELL") == ["flux/schnell"]
    assert await ids("id=flux/schnell,sketch") == everything
    assert await ids("id=flux/schnell&id=sketch&output_modalities=image&include=what") == everything
    assert await ids("output_modalities=video") == []
    assert await ids("id=sketch&capabilities=text_to_image") == ["allaprima/sketch"]


async def test_model_is_found_by_id_and_alias(client: httpx2.AsyncClient) -> None:
    for name in ("flux/schnell", "Flux-Schnell", "black-forest-labs/FLUX.1-schnell"):
        body = (await client.get(f"/model/{name}")).json()
        assert (body["object"], body["data"]["id"]) == ("model", "flux/schnell")
    answer = await client.get("/model/dall-e-3")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_openai_client_retrieves_every_listed_model(client: httpx2.AsyncClient) -> None:
    listed = (await client.get("/v1/models/")).json()["data"]
    assert listed
    for entry in listed:
        for name in (entry["id"], entry["id"].replace("/", "%2F"), entry["id"].upper(), *entry["aliases"]):
            assert (await client.get(f"/v1/models/{name}")).json() == entry, name
    for name in ("dall-e-3", "flux", "flux/schnell/"):
        answer = await client.get(f"/v1/models/{name}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_server_is_healthy_before_it_is_ready(tmp_path: Path, clock: FakeClock) -> None:
    engine = FakeEngine(is_ready=False)
    async with open_service(tmp_path, engine, clock) as service, client_of(service) as client:
        alive = await client.get("/health")
        assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
        loading = await client.get("/ready")
        assert (loading.status_code, loading.json()) == (503, {"status": "loading"})
        assert int(loading.headers["retry-after"]) >= 1
        engine.become_ready()
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
