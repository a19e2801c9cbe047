"""A stream of events that is disconnected at every event delivers each event once."""

from collections.abc import Callable

import httpx2
import pytest

from allaprima.domain.events import LAST_NUMBER
from tests.acceptance.processes import LIMIT_S, Server

BODY = {"model": "sketch", "prompt": "a red apple", "size": "512x512", "num_inference_steps": 12, "seed": 1}
Events = list[tuple[str, str]]


def read_events(client: httpx2.Client, job_id: str, last: str | None, limit: int) -> Events:
    """Read up to `limit` events as (id, type), then disconnect."""
    headers = {"last-event-id": last} if last else {}
    received: Events = []
    event_id = ""
    with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
        if answer.status_code == 204:
            return received
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                event_id = value
            if name == "event":
                kind = value
            if not line and event_id:
                received.append((event_id, kind))
                event_id = ""
                if len(received) == limit:
                    break
    return received


@pytest.mark.timeout(900)
def test_resumed_stream_has_no_gap_and_no_repeat(server: Server, full: bool, figures: Callable[[str], None]) -> None:
    jobs = 20 if full else 3
    headers = {"authorization": f"Bearer {server.key}"}
    delivered = cuts = 0
    with httpx2.Client(base_url=server.url, headers=headers, timeout=LIMIT_S) as client:
        for number in range(jobs):
            job_id = client.post("/v1/jobs", json=BODY | {"seed": number}).json()["id"]
            received: Events = []
            while not received or not received[-1][0].endswith(f".{LAST_NUMBER}"):
                received += read_events(client, job_id, received[-1][0] if received else None, limit=1)
                cuts += 1
            # A busy engine lets the job wait first; the ids of its positions have attempt 0.
            running = [event_id for event_id, kind in received if kind != "queued"]
            numbers = [int(event_id.partition(".")[2]) for event_id in running]
            assert numbers == [*range(1, len(running)), LAST_NUMBER]
            assert received[-len(running) :] == [one for one in received if one[0] in running]
            assert [kind for _, kind in received].count("step") == 12
            assert received[-1][1] == "succeeded"
            assert read_events(client, job_id, received[-1][0], limit=1) == []
            assert read_events(client, job_id, None, limit=10**6) == received
            delivered += len(received)
    figures(f"{jobs} jobs, {delivered} events, {cuts} disconnects: 0 gaps, 0 repeats")
