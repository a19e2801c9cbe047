"""Start `allaprima serve`, paint the documented example prompt through its API, say where everything is, go on serving.

With CI=true in the environment it stops after the picture.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
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
    command = [*allaprima, "serve", "--port", str(options.port), "--data-dir", options.data_dir]
    server = subprocess.Popen(command)
    try:
        address = f"http://127.0.0.1:{options.port}"
        if not wait_ready(server, address):
            return server.wait()
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
        PICTURE.write_bytes(httpx2.get(image["url"]).raise_for_status().content)
        print(f"\nprompt   {PROMPT}")
        print(f"picture  {PICTURE.resolve()} ({image['width']}x{image['height']}, painted by {answer['meta']['model']}")
        print(f"         in {answer['timings']['inference']:.2f} s, seed {answer['seed']})")
        print(f"link     {image['url']}")
        print(f"key      {key}")
        print(f"address  {address} (reference at {address}/docs)", flush=True)
        if os.environ.get("CI") == "true":
            return 0
        print("serving; stop with Ctrl+C", flush=True)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        stop(server)


def wait_ready(server: "subprocess.Popen[bytes]", address: str) -> bool:
    """Wait until the server paints; False when it ended instead."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(f"{address}/ready").status_code == httpx2.codes.OK:
                return True
        time.sleep(0.1)
    return False


def paint(address: str, key: str) -> dict[str, Any]:
    """Ask for the picture as a program written for the hosted endpoint would."""
    headers = {"Authorization": f"Bearer {key}"}
    response = httpx2.post(f"{address}/v1/images/generations", headers=headers, json=BODY, timeout=300)
    answer: dict[str, Any] = response.raise_for_status().json()
    return answer


def stop(server: "subprocess.Popen[bytes]") -> None:
    """End the server and wait for it."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)


if __name__ == "__main__":
    sys.exit(main())
