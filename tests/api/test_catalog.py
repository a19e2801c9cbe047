"""The list of models, and whether the server lives and is ready: for anyone."""

from pathlib import Path

import httpx2
import pytest

from allaprima.api.v1.paths import IMAGES_PATH
from fakes import LOCAL, SCHNELL, SKETCH, FakeClock, FakeEngine, client_of, open_service


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
async def test_models_are_listed_without_a_key(anonymous: httpx2.AsyncClient, path: str) -> None:
    answer = await anonymous.get(path)
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"object", "data"}
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["flux/schnell", "allaprima/sketch"]


async def test_a_model_has_the_platforms_and_openais_members(anonymous: httpx2.AsyncClient) -> None:
    for model in (await anonymous.get("/v1/models")).json()["data"]:
        assert set(model) == {
            "id", "object", "created", "owned_by", "aliases", "type", "info", "tags", "modalities", "capabilities",
            "pricing",
            "painted_by", "revision", "precision",
        }  # fmt: skip
        assert model["object"] == "model"
        assert type(model["created"]) is int
        assert all(type(model[name]) is str for name in ("id", "owned_by", "type", "painted_by", "revision"))
        assert model["type"] == "openai/image-generations"
        assert set(model["info"]) == {
            "name", "developer", "description", "releasedAt", "url", "docsUrl", "docsJson",
        }  # fmt: skip
        assert model["modalities"] == {"input": ["text"], "output": ["image"]}
        assert model["capabilities"] == ["text_to_image"]
        assert model["pricing"]["kind"] == "fixed"
        assert model["pricing"]["units"][0]["price"] == 0


async def test_the_stand_in_is_named_in_the_list(anonymous: httpx2.AsyncClient) -> None:
    schnell, sketch = (await anonymous.get("/v1/models")).json()["data"]
    assert schnell["painted_by"] == sketch["painted_by"] == sketch["id"] == "allaprima/sketch"
    assert schnell["revision"] == SKETCH.revision
    assert "flux-schnell" in schnell["aliases"]


async def test_every_listed_name_and_alias_can_be_asked_for(client: httpx2.AsyncClient) -> None:
    for model in (await client.get("/v1/models")).json()["data"]:
        for name in (model["id"], *model["aliases"]):
            answer = await client.post(IMAGES_PATH, json={"model": name, "prompt": "a boat", "size": "64x64"})
            assert answer.headers["x-model"] == model["painted_by"]


async def test_the_list_is_what_is_loaded(tmp_path: Path, clock: FakeClock) -> None:
    engine = FakeEngine(SKETCH, LOCAL, SCHNELL)
    async with (
        open_service(tmp_path, engine, clock, engine_settings={"has_stand_in": False}) as service,
        client_of(service) as client,
    ):
        models = (await client.get("/v1/models")).json()["data"]
        assert [(model["id"], model["painted_by"]) for model in models] == [
            ("flux/schnell", "flux/schnell"),
            ("allaprima/sketch", "allaprima/sketch"),
            ("mine/own", "mine/own"),
        ]


async def test_the_server_lives_before_it_is_ready(tmp_path: Path, clock: FakeClock) -> None:
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
