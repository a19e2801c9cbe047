"""The gallery over HTTP: images are listed, searched, starred and unstarred by their own account alone."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from allaprima.api.v1.paths import IMAGES_PATH
from allaprima.domain.accounts import KeySpec
from allaprima.domain.generation import ImageFormat
from allaprima.service.app import Service
from tests.fakes import FakeClock, FakeEngine, client_of, open_service, plain_image
from tests.waiting import eventually

IMAGES = "/v1/images"
BODY: dict[str, Any] = {"model": "sketch", "prompt": "a boat", "size": "64x64", "seed": 7}
DAY_S = 86_400
WEEK_S = 7 * DAY_S


async def generate(client: httpx2.AsyncClient, prompt: str = "a boat", **fields: Any) -> list[dict[str, Any]]:
    answer = await client.post(IMAGES_PATH, json=BODY | {"prompt": prompt} | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["images"]


async def listed(client: httpx2.AsyncClient, **query: Any) -> dict[str, Any]:
    answer = await client.get(IMAGES, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def prompts(client: httpx2.AsyncClient, **query: Any) -> list[str]:
    return [entry["prompt"] for entry in (await listed(client, **query))["data"]]


async def star(client: httpx2.AsyncClient, image_id: str, *, starred: bool = True) -> httpx2.Response:
    return await client.patch(f"{IMAGES}/{image_id}", json={"starred": starred})


@pytest.fixture
async def stranger(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of another account."""
    account = await service.operator.accounts.create("stranger")
    _, key = await service.keys.create(KeySpec(), account.id)
    async with client_of(service, key=key) as opened:
        yield opened


# The list -----------------------------------------------------------------------------------------------------------


async def test_entry_describes_image_and_its_request(client: httpx2.AsyncClient, clock: FakeClock) -> None:
    answer = await client.post(IMAGES_PATH, json=BODY | {"num_images": 2, "model": "flux/schnell"})
    job = (await client.get(f"/v1/jobs/{answer.headers['x-inference-id']}")).json()
    [second, first] = (await listed(client))["data"]
    for position, entry in enumerate((first, second)):
        image = job["result"]["images"][position]
        assert entry.pop("size_bytes") == len((await client.get(image["url"])).content)
        assert entry == {
            "id": image["id"],
            "object": "image",
            "job_id": job["id"],
            "position": position,
            "url": image["url"],
            "thumbnail_url": image["thumbnail_url"],
            "content_type": "image/png",
            "width": 64,
            "height": 64,
            "seed": 7 + position,
            "flagged": False,
            "starred": False,
            "created_at": int(clock.now),
            "expires_at": int(clock.now + WEEK_S),
            "prompt": "a boat",
            "model": "flux/schnell",
            "served_by": "allaprima/sketch",
            "request": job["request"],
        }
    assert (await client.get(f"{IMAGES}/{first['id']}")).json()["id"] == first["id"]


async def test_pages_hold_every_image_once_newest_first(client: httpx2.AsyncClient) -> None:
    made = [image["id"] for number in range(5) for image in await generate(client, f"boat {number}", num_images=2)]
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await listed(client, limit=3, **cursor)
        assert page["object"] == "list"
        found += [entry["id"] for entry in page["data"]]
        if not page["has_more"]:
            break
        assert len(page["data"]) == 3
        cursor = {"cursor": page["next_cursor"]}
    assert page["next_cursor"] is None
    assert found == sorted(made, reverse=True)


async def test_withheld_image_is_listed_as_flagged_without_thumbnail(
    client: httpx2.AsyncClient, engine: FakeEngine
) -> None:
    engine.flagged = frozenset({0})
    await generate(client)
    [entry] = (await listed(client))["data"]
    assert (entry["flagged"], entry["thumbnail_url"]) == (True, None)
    assert (await client.get(entry["url"])).status_code == 200


async def test_expired_deleted_and_unstored_images_are_not_listed(client: httpx2.AsyncClient, clock: FakeClock) -> None:
    await generate(client, store=False, response_format="b64_json")
    [deleted] = await generate(client, "deleted")
    await generate(client, "short", expires_in=60)
    await generate(client, "long")
    await client.delete(f"{IMAGES}/{deleted['id']}")
    clock.now += 60
    assert await prompts(client) == ["long"]
    assert (await client.get(f"{IMAGES}/{deleted['id']}")).status_code == 404


async def test_list_can_be_limited_to_one_key(service: Service, client: httpx2.AsyncClient, key: str) -> None:
    owner = await service.keys.authenticate(key)
    record, other = await service.keys.create(KeySpec(), owner.account_id)
    await generate(client, "first")
    async with client_of(service, key=other) as second:
        await generate(second, "second")
        assert await prompts(second) == ["second", "first"]
        assert await prompts(second, key_prefix=record.prefix) == ["second"]
    assert await prompts(client, key_prefix=owner.prefix) == ["first"]
    assert (await client.get(IMAGES, params={"key_prefix": "unknown0"})).status_code == 404


