"""Floods of the front door, and what each costs the server and its other clients."""

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.processes import Server
from tests.stress.conftest import BODY

MB = 1_000_000
IMAGES = "/v1/images/generations"
#: Seconds between two samples of memory and descriptors, and between two requests of another client.
SAMPLE_S, PROBE_S = 0.02, 0.05
CHUNK = b"x" * 65_536


@dataclass
class Costs:
    """What a flood cost while it lasted."""

    #: Growth of the resident memory, in bytes, at its highest and after the flood.
    peak: int = 0
    kept: int = 0
    #: Most open descriptors.
    descriptors: int = 0
    #: Seconds that each request of another client took.
    waits: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        waits = sorted(self.waits) or [0.0]
        return (
            f"memory {self.peak / MB:+.1f} MB, {self.kept / MB:+.1f} MB kept; {self.descriptors} descriptors; another "
            f"client waits {1000 * waits[len(waits) // 2]:.0f} ms, at most {1000 * waits[-1]:.0f} ms"
        )


def resident(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    """Return the number of open descriptors of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextmanager
def observed(server: Server) -> Iterator[Costs]:
    """Measure a server, and the waits of another client, while the context lasts.

    Growth counts from the highest memory during some ordinary requests, because the engine returns memory after each.
    """
    costs, before, ends = Costs(), usual_memory(server), threading.Event()

    def sample() -> None:
        while not ends.wait(SAMPLE_S):
            costs.peak = max(costs.peak, resident(server.pid) - before)
            costs.descriptors = max(costs.descriptors, descriptors(server.pid))

    def probe() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        while not ends.wait(PROBE_S):
            began = time.perf_counter()
            connection.request("GET", "/health")
            assert connection.getresponse().read()
            costs.waits.append(time.perf_counter() - began)
        connection.close()

    threads = [threading.Thread(target=work) for work in (sample, probe)]
    for thread in threads:
        thread.start()
    try:
        yield costs
    finally:
        time.sleep(0.5)
        ends.set()
        for thread in threads:
            thread.join()
        costs.kept = resident(server.pid) - before


def usual_memory(server: Server) -> int:
    """Return the largest resident memory of a server while it generates, in bytes."""
    sizes, ends = [resident(server.pid)], threading.Event()

    def sample() -> None:
        while not ends.wait(SAMPLE_S / 4):
            sizes.append(resident(server.pid))

    thread = threading.Thread(target=sample)
    thread.start()
    # The engine runs several requests at a time, each with memory of its own.
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.post(server.key, **BODY).status_code, range(16)))
    ends.set()
    thread.join()
    assert set(answers) == {200}
    return max(sizes)


def head(key: str, *lines: str, path: str = IMAGES) -> bytes:
    """Return the beginning of a request, without the empty line that ends its head."""
    start = (f"POST {path} HTTP/1.1", "Host: images.test", f"Authorization: Bearer {key}")
    return "\r\n".join((*start, "Content-Type: application/json", *lines, "")).encode()


def send(server: Server, start: bytes, repeated: bytes, size: int) -> None:
    """Send `start` and then `repeated` on a new connection until it has sent `size` bytes or the server closes it."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as client, suppress(OSError):
        client.sendall(start)
        sent = 0
        while sent < size:
            client.sendall(repeated)
            sent += len(repeated)
        while client.recv(65_536):
            continue


def endless_header(server: Server, size: int) -> None:
    """One header whose value never ends."""
    send(server, head(server.key) + b"X-Long: ", CHUNK, size)


def endless_url(server: Server, size: int) -> None:
    """A URL that never ends."""
    send(server, b"GET /", CHUNK, size)


def small_headers(server: Server, size: int) -> None:
    """Headers that never end."""
    send(server, head(server.key), b"X-Header: value\r\n" * 4096, size)


def trailers(server: Server, size: int) -> None:
    """Trailers that never end, after a complete body."""
    body = json.dumps(BODY).encode()
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(body), body)
    send(server, head(server.key) + chunked, b"X-Trailer: value\r\n" * 4096, size)


def pipelined_requests(server: Server, size: int) -> None:
    """Requests that do not wait for answers, which the client does not read."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=3)) as client, suppress(OSError):
        request, sent = b"GET /openapi.json HTTP/1.1\r\nHost: images.test\r\n\r\n" * 1000, 0
        while sent < size:
            client.sendall(request)
            sent += len(request)


def large_bodies(server: Server, size: int) -> None:
    """Bodies over the limit, four at a time."""

    def work() -> None:
        send(server, head(server.key, f"Content-Length: {size}", ""), CHUNK, size)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def unknown_fields(server: Server, size: int) -> None:
    """Requests with almost a megabyte of unknown fields each, and lists of their jobs."""
    body = json.dumps(BODY | {f"field {number:06} {'x' * 80}": 1 for number in range(9000)})
    headers = {"authorization": f"Bearer {server.key}", "content-type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for _ in range(max(1, size // len(body))):
        connection.request("POST", "/v1/jobs", body, headers)
        assert connection.getresponse().read()
    connection.request("GET", "/v1/jobs?limit=100", headers=headers)
    assert len(connection.getresponse().read()) <= MB
    connection.close()


def idle_sockets(server: Server, size: int) -> None:
    """Connections that send nothing, a part of a head, or a head without its body. size: a connection per 100 kB."""
    starts = (b"", head(server.key)[:40], head(server.key, "Content-Length: 100", ""))
    with ExitStack() as opened:
        for number in range(size // 100_000):
            client = opened.enter_context(closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)))
            with suppress(OSError):
                client.sendall(starts[number % len(starts)])
        time.sleep(1)


def slow_readers(server: Server, size: int) -> None:
    """Clients that ask for images and read nothing. size: a client per 500 kB."""
    link = server.post(server.key, **BODY).json()["images"][0]["url"].removeprefix(server.url)
    request = f"GET {link} HTTP/1.1\r\nHost: images.test\r\n\r\n".encode() * 50
    with ExitStack() as opened:
        for _ in range(size // 500_000):
            client = opened.enter_context(closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)))
            client.sendall(request)
        time.sleep(1)


#: Each flood with its bytes at full length.
FLOODS: dict[Callable[[Server, int], None], int] = {
    endless_header: 100 * MB,
    endless_url: 100 * MB,
    small_headers: 200 * MB,
    trailers: 100 * MB,
    pipelined_requests: 20 * MB,
    large_bodies: 40 * MB,
    unknown_fields: 90 * MB,
    idle_sockets: 50 * MB,
    slow_readers: 75 * MB,
}
