"""Jobs over HTTP: submitted, read, listed, cancelled and deleted, each by its own account alone."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from allaprima.api.app import create_app
from allaprima.domain.accounts import KeySpec
from allaprima.domain.fields import MAX_COUNT, MAX_SIDE, MAX_STEPS
from allaprima.service.app import Service
from allaprima.settings import EngineSettings, ServerSettings
from tests.databases import count, stored_bytes
from tests.fakes import FakeClock, FakeEngine, client_of, ended, open_service
from tests.waiting import eventually

JOBS = "/v1/jobs"
BODY: dict[str, Any] = {"model": "sketch", "prompt": "a boat", "size": "64x64", "seed": 7}


async def submit(client: httpx2.AsyncClient, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    answer = await client.post(JOBS, json=BODY | fields, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def finished(service: Service, client: httpx2.AsyncClient, job_id: str) -> dict[str, Any]:
    await ended(service, job_id)
    return (await client.get(f"{JOBS}/{job_id}")).json()


@pytest.fixture
async def other_client(service: Service) -> Any:
    """A client of another account."""
    account = await service.operator.accounts.create("stranger")
    _, key = await service.keys.create(KeySpec(), account.id)
    async with client_of(service, key=key) as opened:
        yield opened


# Submission ---------------------------------------------------------------------------------------------------------


async def test_submission_answers_202_before_generation(
    client: httpx2.AsyncClient, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    answer = await client.post(JOBS, json=BODY | {"group_id": "g1", "priority": "high"})
    job = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"http://images.test{JOBS}/{job['id']}")
    assert answer.headers["x-inference-id"] == job["id"]
    assert set(job) == {
        "id", "object", "status", "created_at", "started_at", "finished_at", "queue_position", "predicted_start",
        "predicted_finish", "group_id", "request", "result", "error",
    }  # fmt: skip
    assert (job["object"], job["created_at"], job["group_id"]) == ("job", clock.now, "g1")
    assert job["status"] in ("queued", "running")
    assert (job["result"], job["error"], job["finished_at"]) == (None, None, None)
    assert job["request"] == {
        "model": "allaprima/sketch",
        "prompt": "a boat",
        "image_size": {"width": 64, "height": 64},
        "num_images": 1,
        "num_inference_steps": 4,
        "seed": 7,
        "enable_safety_checker": True,
        "output_format": "png",
        "on_long_prompt": "truncate",
        "priority": "high",
    }
    engine.release()


async def test_finished_job_has_response_of_images_endpoint(service: Service, client: httpx2.AsyncClient) -> None:
    job = await finished(service, client, (await submit(client, num_images=2))["id"])
    same = (await client.post("/v1/images/generations", json=BODY | {"num_images": 2})).json()
    assert job["status"] == "succeeded"
    assert set(job["result"]) == set(same)
    assert [image["sha256"] for image in job["result"]["images"]] == [image["sha256"] for image in same["images"]]
    image = await client.get(job["result"]["images"][1]["url"])
    assert image.content.startswith(b"\x89PNG")


async def test_failed_job_has_error(service: Service, client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    from allaprima.errors import GenerationFailed

    engine.failure = GenerationFailed("the colours ran out")
    job = await finished(service, client, (await submit(client))["id"])
    assert (job["status"], job["result"]) == ("failed", None)
    assert job["error"] == {"code": "generation_failed", "message": "the colours ran out"}


async def test_queued_jobs_have_position_and_predicted_times(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    engine.hold()
    jobs = [await submit(client) for _ in range(5)]
    await engine.until_held(2)
    looked = [(await client.get(f"{JOBS}/{job['id']}")).json() for job in jobs]
    assert [job["status"] for job in looked] == ["running", "running", "queued", "queued", "queued"]
    assert [job["queue_position"] for job in looked] == [None, None, 1, 2, 3]
    starts = [job["predicted_start"] for job in looked[2:]]
    assert starts == sorted(starts)
    assert all(job["predicted_finish"] > job["predicted_start"] for job in looked[2:])
    engine.release()


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/images/generations"])
async def test_dry_run_returns_quote_without_generating(
    client: httpx2.AsyncClient, engine: FakeEngine, path: str
) -> None:
    answer = await client.post(path, json=BODY | {"dry_run": True, "prompt": "a b c", "size": "96x64", "n": 3})
    quote = answer.json()
    assert answer.status_code == 200
    assert (quote["object"], quote["tokens"], quote["max_tokens"]) == ("quote", 3, 10)
    assert (quote["image_size"], quote["num_images"]) == ({"width": 96, "height": 64}, 3)
    assert quote["usage"] == {"credits_used": 0, "usd_spent": 0.0}
    assert quote["seconds"] > 0
    assert not engine.requests
    assert (await client.get(JOBS)).json()["data"] == []


async def test_dry_run_has_the_warnings_of_the_prompt(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    engine.warnings = ("cabin: read as house",)

    answer = await client.post(JOBS, json=BODY | {"dry_run": True, "prompt": "a cabin", "cfg_scale": 7})

    assert answer.json()["warnings"][0].startswith("ignored fields")
    assert answer.json()["warnings"][-1] == "cabin: read as house"


async def test_job_without_stored_images_is_refused(client: httpx2.AsyncClient) -> None:
    answer = await client.post(JOBS, json=BODY | {"store": False, "response_format": "b64_json"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "store")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("group_id", "a b"),
        ("group_id", ""),
        ("group_id", "x" * 65),
        ("group_id", 7),
        ("priority", "urgent"),
        ("priority", 1),
        ("expires_in", 59),
        ("expires_in", 10**9),
        ("expires_in", 10**400),
        ("expires_in", True),
        ("expires_in", "60"),
        ("safety_threshold", 1.5),
        ("safety_threshold", "0.5"),
        ("use_cache", 1),
        ("dry_run", "yes"),
        ("store", 0),
        ("store", False),
        ("webhook_url", 7),
        ("webhook_url", "ftp://example.com/"),
        ("webhook_url", "https://user:pw@example.com/"),
        ("webhook_url", "https://example.com:8080/"),
    ],
)
async def test_invalid_field_is_refused_by_name(client: httpx2.AsyncClient, field: str, value: object) -> None:
    answer = await client.post(JOBS, json=BODY | {field: value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


@pytest.mark.parametrize(
    ("name", "value"), [("X-Start-Deadline", "0"), ("X-Start-Deadline", "soon"), ("X-Start-Deadline", "1e9")]
)
async def test_invalid_start_deadline_is_refused_by_name(client: httpx2.AsyncClient, name: str, value: str) -> None:
    answer = await client.post(JOBS, json=BODY, headers={name: value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


# Lists --------------------------------------------------------------------------------------------------------------


async def test_job_list_is_paginated_newest_first(service: Service, client: httpx2.AsyncClient) -> None:
    made = [(await submit(client))["id"] for _ in range(7)]
    for job_id in made:
        await ended(service, job_id)
    found: list[str] = []
    cursor = ""
    while True:
        page = (await client.get(f"{JOBS}?limit=3{cursor}")).json()
        found += [job["id"] for job in page["data"]]
        assert len(page["data"]) <= 3
        if not page["has_more"]:
            assert page["next_cursor"] is None
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == made[::-1]


async def test_page_of_long_jobs_is_at_most_one_megabyte(service: Service, client: httpx2.AsyncClient) -> None:
    unknown = {f"{number:064}": 1 for number in range(100)}
    made = [(await submit(client, prompt="\U0001f98a" * 4000, **unknown))["id"] for _ in range(70)]
    await ended(service, made[-1])
    found: list[str] = []
    cursor, has_more = "", True
    while has_more:
        answer = await client.get(f"{JOBS}?limit=100{cursor}")
        page = answer.json()
        has_more, cursor = page["has_more"], f"&cursor={page['next_cursor']}"
        found += [job["id"] for job in page["data"]]
        assert 0 < len(page["data"]) < len(made)
        assert len(answer.content) < 1_000_000 + 300
    assert found == made[::-1]


async def test_jobs_are_filtered_by_state_and_group(
    service: Service, client: httpx2.AsyncClient, engine: FakeEngine
) -> None:
    done = (await submit(client, group_id="a"))["id"]
    await ended(service, done)
    engine.hold()
    open_jobs = [(await submit(client, group_id=group))["id"] for group in ("a", "b")]
    await engine.until_held(2)

    async def ids(query: str) -> list[str]:
        return [job["id"] for job in (await client.get(f"{JOBS}?{query}")).json()["data"]]

    assert await ids("status=succeeded") == [done]
    assert await ids("status=running") == open_jobs[::-1]
    assert await ids("status=failed") == []
    assert await ids("group_id=a") == [open_jobs[0], done]
    assert await ids("group_id=a&status=running") == [open_jobs[0]]
    engine.release()


async def test_jobs_are_filtered_by_key_that_submitted_them(
    service: Service, client: httpx2.AsyncClient, key: str
) -> None:
    owner = await service.keys.authenticate(key)
    row, other = await service.keys.create(KeySpec(), owner.account_id)
    mine = (await submit(client))["id"]
    async with client_of(service, key=other) as second:
        theirs = (await submit(second))["id"]

    async def ids(query: str) -> list[str]:
        return [job["id"] for job in (await client.get(f"{JOBS}{query}")).json()["data"]]

    assert await ids(f"?key_prefix={owner.prefix}") == [mine]
    assert await ids(f"?key_prefix={row.prefix}") == [theirs]
    assert await ids("") == [theirs, mine]
    unknown = await client.get(f"{JOBS}?key_prefix=nobodys1")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["code"] == "key_not_found"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("status=done", "status"),
        ("cursor=x", "cursor"),
        ("cursor=", "cursor"),
        ("colour=red", "colour"),
    ],
)
async def test_invalid_list_parameter_is_refused_by_name(client: httpx2.AsyncClient, query: str, field: str) -> None:
    answer = await client.get(f"{JOBS}?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


# Cancelling and deleting ---------------------------------------------------------------------------------------------


async def test_running_job_is_cancelled_alone(service: Service, client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    engine.hold()
    first, second = [(await submit(client))["id"] for _ in range(2)]
    await engine.until_held(2)
    answer = await client.post(f"{JOBS}/{first}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    engine.release()
    assert (await finished(service, client, second))["status"] == "succeeded"


async def test_cancelled_queued_job_is_never_generated(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    engine.hold()
    jobs = [(await submit(client))["id"] for _ in range(3)]
    await engine.until_held(2)
    assert (await client.post(f"{JOBS}/{jobs[2]}/cancel")).json()["status"] == "cancelled"
    engine.release()
    assert jobs[2] not in engine.requests


async def test_cancelling_finished_job_answers_409(service: Service, client: httpx2.AsyncClient) -> None:
    job = await finished(service, client, (await submit(client))["id"])
    answer = await client.post(f"{JOBS}/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "job_finished")
    assert answer.headers["x-should-retry"] == "false"


async def test_group_is_cancelled_with_one_request(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    engine.hold()
    ours = [(await submit(client, group_id="grid"))["id"] for _ in range(4)]
    other = (await submit(client, group_id="other"))["id"]
    await engine.until_held(2)
    answer = await client.post("/v1/groups/grid/cancel")
    assert answer.status_code == 202
    assert {job["id"] for job in answer.json()} == set(ours)
    assert {job["status"] for job in answer.json()} == {"cancelled"}
    engine.release()
    assert (await client.get(f"{JOBS}/{other}")).json()["status"] != "cancelled"
    assert (await client.post("/v1/groups/grid/cancel")).json() == []


async def test_deleting_job_deletes_its_images(service: Service, client: httpx2.AsyncClient, tmp_path: Path) -> None:
    job = await finished(service, client, (await submit(client))["id"])
    url = job["result"]["images"][0]["url"]
    assert (await client.get(url)).status_code == 200
    answer = await client.delete(f"{JOBS}/{job['id']}")
    assert answer.json() == {"id": job["id"], "object": "job", "deleted": True}
    assert (await client.get(f"{JOBS}/{job['id']}")).status_code == 404
    assert (await client.get(url)).status_code == 404
    assert list((tmp_path / "images").iterdir()) == []


async def test_deleting_unfinished_job_answers_409(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    engine.hold()
    job = await submit(client)
    answer = await client.delete(f"{JOBS}/{job['id']}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "job_unfinished")
    engine.release()


async def test_jobs_are_hidden_from_other_accounts(
    service: Service, client: httpx2.AsyncClient, other_client: httpx2.AsyncClient
) -> None:
    job = await finished(service, client, (await submit(client, group_id="g"))["id"])
    image = job["result"]["images"][0]["id"]
    calls = [
        ("GET", f"{JOBS}/{job['id']}"),
        ("GET", f"{JOBS}/{job['id']}/events"),
        ("POST", f"{JOBS}/{job['id']}/cancel"),
        ("DELETE", f"{JOBS}/{job['id']}"),
        ("POST", f"/v1/images/{image}/sign"),
        ("DELETE", f"/v1/images/{image}"),
    ]
    for method, path in calls:
        assert (await other_client.request(method, path)).status_code == 404, path
    assert (await other_client.get(JOBS)).json()["data"] == []
    assert (await other_client.post("/v1/groups/g/cancel")).json() == []
    assert (await client.get(f"{JOBS}/{job['id']}")).status_code == 200


# Start deadlines ----------------------------------------------------------------------------------------------------


async def test_job_fails_after_missed_start_deadline(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service, client_of(service, key=service.first_key) as client:
        for _ in range(2):
            await submit(client)
        await engine.until_held(2)
        late = await submit(client, {"X-Start-Deadline": "30"})
        clock.now += 31
        engine.release()
        job = await finished(service, client, late["id"])
        assert (job["status"], job["error"]["code"]) == ("failed", "start_deadline_missed")
        answer = await client.post("/v1/images/generations", json=BODY, headers={"X-Start-Deadline": "30"})
        assert answer.status_code == 200


async def test_missed_start_deadline_answers_504_without_retry(
    client: httpx2.AsyncClient, engine: FakeEngine, clock: FakeClock, tmp_path: Path
) -> None:
    engine.hold()
    for _ in range(2):
        await submit(client)
    await engine.until_held(2)
    late = asyncio.create_task(client.post("/v1/images/generations", json=BODY, headers={"X-Start-Deadline": "0.05"}))
    await eventually(lambda: count(tmp_path, "jobs") == 3)
    clock.now += 1
    answer = await late
    assert answer.status_code == 504
    assert answer.headers["x-should-retry"] == "false"
    engine.release()


# The result cache ---------------------------------------------------------------------------------------------------


async def test_use_cache_answers_equal_request_from_cache(
    service: Service, client: httpx2.AsyncClient, engine: FakeEngine
) -> None:
    first = await finished(service, client, (await submit(client))["id"])
    again = (await client.post("/v1/images/generations", json=BODY | {"use_cache": True})).json()
    assert len(engine.requests) == 1
    assert (first["result"]["meta"]["is_cached"], again["meta"]["is_cached"]) == (False, True)
    image, before = again["images"][0], first["result"]["images"][0]
    assert image["sha256"] == before["sha256"]
    assert image["id"] != before["id"]
    # The cached answer has its own file.
    await client.delete(f"{JOBS}/{first['id']}")
    assert (await client.get(image["url"])).status_code == 200
    for change in ({"seed": 8}, {"prompt": "a ship"}, {"num_inference_steps": 3}, {"use_cache": False}):
        await client.post("/v1/images/generations", json=BODY | {"use_cache": True} | change)
    assert len(engine.requests) == 5


async def test_cache_is_separate_for_each_account(
    service: Service, client: httpx2.AsyncClient, other_client: httpx2.AsyncClient, engine: FakeEngine
) -> None:
    await finished(service, client, (await submit(client))["id"])
    answer = (await other_client.post("/v1/images/generations", json=BODY | {"use_cache": True})).json()
    assert answer["meta"]["is_cached"] is False
    assert len(engine.requests) == 2


# Images -------------------------------------------------------------------------------------------------------------


async def test_image_expires_after_requested_time(
    service: Service, client: httpx2.AsyncClient, clock: FakeClock
) -> None:
    body = (await client.post("/v1/images/generations", json=BODY | {"expires_in": 120})).json()
    image = body["images"][0]
    assert image["expires_at"] == clock.now + 120
    clock.now += 119
    assert (await client.get(image["url"])).status_code == 200
    clock.now += 2
    assert (await client.get(image["url"])).status_code == 404
    assert (await client.post(f"/v1/images/{image['id']}/sign")).status_code == 404


async def test_image_link_can_be_signed_again(client: httpx2.AsyncClient, clock: FakeClock) -> None:
    image = (await client.post("/v1/images/generations", json=BODY)).json()["images"][0]
    whole = (await client.post(f"/v1/images/{image['id']}/sign")).json()
    assert whole == {"id": image["id"], "url": image["url"], "expires_at": image["expires_at"]}
    short = (await client.post(f"/v1/images/{image['id']}/sign", json={"expires_in": 60})).json()
    assert short["expires_at"] == clock.now + 60
    assert (await client.get(short["url"])).status_code == 200
    clock.now += 61
    assert (await client.get(short["url"])).status_code == 404
    assert (await client.get(image["url"])).status_code == 200
    for value in (10**9, 10**400, 1, "60", True):
        answer = await client.post(f"/v1/images/{image['id']}/sign", json={"expires_in": value})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "expires_in")


async def test_deleted_image_answers_404(client: httpx2.AsyncClient, tmp_path: Path) -> None:
    image = (await client.post("/v1/images/generations", json=BODY)).json()["images"][0]
    answer = await client.delete(f"/v1/images/{image['id']}")
    assert answer.json() == {"id": image["id"], "object": "image", "deleted": True}
    assert (await client.get(image["url"])).status_code == 404
    assert (await client.delete(f"/v1/images/{image['id']}")).status_code == 404
    assert list((tmp_path / "images").iterdir()) == []


async def test_request_with_store_false_leaves_no_data(client: httpx2.AsyncClient, tmp_path: Path) -> None:
    secret = "a rhinoceros in a raincoat"
    asked = BODY | {"prompt": secret, "store": False, "response_format": "b64_json", "num_images": 2}
    body = (await client.post("/v1/images/generations", json=asked)).json()
    assert body["prompt"] == secret
    assert [len(item["b64_json"]) > 100 for item in body["data"]] == [True, True]
    assert [(image["id"], image["url"]) for image in body["images"]] == [(None, None)] * 2
    assert list((tmp_path / "images").iterdir()) == []
    listed = await client.get(JOBS)
    assert listed.status_code == 200, listed.text
    [job] = (await client.get(JOBS)).json()["data"]
    assert job["request"]["prompt"] == "(not stored)"
    assert job["result"] is None


async def test_stopped_server_has_no_word_of_prompt_with_store_false(tmp_path: Path, clock: FakeClock) -> None:
    engine, words = FakeEngine(), ["rhinoceros", "raincoat"]
    # Warnings repeat the words that a model does not know.
    engine.warnings = (f"the model does not know these words: {', '.join(words)}",)
    asked = BODY | {"prompt": " ".join(words), "store": False, "response_format": "b64_json"}
    async with (
        open_service(tmp_path, engine, clock) as service,
        client_of(service, key=service.first_key) as client,
    ):
        for number in range(20):
            answer = await client.post("/v1/images/generations", json=asked | {"seed": number})
            assert words[1] in answer.json()["meta"]["warnings"][-1]
    content = stored_bytes(tmp_path)
    assert b"rhinoceros" not in content
    assert b"raincoat" not in content


# Safety -------------------------------------------------------------------------------------------------------------


async def test_safety_threshold_stays_within_operator_bounds(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    settings = {"lowest_safety_threshold": 0.2, "highest_safety_threshold": 0.9, "safety_is_optional": False}
    async with (
        open_service(tmp_path, engine, clock, engine_settings=settings) as service,
        client_of(service, key=service.first_key) as client,
    ):
        for value, status in ((0.1, 400), (0.2, 202), (0.9, 202), (0.95, 400)):
            answer = await client.post(JOBS, json=BODY | {"safety_threshold": value})
            assert answer.status_code == status
        answer = await client.post(JOBS, json=BODY | {"enable_safety_checker": False})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "enable_safety_checker")
        owner = await service.keys.authenticate(service.first_key or "")
        await service.keys.change(owner.account_id, owner.prefix, safety_threshold=0.5)
        for value, status in ((0.4, 202), (0.6, 400)):
            answer = await client.post(JOBS, json=BODY | {"safety_threshold": value})
            assert answer.status_code == status
        job = await submit(client)
        await ended(service, job["id"])
        assert engine.requests[job["id"]].safety_threshold == 0.5
        answer = await client.post(JOBS, json=BODY | {"enable_safety_checker": False})
        assert answer.status_code == 400


async def test_operator_limits_bound_requests(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    settings = {"max_side": 64, "max_steps": 1, "max_images": 1}
    async with (
        open_service(tmp_path, engine, clock, engine_settings=settings) as service,
        client_of(service, key=service.first_key) as client,
    ):
        answer = await client.post(JOBS, json=BODY | {"size": "96x128", "n": 2})
        assert answer.status_code == 400
        for field in ("size.width", "size.height", "num_inference_steps", "n"):
            assert f"{field}: must be at most" in answer.json()["message"]
        await submit(client, steps=1)


def test_default_operator_limits_are_api_limits() -> None:
    settings = EngineSettings()
    assert (settings.max_side, settings.max_steps, settings.max_images) == (MAX_SIDE, MAX_STEPS, MAX_COUNT)


# Slow and disconnected clients --------------------------------------------------------------------------------------


async def test_slow_body_answers_408(service: Service, key: str, engine: FakeEngine) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b'{"model": "sketch", '
        await asyncio.Event().wait()

    async with client_of(service, ServerSettings(receive_s=0.1), key=key) as client:
        for path in (JOBS, "/v1/images/generations"):
            headers = {"content-type": "application/json"}
            answer = await client.post(path, content=slow(), headers=headers)
            assert (answer.status_code, answer.json()["message"].partition(":")[0]) == (408, "Request Timeout")
    assert not engine.requests


async def disconnect(service: Service, key: str, engine: FakeEngine, headers: dict[str, str]) -> None:
    """Request an image, and close the connection once the engine holds the job."""
    import json

    app = create_app(ServerSettings(), service)
    body = json.dumps(BODY).encode()
    given = {"authorization": f"Bearer {key}", "content-type": "application/json", "host": "images.test"} | headers
    scope = {
        "type": "http", "method": "POST", "path": "/v1/images/generations", "raw_path": b"/v1/images/generations",
        "query_string": b"", "headers": [(name.lower().encode(), text.encode()) for name, text in given.items()],
        "http_version": "1.1", "scheme": "http", "server": ("images.test", 80), "client": ("127.0.0.1", 1),
        "root_path": "",
    }  # fmt: skip
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        if message := next(messages, None):
            return message
        await engine.until_held()
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        """Discard it: the connection is closed."""

    await app(scope, receive, send)  # type: ignore[arg-type]


async def test_disconnect_cancels_job_if_requested(
    service: Service, client: httpx2.AsyncClient, key: str, engine: FakeEngine
) -> None:
    engine.hold()
    await disconnect(service, key, engine, {"X-On-Disconnect": "cancel"})
    [job] = (await client.get(JOBS)).json()["data"]
    assert job["status"] == "cancelled"


async def test_disconnected_client_has_its_job_finished_by_default(
    service: Service, client: httpx2.AsyncClient, key: str, engine: FakeEngine
) -> None:
    engine.hold()
    disconnecting = asyncio.create_task(disconnect(service, key, engine, {}))
    await engine.until_held()
    # A cancellation at the disconnect would have come before this one.
    other = await submit(client)
    await client.post(f"{JOBS}/{other['id']}/cancel")
    [job_id] = engine.held
    engine.release()
    await disconnecting
    assert (await client.get(f"{JOBS}/{job_id}")).json()["status"] == "succeeded"


async def test_unknown_on_disconnect_is_refused_by_name(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/images/generations", json=BODY, headers={"X-On-Disconnect": "wait"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "X-On-Disconnect")