async def test_other_account_sees_and_changes_no_image(
    client: httpx2.AsyncClient, stranger: httpx2.AsyncClient
) -> None:
    [image] = await generate(client)
    assert (await listed(stranger))["data"] == []
    assert (await stranger.get(f"{IMAGES}/{image['id']}")).status_code == 404
    assert (await star(stranger, image["id"])).status_code == 404
    assert not (await client.get(f"{IMAGES}/{image['id']}")).json()["starred"]


# Search -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("boat", ["A red Boat at sea"]),
        ("OAT", ["A red Boat at sea"]),
        ("sea red", ["A red Boat at sea"]),
        ("red house", []),
        ("strasse", ["eine Straße, 100% ÜBER_wald"]),
        ("über", ["eine Straße, 100% ÜBER_wald"]),
        ("%", ["eine Straße, 100% ÜBER_wald"]),
        ("r_w", ["eine Straße, 100% ÜBER_wald"]),
        ("boaat", []),
        ("  ", ["eine Straße, 100% ÜBER_wald", "A red Boat at sea"]),
    ],
)
async def test_every_word_must_occur_in_prompt(client: httpx2.AsyncClient, words: str, found: list[str]) -> None:
    await generate(client, "A red Boat at sea")
    await generate(client, "eine Straße, 100% ÜBER_wald")
    assert await prompts(client, q=words) == found


async def test_search_continues_on_later_pages(client: httpx2.AsyncClient) -> None:
    for number in range(6):
        await generate(client, f"{'boat' if number % 2 else 'house'} {number}")
    page = await listed(client, q="boat", limit=2)
    assert [entry["prompt"] for entry in page["data"]] == ["boat 5", "boat 3"]
    assert await prompts(client, q="boat", cursor=page["next_cursor"]) == ["boat 1"]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ({"q": "x" * 201}, "q: must have at most 200 characters; it has 201"),
        ({"starred": "yes"}, "starred: Invalid enum value. Expected 'true' | 'false'"),
        ({"limit": "101"}, "limit: must be an integer from 1 to 100"),
        ({"cursor": "x"}, "cursor: invalid cursor; omit it for the first page"),
        ({"model": "x"}, "model: is not a parameter of this endpoint"),
    ],
)
async def test_invalid_parameter_of_list_is_refused(
    client: httpx2.AsyncClient, query: dict[str, str], problem: str
) -> None:
    answer = await client.get(IMAGES, params=query)
    assert answer.status_code == 400
    assert problem in answer.json()["message"]


# Stars --------------------------------------------------------------------------------------------------------------


async def test_starred_image_outlives_its_time(
    client: httpx2.AsyncClient, anonymous: httpx2.AsyncClient, clock: FakeClock
) -> None:
    [kept] = await generate(client, "kept")
    await generate(client, "lost")
    entry = (await star(client, kept["id"])).json()
    assert (entry["starred"], entry["expires_at"]) == (True, None)
    clock.now += 400 * DAY_S
    [entry] = (await listed(client))["data"]
    assert (entry["prompt"], entry["starred"]) == ("kept", True)
    assert await prompts(client, starred="true") == ["kept"]
    assert (await anonymous.get(entry["url"])).status_code == 200
    [image] = (await client.get(f"/v1/jobs/{entry['job_id']}")).json()["result"]["images"]
    assert (image["starred"], image["expires_at"], image["url"]) == (True, None, entry["url"])


async def test_sweeps_keep_starred_image_with_its_job(tmp_path: Path, clock: FakeClock) -> None:
    store = {"job_ttl_s": 60, "image_ttl_s": 30}
    async with open_service(tmp_path, FakeEngine(), clock, store=store) as service, client_of(service) as client:
        key = service.first_key
        client.headers["authorization"] = f"Bearer {key}"
        [image] = await generate(client, "kept")
        await generate(client, "lost")
        await star(client, image["id"])
    clock.now += 1000 * DAY_S
    # The sweep runs at the start.
    later = open_service(tmp_path, FakeEngine(), clock, store=store)
    async with later as service, client_of(service, key=key) as client:
        await eventually(lambda: len(list((tmp_path / "images").iterdir())) == 1)
        [entry] = (await listed(client))["data"]
        assert entry["prompt"] == "kept"
        assert [job["id"] for job in (await client.get("/v1/jobs")).json()["data"]] == [entry["job_id"]]
        assert (await client.get(entry["url"])).status_code == 200


