"""The programs of `examples/` work as they are against a real server."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from tests.acceptance.processes import LIMIT_S, Server, environment
from tests.programs import need

pytestmark = pytest.mark.timeout(900)

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in {".py", ".mjs"})
MAX_LINES = 60


def variables(server: Server) -> dict[str, str]:
    return environment(ALLAPRIMA_URL=server.url, ALLAPRIMA_KEY=server.key, PYTHONUNBUFFERED="1")


def run_example(name: str, interpreter: str, server: Server, folder: Path) -> list[str]:
    """Run an example in a folder; return the lines that it printed."""
    done = subprocess.run(
        [interpreter, EXAMPLES / name],
        cwd=folder,
        env=variables(server),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def check_images(folder: Path, *names: str) -> None:
    """Check that these files and no others are in a folder, and that each is a whole PNG."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    for name in names:
        with Image.open(folder / name) as image:
            image.load()
            assert (image.format, image.size) == ("PNG", (512, 512))


def test_requests_client_saves_images_of_request_and_job(server: Server, tmp_path: Path) -> None:
    first, *polls, end, last = run_example("requests_client.py", sys.executable, server, tmp_path)

    assert re.fullmatch(r"saved generated\.png, 512x512, seed \d+", first)
    assert polls
    assert all(re.fullmatch(r"job \S+ is (queued|running)", line) for line in polls)
    assert re.fullmatch(r"job \S+ has succeeded", end)
    assert last == "saved job.png, 512x512, seed 7"
    check_images(tmp_path, "generated.png", "job.png")


def test_openai_client_gets_link_base64_and_error(server: Server, tmp_path: Path) -> None:
    link, *saved, refused = run_example("openai_client.py", sys.executable, server, tmp_path)

    assert re.fullmatch(rf"link: {server.url}/files/\S+\.png", link)
    assert saved == ["saved openai-0.png", "saved openai-1.png"]
    assert refused.startswith("refused: Body validation error! ")
    check_images(tmp_path, "openai-0.png", "openai-1.png")


@pytest.mark.node
def test_javascript_client_saves_image_and_follows_events(server: Server, tmp_path: Path) -> None:
    lines = run_example("client.mjs", need("node", "runs the JavaScript client"), server, tmp_path)

    assert re.fullmatch(r"saved generated\.png, 512x512, seed \d+", lines[0])
    assert [line for line in lines if line.startswith("step ")] == [f"step {step} of 4" for step in (1, 2, 3, 4)]
    assert lines[-2:] == ["succeeded", "saved job.png, 512x512, seed 7"]
    check_images(tmp_path, "generated.png", "job.png")


@contextmanager
def webhook_receiver(server: Server) -> Iterator["subprocess.Popen[str]"]:
    """Run the receiver on a free port. Its output goes to a pipe."""
    command = [sys.executable, EXAMPLES / "webhook_receiver.py", "0"]
    with subprocess.Popen(
        command, env=variables(server), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_webhook_receiver_prints_events_and_refuses_forgeries(server: Server) -> None:
    with webhook_receiver(server) as receiver:
        greeting, _, url = read_line(receiver).rpartition(" ")
        assert greeting == "listening at"
        forged = {"webhook-id": "msg_1", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
        for headers in ({}, forged, forged | {"webhook-signature": "v1"}):
            assert httpx2.post(url, headers=headers, json={"type": "job.succeeded"}).status_code == 400
        answer = server.post(
            server.key,
            model="flux/schnell",
            prompt="a red apple",
            image_size="64x64",
            num_inference_steps=1,
            webhook_url=url,
        )
        printed = read_line(receiver)

    [image] = answer.raise_for_status().json()["images"]
    event, job_id, link = printed.split(" ")
    assert event == "job.succeeded"
    assert job_id
    # A link is signed when it is written; only its signature may differ.
    assert link.partition("?")[0] == image["url"].partition("?")[0]


def test_every_example_is_short_and_listed_in_readme() -> None:
    readme = (EXAMPLES / "README.md").read_text("utf-8")

    assert [name for name in PROGRAMS if f"[`{name}`]({name})" not in readme] == []
    assert [name for name in PROGRAMS if len((EXAMPLES / name).read_text("utf-8").splitlines()) >= MAX_LINES] == []
