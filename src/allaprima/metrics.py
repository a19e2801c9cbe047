"""Counters of what the server does, for Prometheus. One registry a server, so that two in one process don't mix."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

#: Upper bounds of the histograms in seconds: from a small image of the built-in model to one of FLUX on a slow CPU.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """What is counted. No prompt, key or client appears in any label."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        common: dict[str, Any] = {"namespace": "allaprima", "registry": self._registry}
        self._requests = Counter("http_requests", "Answers by route and status.", ["route", "status"], **common)
        self._answer_s = Histogram("http_seconds", "Seconds to the answer.", ["route"], buckets=SECONDS, **common)
        self._jobs = Counter("jobs", "Jobs that ended, by final state.", ["state"], **common)
        self._refused = Counter(
            "refusals", "Requests refused for lack of room or credits, by reason.", ["reason"], **common
        )
        self._images = Counter("images", "Images generated, by model.", ["model"], **common)
        self._flagged = Counter("images_withheld", "Images that the safety checker withheld.", ["model"], **common)
        self._bytes = Counter("image_bytes", "Bytes of finished images.", ["model"], **common)
        self._wait_s = Histogram("wait_seconds", "Seconds from acceptance to start.", buckets=SECONDS, **common)
        self._phase_s = Histogram(
            "phase_seconds", "Seconds of a phase of a job.", ["model", "phase"], buckets=SECONDS, **common
        )
        self._webhooks = Counter("webhook_tries", "Tries to deliver webhooks, by outcome.", ["outcome"], **common)
        self._depth = Gauge("queue_depth", "Jobs that wait.", **common)
        Gauge("start_time_seconds", "When the server started, unix seconds.", **common).set(time.time())

    def answered(self, route: str, status: int, seconds: float) -> None:
        """An HTTP answer was given."""
        self._requests.labels(route, str(status)).inc()
        self._answer_s.labels(route).observe(seconds)

    def refused(self, reason: str) -> None:
        """A request was refused for lack of room or credits."""
        self._refused.labels(reason).inc()

    def ended(self, state: str) -> None:
        """A job ended."""
        self._jobs.labels(state).inc()

    def started(self, waited_s: float) -> None:
        """A job was handed to the engine."""
        self._wait_s.observe(max(0.0, waited_s))

    def generated(self, model: str, phases: Mapping[str, float], sizes: Sequence[int], withheld: int) -> None:
        """A result was stored. phases: seconds by name. sizes: bytes of the files. withheld: how many of them."""
        for phase, seconds in phases.items():
            self._phase_s.labels(model, phase).observe(seconds)
        self._images.labels(model).inc(len(sizes))
        self._flagged.labels(model).inc(withheld)
        self._bytes.labels(model).inc(sum(sizes))

    def webhook(self, outcome: str) -> None:
        """A webhook was tried."""
        self._webhooks.labels(outcome).inc()

    def text(self, depth: int) -> bytes:
        """Return everything in Prometheus' text format. depth: how many jobs wait now."""
        self._depth.set(depth)
        return generate_latest(self._registry)