async def test_link_to_starred_image_is_the_same_all_day_and_lasts_a_week(
    client: httpx2.AsyncClient, anonymous: httpx2.AsyncClient, clock: FakeClock
) -> None:
    [image] = await generate(client)
    await star(client, image["id"])
    clock.now = 20_500.0 * DAY_S
    urls = set()
    for _ in range(4):
        entry = (await client.get(f"{IMAGES}/{image['id']}")).json()
        urls.add((entry["url"], entry["thumbnail_url"]))
        clock.now += DAY_S / 4 - 1
    [(url, _)] = urls
    clock.now += WEEK_S
    answer = await anonymous.get(url)
    assert answer.status_code == 200
    assert int(answer.headers["cache-control"].split("=")[1].partition(",")[0]) > WEEK_S
    assert (await client.get(f"{IMAGES}/{image['id']}")).json()["url"] != url
    clock.now += 4
    assert (await anonymous.get(url)).status_code == 404


async def test_unstarred_image_expires_at_its_time(client: httpx2.AsyncClient, clock: FakeClock) -> None:
    [image] = await generate(client)
    await star(client, image["id"])
    clock.now += DAY_S
    entry = (await star(client, image["id"], starred=False)).json()
    assert (entry["starred"], entry["expires_at"]) == (False, image["expires_at"])


async def test_image_unstarred_after_its_time_stays_for_a_day(client: httpx2.AsyncClient, clock: FakeClock) -> None:
    [image] = await generate(client)
    await star(client, image["id"])
    starred_url = (await client.get(f"{IMAGES}/{image['id']}")).json()["url"]
    clock.now += WEEK_S + 1
    entry = (await star(client, image["id"], starred=False)).json()
    assert entry["expires_at"] == int(clock.now + DAY_S)
    clock.now += DAY_S
    assert (await listed(client))["data"] == []
    assert (await client.get(starred_url)).status_code == 404
    assert (await star(client, image["id"])).status_code == 404


async def test_starring_and_unstarring_can_be_repeated(client: httpx2.AsyncClient) -> None:
    [image] = await generate(client)
    for starred in (False, True, True, False, False):
        assert (await star(client, image["id"], starred=starred)).json()["starred"] is starred


async def test_starred_image_can_be_deleted(client: httpx2.AsyncClient) -> None:
    [image] = await generate(client)
    await star(client, image["id"])
    assert (await client.delete(f"{IMAGES}/{image['id']}")).status_code == 200
    assert (await client.get(image["url"])).status_code == 404


async def test_link_of_requested_lifetime_to_starred_image_lasts_at_most_eight_days(
    client: httpx2.AsyncClient, anonymous: httpx2.AsyncClient
) -> None:
    [image] = await generate(client)
    await star(client, image["id"])
    url = (await client.post(f"{IMAGES}/{image['id']}/sign", json={"expires_in": WEEK_S})).json()["url"]
    assert (await anonymous.get(url)).status_code == 200
    answer = await client.post(f"{IMAGES}/{image['id']}/sign", json={"expires_in": 9 * DAY_S})
    assert answer.status_code == 400
    assert "because a link to a starred image lasts no longer" in answer.json()["message"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "starred: is required"),
        ({"starred": "true"}, "starred: must be true or false; it is a string"),
        ({"starred": None}, "starred: must be true or false; it is null"),
        ({"starred": True, "name": "x"}, "name: is not a known field"),
    ],
)
async def test_invalid_change_is_refused(client: httpx2.AsyncClient, body: dict[str, Any], problem: str) -> None:
    [image] = await generate(client)
    answer = await client.patch(f"{IMAGES}/{image['id']}", json=body)
    assert answer.status_code == 400
    assert problem in answer.json()["message"]


async def test_stars_end_at_the_bytes_that_the_operator_allows(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    size = len(plain_image(64, 64, (255, BODY["seed"], 0), ImageFormat.PNG))
    store = {"max_starred_bytes": 2 * size}
    async with open_service(tmp_path, engine, clock, store=store) as service, client_of(service) as client:
        client.headers["authorization"] = f"Bearer {service.first_key}"
        images = [(await generate(client))[0]["id"] for _ in range(3)]
        for image in images[:2]:
            assert (await star(client, image)).status_code == 200
        answer = await star(client, images[2])
        assert answer.status_code == 507
        assert answer.json()["error"]["code"] == "star_limit_reached"
        assert f"may have {2 * size} bytes together" in answer.json()["message"]
        assert answer.headers["x-should-retry"] == "false"
        assert (await star(client, images[0])).status_code == 200
        await star(client, images[0], starred=False)
        assert (await star(client, images[2])).status_code == 200
        _, other_key = await service.keys.create(KeySpec(), (await service.operator.accounts.create("other")).id)
        async with client_of(service, key=other_key) as other:
            [image] = await generate(other)
            assert (await star(other, image["id"])).status_code == 200


async def test_cached_copy_of_starred_image_is_not_starred(client: httpx2.AsyncClient) -> None:
    [image] = await generate(client)
    await star(client, image["id"])
    [copy] = await generate(client, use_cache=True)
    assert copy["id"] != image["id"]
    assert (image["sha256"], False) == (copy["sha256"], copy["starred"])
