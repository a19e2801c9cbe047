"""Generate an image and save it, then submit a job and follow it to its end, with requests."""

import os
import time
from pathlib import Path

import requests

URL = os.environ.get("ALLAPRIMA_URL", "http://127.0.0.1:8000")
BODY = {"model": "flux/schnell", "prompt": "a red apple, blue background", "image_size": "512x512"}

session = requests.Session()
session.headers["Authorization"] = f"Bearer {os.environ['ALLAPRIMA_KEY']}"


def call(method: str, path: str, body: dict | None = None) -> dict:
    """Return the answer's JSON. Raises `requests.HTTPError` for a refused request, with the server's message."""
    response = session.request(method, f"{URL}{path}", json=body, timeout=300)
    if not response.ok:
        raise requests.HTTPError(response.json()["message"], response=response)
    return response.json()


def save(image: dict, path: Path) -> None:
    """Download an image. Its link needs no key."""
    response = requests.get(image["url"], timeout=60)
    response.raise_for_status()
    path.write_bytes(response.content)
    print(f"saved {path}, {image['width']}x{image['height']}, seed {image['seed']}")


def follow(job: dict) -> dict:
    """Poll a job until it has ended, and return it."""
    while job["status"] in ("queued", "running"):
        print(f"job {job['id']} is {job['status']}")
        time.sleep(0.2)
        job = call("GET", f"/v1/jobs/{job['id']}")
    return job


def main() -> None:
    """Generate one image in each of the two ways."""
    answer = call("POST", "/v1/images/generations", BODY)
    save(answer["images"][0], Path("generated.png"))

    job = follow(call("POST", "/v1/jobs", BODY | {"seed": 7}))
    print(f"job {job['id']} has {job['status']}")
    if job["status"] == "succeeded":
        save(job["result"]["images"][0], Path("job.png"))


if __name__ == "__main__":
    main()
