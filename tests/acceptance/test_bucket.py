"""Real servers with images in a bucket: refused starts, a start while the bucket is away, and a kill after a put."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.processes import LIMIT_S, environment
from tests.fake_s3 import bucket_that_answers
from tests.seaweed import CREDENTIALS, READER, Seaweed

pytestmark = pytest.mark.timeout(900)

SMALL = {"model": "flux/schnell", "prompt": "a red apple", "image_size": "64x64", "num_inference_steps": 1}
SETTING = "ALLAPRIMA_STORE__BUCKET"


def start(folder: Path, url: str, credentials: dict[str, str]) -> "subprocess.Popen[str]":
    """Start a server that may be refused."""
    command = [sys.executable, "-m", "allaprima", "serve", "--port", "0", "--data-dir", str(folder / "data")]
    folder.mkdir()
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(**credentials, **{SETTING: url}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_unusable_bucket_refuses_start_in_one_sentence_without_secrets(seaweed: Seaweed, tmp_path: Path) -> None:
    url = seaweed.address()
    where = f"{SETTING}: could not write an object in the bucket images at {seaweed.endpoint}"
    unknown = CREDENTIALS | {"AWS_ACCESS_KEY_ID": "unknown"}
    wrong = CREDENTIALS | {"AWS_SECRET_ACCESS_KEY": "wrong-and-long"}
    with bucket_that_answers(404, "NoSuchBucket") as missing:
        gone = f"s3://photos?endpoint={missing.address.endpoint}&region=eu"
        cases = [
            (url, unknown, f"{where}: the access key is unknown; see AWS_ACCESS_KEY_ID"),
            (url, wrong, f"{where}: the secret key is wrong; see AWS_SECRET_ACCESS_KEY"),
            (url, READER, f"{where}: the credentials lack the permission"),
            (gone, CREDENTIALS, f"bucket photos at {missing.address.endpoint}: there is no such bucket"),
        ]
        # At the same time, because each imports torch first.
        servers = [start(tmp_path / f"{number}", case[0], case[1]) for number, case in enumerate(cases)]
        for server, (_, credentials, message) in zip(servers, cases, strict=True):
            output, errors = server.communicate(timeout=LIMIT_S)
            *_, line = errors.splitlines()
            assert (server.returncode, output) == (2, ""), errors
            assert line.startswith(f"error: {SETTING}: ")
            assert line.endswith(message)
            assert "Traceback" not in errors
            assert credentials["AWS_SECRET_ACCESS_KEY"] not in errors
