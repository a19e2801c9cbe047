"""A small hub on loopback that lists and serves files of repositories as huggingface_hub expects."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

COMMIT = "c" * 40
#: Size in bytes from which files are identified by SHA-256, as large files are on huggingface.co.
LARGE = 1000


@dataclass
class Hub:
    """Content and behaviour of the server; both may be changed while it runs."""

    #: Content by repository and file name.
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    #: The token that a repository requires.
    gated: dict[str, str] = field(default_factory=dict)
    #: Served in place of the listed content, by file name.
    swapped: dict[str, bytes] = field(default_factory=dict)
    #: Bytes of a file after which the connection is closed, once, by file name.
    breaks: dict[str, int] = field(default_factory=dict)
    #: Bytes of a file after which the hub stops sending until `resumed` is set, by file name.
    stalls: dict[str, int] = field(default_factory=dict)
    resumed: threading.Event = field(default_factory=threading.Event)
    #: Every download: file name and first byte.
    downloads: list[tuple[str, int]] = field(default_factory=list)
    address: str = ""

    def add_folder(self, repo: str, folder: Path) -> None:
        """Publish a folder's files."""
        files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        self.repos.setdefault(repo, {}).update(files)


def digest(content: bytes) -> str:
    """Return the SHA-256 of a large file, or git's blob hash of a small one."""
    if len(content) >= LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Run a hub while the context lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.resumed.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_HEAD(self) -> None:
        self._respond(with_body=False)

    def do_GET(self) -> None:
        self._respond(with_body=True)

    def _respond(self, *, with_body: bool) -> None:
        parts = unquote(urlparse(self.path).path).strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        repo = "/".join(parts[2:4] if is_api else parts[:2])
        if repo not in self.hub.repos:
            self._refuse(404, "RepoNotFound")
        elif self.headers.get("authorization") != f"Bearer {self.hub.gated[repo]}" if repo in self.hub.gated else False:
            self._refuse(401, "GatedRepo")
        elif is_api:
            self._send(json.dumps(self._info(repo)).encode())
        else:
            self._file(repo, "/".join(parts[4:]), with_body=with_body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _info(self, repo: str) -> dict[str, object]:
        siblings = []
        for name, content in self.hub.repos[repo].items():
            entry: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": "b" * 40}
            if len(content) >= LARGE:
                entry["lfs"] = {"sha256": digest(content), "size": len(content), "pointerSize": 130}
            else:
                entry["blobId"] = digest(content)
            siblings.append(entry)
        return {"id": repo, "sha": COMMIT, "siblings": siblings, "cardData": {"license": "apache-2.0"}, "tags": []}

    def _file(self, repo: str, name: str, *, with_body: bool) -> None:
        listed = self.hub.repos[repo].get(name)
        if listed is None:
            self._refuse(404, "EntryNotFound")
            return
        content = self.hub.swapped.get(name, listed)
        first_byte = self.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")[0]
        start = int(first_byte)
        self.send_response(206 if "range" in self.headers else 200)
        self.send_header("ETag", f'"{digest(listed)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        if "range" in self.headers:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if with_body:
            self.hub.downloads.append((name, start))
            stop = self.hub.breaks.pop(name, len(content))
            self._stream(content, start, stop, self.hub.stalls.get(name, stop))

    def _stream(self, content: bytes, start: int, stop: int, stall: int) -> None:
        try:
            self.wfile.write(content[start : min(stall, stop)])
            if stall < stop:
                self.hub.resumed.wait()
                self.wfile.write(content[max(start, stall) : stop])
        except OSError:
            self.close_connection = True
        if stop < len(content):
            self.close_connection = True
            self.connection.close()
