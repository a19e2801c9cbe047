"""Repeated slashes in a path make no difference."""

import httpx2
import pytest

from allaprima.service.app import Service
from tests.fakes import client_of

BODY = {"model": "sketch", "prompt": "a boat", "size": "64x64"}


@pytest.mark.parametrize("path", ["/v1//images/generations", "//v1/images/generations", "/v1/images///generations"])
async def test_repeated_slashes_make_no_difference(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.post(f"http://images.test{path}", json=BODY)
    assert answer.status_code == 200


async def test_metrics_stay_closed_to_web_pages(service: Service) -> None:
    async with client_of(service) as client:
        for path in ("/metrics", "//metrics"):
            answer = await client.get(f"http://localhost{path}", headers={"origin": "https://evil.test"})
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers


async def test_unknown_path_stays_unknown(client: httpx2.AsyncClient) -> None:
    assert (await client.get("http://images.test/v1//nothing")).status_code == 404
