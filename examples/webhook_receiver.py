"""Receive webhooks: verify the signature of each and print its event. The port is the argument, 9000 by default.

An account's endpoint is registered by the first request that names it, here `"webhook_url": "http://127.0.0.1:9000/"`.
"""

import json
import os
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

from standardwebhooks import Webhook, WebhookVerificationError

URL = os.environ.get("ALLAPRIMA_URL", "http://127.0.0.1:8000")


def signing_secret() -> str:
    """Return the account's secret. After a rotation the previous one is valid for another 24 hours."""
    headers = {"Authorization": f"Bearer {os.environ['ALLAPRIMA_KEY']}"}
    with urlopen(Request(f"{URL}/v1/webhooks/secret", headers=headers), timeout=60) as answer:
        return json.load(answer)["secret"]


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to a verified webhook, which is then not sent again, and 400 to any other request."""

    webhook: Webhook
    #: Ids of the webhooks that were printed: a delivery whose answer is lost is repeated with the same id.
    printed: set[str] = set()

    def do_POST(self) -> None:
        """Handle one delivery."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            event = self.webhook.verify(body, dict(self.headers))
        # A malformed signature is a ValueError.
        except (WebhookVerificationError, ValueError):
            self.send_error(400, "The signature is not valid.")
            return
        self.send_response(204)
        self.end_headers()
        if self.headers["webhook-id"] not in self.printed:
            self.printed.add(self.headers["webhook-id"])
            print(event["type"], event["data"]["id"], *(image["url"] for image in event["data"].get("images", ())))


def main() -> None:
    """Listen on loopback until interrupted."""
    Receiver.webhook = Webhook(signing_secret())
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    with ThreadingHTTPServer(("127.0.0.1", port), Receiver) as server, suppress(KeyboardInterrupt):
        print(f"listening at http://127.0.0.1:{server.server_port}/")
        server.serve_forever()


if __name__ == "__main__":
    main()
