"""The hosted endpoint's own example programs work if only their base URL and key are changed."""

import ast
import io
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from tests.acceptance.processes import LIMIT_S, Server, environment
from tests.programs import need

pytestmark = pytest.mark.timeout(900)

PROGRAMS = Path(__file__).parent / "programs"
PROMPT = "A T-Rex relaxing on a beach, lying on a sun lounger and wearing sunglasses."


def run_program(name: str, interpreter: str, server: Server, folder: Path) -> str:
    """Run a program of the page against a server; return its output."""
    program = (PROGRAMS / name).read_text()
    assert program.count("https://api.aimlapi.com") == 1
    changed = program.replace("https://api.aimlapi.com", server.url).replace("<YOUR_AIMLAPI_KEY>", server.key)
    (folder / name).write_text(changed)
    done = subprocess.run(
        [interpreter, folder / name],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def check_image(url: str) -> None:
    """Download and check an image, without a key."""
    answer = httpx2.get(url, timeout=LIMIT_S)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    with Image.open(io.BytesIO(answer.content)) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (1440, 512))


def test_python_program_of_hosted_page_runs_unchanged(server: Server, tmp_path: Path) -> None:
    printed = run_program("seed_page.py", sys.executable, server, tmp_path)

    assert printed.startswith("Generation: ")
    answer = ast.literal_eval(printed.removeprefix("Generation: "))
    assert {"images", "timings", "seed", "has_nsfw_concepts", "prompt"} <= answer.keys()
    [image] = answer["images"]
    assert {"url", "width", "height", "content_type"} <= image.keys()
    assert (image["width"], image["height"], image["content_type"]) == (1440, 512, "image/png")
    assert isinstance(answer["timings"]["inference"], float)
    assert answer["timings"]["inference"] > 0
    assert isinstance(answer["seed"], int)
    [is_flagged] = answer["has_nsfw_concepts"]
    assert isinstance(is_flagged, bool)
    assert answer["prompt"] == PROMPT
    check_image(image["url"])


@pytest.mark.node
def test_javascript_program_of_hosted_page_runs_unchanged(server: Server, tmp_path: Path) -> None:
    printed = run_program("seed_page.mjs", need("node", "runs the page's JavaScript program"), server, tmp_path)

    assert printed.startswith("Generation: {")
    for member in (
        r"images: \[",
        r"url: 'http://[^']+\.png'",
        "width: 1440",
        "height: 512",
        "content_type: 'image/png'",
        r"timings: \{",
        r"inference: \d+\.\d+",
        r"seed: \d+",
        r"has_nsfw_concepts: \[ (true|false) \]",
        f"prompt: '{re.escape(PROMPT)}'",
    ):
        assert re.search(rf"\b{member}", printed), f"{member} is not in {printed}"
    [url, *_] = re.findall(r"\burl: '([^']+)'", printed)
    check_image(url)
