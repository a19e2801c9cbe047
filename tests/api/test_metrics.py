"""Metrics for the operator and latency percentiles for clients; neither contains a prompt or a key."""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from allaprima.service.app import Service
from allaprima.settings import ServerSettings
from tests.fakes import FakeClock, client_of

#: The server's own machine names it by a loopback name.
LOCAL = {"host": "localhost:8000"}
IMAGES = "/v1/images/generations"
BODY: dict[str, Any] = {"model": "flux/schnell", "prompt": "a rhinoceros", "size": "64x64"}


def value(text: str, line: str) -> float:
    """Return the value of a sample in Prometheus' text format."""
    [found] = [row for row in text.splitlines() if row.startswith(f"{line} ")]
    return float(found.rpartition(" ")[2])


async def test_jobs_images_and_requests_are_counted(client: httpx2.AsyncClient, key: str) -> None:
    for _ in range(3):
        await client.post(IMAGES, json=BODY | {"num_images": 2})
    await client.post(IMAGES, json={})
    await client.get("/v1/jobs/01a21077-3c90-76ec-9f21-0d711f622fe6")
    answer = await client.get("/metrics", headers=LOCAL)
    text = answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert value(text, 'allaprima_jobs_total{state="succeeded"}') == 3
    assert value(text, 'allaprima_images_total{model="allaprima/sketch"}') == 6
    assert value(text, f'allaprima_http_requests_total{{route="{IMAGES}",status="200"}}') == 3
    assert value(text, f'allaprima_http_requests_total{{route="{IMAGES}",status="400"}}') == 1
    assert value(text, 'allaprima_http_requests_total{route="/v1/jobs/{job_id}",status="404"}') == 1
    assert value(text, 'allaprima_phase_seconds_count{model="allaprima/sketch",phase="decode"}') == 3
    assert value(text, "allaprima_queue_depth") == 0
    assert value(text, "process_resident_memory_bytes") > 0
    assert "rhinoceros" not in text
    assert key not in text


@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("::ffff:127.0.0.1", {}, 200),
        ("127.0.0.1", {"host": "127.0.0.1:8000"}, 200),
        ("127.0.0.1", {"host": "[::1]:8000"}, 200),
        ("127.0.0.1", {"sec-fetch-site": "none"}, 200),
        ("127.0.0.1", {"host": "rebound.example"}, 403),
        ("127.0.0.1", {"host": "localhost.example:8000"}, 403),
        ("127.0.0.1", {"origin": "https://other.example"}, 403),
        ("127.0.0.1", {"sec-fetch-site": "cross-site"}, 403),
        ("10.0.0.7", {}, 403),
        ("127.0.0.1", {"x-forwarded-for": "1.2.3.4"}, 403),
    ],
)
async def test_metrics_without_token_are_for_loopback_only(
    service: Service, address: str, headers: dict[str, str], status: int
) -> None:
    async with client_of(service, address=address) as client:
        answer = await client.get("/metrics", headers=LOCAL | headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


async def test_metrics_token_is_accepted_from_any_address(service: Service) -> None:
    settings = ServerSettings(metrics_token="scrape the counters")
    for address in ("127.0.0.1", "10.0.0.7"):
        async with client_of(service, settings, address=address) as client:
            assert (await client.get("/metrics", headers=LOCAL)).status_code == 403
            assert (await client.get("/metrics", headers={"authorization": "Bearer wrong"})).status_code == 403
            assert (
                await client.get("/metrics", headers={"authorization": "Bearer scrape the counters"})
            ).status_code == 200


async def test_latency_percentiles_cover_last_five_minutes(
    service: Service, client: httpx2.AsyncClient, clock: FakeClock, tmp_path: Path
) -> None:
    await client.post(IMAGES, json=BODY)
    body = (await client.get("/models/metrics")).json()
    assert (body["window_seconds"], body["generated_at"]) == (300, "2026-01-15T08:00:00.000Z")
    [model] = body["models"]
    assert (model["alias"], model["endpoint"]) == ("flux/schnell", IMAGES)
    assert set(model["metrics"]["duration_ms"]) == {"p50", "p75", "p90", "p99"}
    assert (await client.get("/models/metrics?aliases=sketch")).json()["models"] == []
    assert len((await client.get("/models/metrics?aliases=sketch&aliases=flux/schnell")).json()["models"]) == 1
    assert (await client.get("/models/metrics?window=5")).status_code == 400
    clock.now += 301
    assert (await client.get("/models/metrics")).json()["models"] == []


async def test_server_timing_lists_phases_of_request(client: httpx2.AsyncClient) -> None:
    timing = (await client.post(IMAGES, json=BODY)).headers["server-timing"]
    assert [part.partition(";")[0] for part in timing.split(", ")] == [
        "queue", "text", "steps", "decode", "safety", "encode",
    ]  # fmt: skip
    assert "decode;dur=500.0" in timing
