"""A server that gives every request the same error of S3, for errors that SeaweedFS does not give."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from allaprima.domain.bucket import parse_bucket
from allaprima.store.objects.bucket import BucketObjectStore


class Answers(ThreadingHTTPServer):
    """A server that gives every request the same answer."""

    def __init__(self, status: int, code: str) -> None:
        """code: of the error in S3's form."""
        self.answer = status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Give the answer."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        assert isinstance(self.server, Answers)
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET  # noqa: N815 - the names of the library

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def bucket_that_answers(status: int, code: str) -> Iterator[BucketObjectStore]:
    """Yield a bucket whose server gives every request that answer."""
    server = Answers(status, code)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        yield BucketObjectStore(parse_bucket(f"s3://photos?endpoint={endpoint}&region=eu"))
    finally:
        server.shutdown()
        server.server_close()
