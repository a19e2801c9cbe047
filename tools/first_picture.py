"""Start `allaprima serve`, paint the documented example prompt through its API, say where everything is, go on serving.

With CI=true in the environment it stops after the picture.
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2

PROMPT = "A T-Rex relaxing on a beach, lying on a sun lounger and wearing sunglasses."
BODY = {"prompt": PROMPT, "model": "flux/schnell", "image_size": {"width": 1440, "height": 512}}
READY_WITHIN_S = 120
PICTURE = Path("first-picture.png")


def main() -> int:
    """Run the main job; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    allaprima = [sys.executable, "-m", "allaprima"]
    server = Server([*allaprima, "serve", "--port", str(options.port), "--data-dir", options.data_dir])
    try:
        address = server.wait_ready()
        if address is None:
            return server.process.wait() if server.process.poll() is not None else 1
        made = subprocess.run(
            [*allaprima, "keys", "create", "--name", "make run", "--data-dir", options.data_dir],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        key = made.stdout.strip()
        answer = paint(address, key)
        image = answer["images"][0]
        with client() as http:
            PICTURE.write_bytes(http.get(image["url"]).raise_for_status().content)
        print(f"\nprompt   {PROMPT}")
        print(f"picture  {PICTURE.resolve()} ({image['width']}x{image['height']}, painted by {answer['meta']['model']}")
        print(f"         in {answer['timings']['inference']:.2f} s, seed {answer['seed']})")
        print(f"link     {image['url']}")
        print(f"key      {key}")
        print(f"address  {address} (reference at {address}/docs)", flush=True)
        if os.environ.get("CI") == "true":
            return 0
        print("serving; stop with Ctrl+C", flush=True)
        return server.process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.stop()


class Server:
    """The server as a child process, whose words are passed on as it says them."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._address: str | None = None
        threading.Thread(target=self._pass_on, daemon=True).start()

    def _pass_on(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            sys.stderr.write(line)
            # Asked of the child itself: another server may answer at the same address.
            if found := re.match(r"allaprima serves at (http://\S+)", line):
                self._address = found[1]

    def wait_ready(self) -> str | None:
        """Return the address once the server paints; None when it ended instead, or took too long."""
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if self._address is not None:
                with contextlib.suppress(httpx2.TransportError), client() as http:
                    if http.get(f"{self._address}/ready").status_code == httpx2.codes.OK:
                        return self._address
            time.sleep(0.1)
        if self.process.poll() is None:
            print(f"the server is not ready after {READY_WITHIN_S} s", file=sys.stderr)
        return None

    def stop(self) -> None:
        """End it and wait for it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=60)


def client() -> httpx2.Client:
    """Return a client that asks this machine itself, whatever proxy the environment names."""
    return httpx2.Client(trust_env=False, timeout=300)


def paint(address: str, key: str) -> dict[str, Any]:
    """Ask for the picture as a program written for the hosted endpoint would."""
    headers = {"Authorization": f"Bearer {key}"}
    with client() as http:
        response = http.post(f"{address}/v1/images/generations", headers=headers, json=BODY)
    answer: dict[str, Any] = response.raise_for_status().json()
    return answer


if __name__ == "__main__":
    sys.exit(main())
