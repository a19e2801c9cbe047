"""Prometheus metrics of a server. Each server has its own registry, so several can run in one process."""

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

#: Upper bounds of histogram buckets in seconds: the range from the built-in model to FLUX on a slow CPU.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one server. No label contains a prompt, a key or a client's name."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        common: dict[str, Any] = {"namespace": "allaprima", "registry": self._registry}
        self._requests = Counter("http_requests", "HTTP responses by route and status.", ["route", "status"], **common)
        self._answer_s = Histogram(
            "http_seconds", "Seconds from a request to the end of its response.", ["route"], buckets=SECONDS, **common
        )
        self._jobs = Counter("jobs", "Finished jobs by final state.", ["state"], **common)
        self._refused = Counter(
            "refusals", "Requests refused for lack of capacity or credits, by reason.", ["reason"], **common
        )
        self._images = Counter("images", "Generated images by model.", ["model"], **common)
        self._flagged = Counter(
            "images_withheld", "Images that the safety checker withheld, by model.", ["model"], **common
        )
        self._bytes = Counter(
            "image_bytes", "Size of the generated image files in bytes, by model.", ["model"], **common
        )
        self._wait_s = Histogram(
            "wait_seconds", "Seconds from a job's acceptance to its start.", buckets=SECONDS, **common
        )
        self._phase_s = Histogram(
            "phase_seconds", "Seconds that a phase of a job took.", ["model", "phase"], buckets=SECONDS, **common
        )
        self._webhooks = Counter("webhook_tries", "Attempts to deliver webhooks, by outcome.", ["outcome"], **common)
        self._depth = Gauge("queue_depth", "Queued jobs.", **common)
        Gauge("start_time_seconds", "Start time of the server in unix seconds.", **common).set(time.time())

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an HTTP response. route: the path's pattern."""
        self._requests.labels(route, str(status)).inc()
        self._answer_s.labels(route).observe(seconds)

    def refused(self, reason: str) -> None:
        """Count a request refused for lack of capacity or credits. reason: the error's code."""
        self._refused.labels(reason).inc()

    def ended(self, state: str) -> None:
        """Count a finished job by its final state."""
        self._jobs.labels(state).inc()

    def started(self, waited_s: float) -> None:
        """Record the start of a job in the engine. waited_s: seconds since its acceptance."""
        self._wait_s.observe(max(0.0, waited_s))

    def generated(self, model: str, phases: Mapping[str, float], sizes: Sequence[int], withheld: int) -> None:
        """Record a generated result. phases: seconds by name. sizes: bytes of each file. withheld: number of images."""
        for phase, seconds in phases.items():
            self._phase_s.labels(model, phase).observe(seconds)
        self._images.labels(model).inc(len(sizes))
        self._flagged.labels(model).inc(withheld)
        self._bytes.labels(model).inc(sum(sizes))

    def webhook(self, outcome: str) -> None:
        """Count an attempt to deliver a webhook."""
        self._webhooks.labels(outcome).inc()

    def text(self, depth: int) -> bytes:
        """Return all metrics in Prometheus' text format. depth: number of queued jobs."""
        self._depth.set(depth)
        return generate_latest(self._registry)
