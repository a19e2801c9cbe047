"""A stream of events that is cut at every event tells everything once."""

from collections.abc import Callable

import httpx2
import pytest

from acceptance.processes import Server
from allaprima.service.jobs.events import END

BODY = {"model": "sketch", "prompt": "a red apple", "size": "512x512", "num_inference_steps": 12, "seed": 1}
Heard = list[tuple[str, str]]


def listen(server: Server, job_id: str, last: str | None, limit: int) -> Heard:
    """Read some events, ids and types, and hang up."""
    headers = {"authorization": f"Bearer {server.key}"} | ({"last-event-id": last} if last else {})
    heard: Heard = []
    event_id = ""
    with httpx2.stream("GET", f"{server.url}/v1/jobs/{job_id}/events", headers=headers, timeout=120) as answer:
        if answer.status_code == 204:
            return heard
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                event_id = value
            if name == "event":
                kind = value
            if not line and event_id:
                heard.append((event_id, kind))
                event_id = ""
                if len(heard) == limit:
                    break
    return heard


@pytest.mark.timeout(900)
def test_a_stream_cut_at_every_event_has_no_gap_and_no_repeat(
    server: Server, full: bool, figures: Callable[[str], None]
) -> None:
    jobs = 20 if full else 3
    headers = {"authorization": f"Bearer {server.key}"}
    told = cuts = 0
    for number in range(jobs):
        body = BODY | {"seed": number}
        job_id = httpx2.post(f"{server.url}/v1/jobs", json=body, headers=headers, timeout=60).json()["id"]
        heard: Heard = []
        while not heard or not heard[-1][0].endswith(f".{END}"):
            heard += listen(server, job_id, heard[-1][0] if heard else None, limit=1)
            cuts += 1
        numbers = [int(event_id.partition(".")[2]) for event_id, _ in heard]
        assert numbers == [*range(1, len(heard)), END]
        assert [kind for _, kind in heard].count("step") == 12
        assert heard[-1][1] == "succeeded"
        assert listen(server, job_id, heard[-1][0], limit=1) == []
        assert listen(server, job_id, None, limit=10**6) == heard
        told += len(heard)
    figures(f"{jobs} jobs, {told} events, {cuts} cuts: 0 gaps, 0 repeats")
