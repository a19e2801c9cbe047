"""`allaprima serve`: start, stop, refused starts, keys while a server runs, and a crash."""

import hashlib
import io
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from allaprima.weights.paths import sketch_folder
from tests.acceptance.conftest import Serve
from tests.acceptance.processes import LIMIT_S, Server, allaprima
from tests.waiting import until

pytestmark = pytest.mark.timeout(900)

SMALL = {"model": "flux/schnell", "prompt": "a red apple", "image_size": "256x256", "num_inference_steps": 1}


@dataclass(frozen=True)
class Restarted:
    """A server that generated an image and stopped, a key made after that, and a second server on the same folder.

    The second server has no fallback model.
    """

    first: Server
    answer: dict[str, Any]
    #: Of the first server.
    exit_status: int
    new_key: str
    second: Server


@pytest.fixture(scope="module")
def restarted(serve_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> Restarted:
    folder = tmp_path_factory.mktemp("restarted")
    data_dir = folder / "not yet" / "there"
    data_dir.parent.mkdir()
    first = serve_module(data_dir)
    answer = first.post(first.key, **SMALL).raise_for_status().json()
    exit_status = first.stop()
    new_key = allaprima("keys", "create", "--data-dir", data_dir, folder=folder).stdout.strip()
    second = serve_module(data_dir, "--no-fallback")
    return Restarted(first, answer, exit_status, new_key, second)


def refused(result: Any) -> list[str]:
    """Return the error lines of a refused command."""
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    first, *lines = result.stderr.splitlines()
    assert first == "allaprima starts"
    return lines


# Starting and stopping


def test_first_start_prints_one_valid_key(restarted: Restarted) -> None:
    assert len(restarted.first.keys) == 1
    assert len(restarted.answer["images"]) == 1


def test_greeting_names_models_and_data_folder(restarted: Restarted) -> None:
    output = restarted.first.output

    assert "model flux/schnell - served by allaprima/sketch, because its weights are missing" in output
    assert "model allaprima/sketch\n" in output
    assert f"data in {restarted.first.data_dir}\n" in output


def test_stopped_server_exits_with_0_and_prints_no_error(restarted: Restarted) -> None:
    assert restarted.exit_status == 0
    assert "Traceback" not in restarted.first.output
    assert "rror" not in restarted.first.output


def test_later_start_prints_no_key_and_old_keys_stay_valid(restarted: Restarted) -> None:
    assert restarted.second.keys == []
    for key in (restarted.first.key, restarted.new_key):
        # The body is invalid, and bodies are validated only for valid keys.
        assert restarted.second.post(key).status_code == 400


def test_images_survive_restart_under_same_path(restarted: Restarted) -> None:
    [image] = restarted.answer["images"]
    path = image["url"].removeprefix(restarted.first.url)

    answer = httpx2.get(f"{restarted.second.url}{path}", timeout=LIMIT_S)

    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).hexdigest() == image["sha256"]


def test_equal_requests_give_equal_files_after_restart(restarted: Restarted) -> None:
    [image] = restarted.answer["images"]

    again = restarted.second.post(restarted.new_key, **SMALL | {"model": "allaprima/sketch", "seed": image["seed"]})

    assert again.status_code == 200
    again = again.json()
    assert again["images"][0]["sha256"] == image["sha256"]


def test_missing_model_without_fallback_names_loaded_models(restarted: Restarted) -> None:
    refusal = restarted.second.post(restarted.new_key, **SMALL)

    assert refusal.status_code == 400
    assert refusal.json()["error"]["param"] == "model"
    assert "'flux/schnell'" in refusal.json()["message"]
    assert "it serves 'allaprima/sketch'" in refusal.json()["message"]
    listed = httpx2.get(f"{restarted.second.url}/v1/models", timeout=LIMIT_S).json()
    assert [model["id"] for model in listed["data"]] == ["allaprima/sketch"]
    assert "flux/schnell" not in restarted.second.output


def test_secret_and_operator_socket_are_for_owner_only(server: Server) -> None:
    for name in ("secret", "operator.sock"):
        assert (server.data_dir / name).stat().st_mode & 0o077 == 0


# Refusals


@pytest.fixture(scope="module")
def bad_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose header is valid, and of whose tensors one holds a value that is not finite."""
    folder = tmp_path_factory.mktemp("bad model")
    with safe_open(sketch_folder() / "model.safetensors", "pt") as opened:
        header = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    next(tensor for tensor in tensors.values() if tensor.ndim == 1)[0] = float("nan")
    save_file(tensors, folder / "model.safetensors", header | {"id": "mine/own"})
    shutil.copy(sketch_folder() / "tokenizer.json", folder)
    return folder


@pytest.fixture(scope="module")
def refusals(server: Server, bad_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of three commands that can't serve, which run at the same time."""
    folder = tmp_path_factory.mktemp("refused")
    options = {
        "folder": ("--port", 0, "--data-dir", server.data_dir),
        "port": ("--port", server.port, "--data-dir", folder / "port"),
        "model": ("--port", 0, "--data-dir", folder / "model", "--model", bad_model),
    }
    with ThreadPoolExecutor() as pool:
        running = {
            name: pool.submit(allaprima, "serve", *arguments, folder=folder) for name, arguments in options.items()
        }
        return {name: future.result() for name, future in running.items()}


def test_second_server_on_data_folder_is_refused_in_one_line(server: Server, refusals: dict[str, Any]) -> None:
    [line] = refused(refusals["folder"])
    assert line == f"error: another server uses the data folder {server.data_dir}"
    assert httpx2.get(f"{server.url}/ready", timeout=LIMIT_S).status_code == 200


def test_port_in_use_is_refused_in_one_line(server: Server, refusals: dict[str, Any]) -> None:
    [line] = refused(refusals["port"])
    assert f"can't listen on 127.0.0.1:{server.port}" in line
    assert "--port" in line


def test_model_that_fails_to_load_ends_server_naming_file(bad_model: Path, refusals: dict[str, Any]) -> None:
    last = refused(refusals["model"])[-1]

    assert last.startswith(f"error: {bad_model / 'model.safetensors'}: the tensor ")
    assert last.endswith(" holds values that are not finite")


# Keys


def test_keys_are_created_listed_and_revoked_while_server_runs(server: Server, tmp_path: Path) -> None:
    def keys(command: str, *arguments: object) -> Any:
        result = allaprima("keys", command, *arguments, "--data-dir", server.data_dir, folder=tmp_path)
        assert result.returncode == 0, result.stderr
        return result

    made = keys("create", "--name", "for a friend")
    assert re.fullmatch(r"ap_[0-9A-Za-z]{36}\n", made.stdout)
    key = made.stdout.strip()
    prefix = key[3:11]
    assert prefix in made.stderr
    assert server.post(key).status_code == 400

    assert keys("revoke", prefix).stdout == ""

    assert server.post(key).status_code == 401
    assert server.post(server.key).status_code == 400
    rows = keys("list").stdout.splitlines()
    # Other tests make keys on this server too.
    (first,) = [row for row in rows if server.key[3:11] in row]
    (revoked,) = [row for row in rows if prefix in row]
    assert ("valid" in first, "revoked" in first) == (True, False)
    assert ("valid" in revoked, "revoked" in revoked) == (False, True)
    assert "for a friend" in revoked


# Crashes


def test_killed_job_is_generated_once_after_restart(serve: Serve, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    first = serve(data_dir)
    key = first.key
    body = {
        "model": "flux/schnell",
        "prompt": "a red apple",
        "image_size": {"width": 1536, "height": 1536},
        "num_inference_steps": 12,
        "num_images": 4,
        "seed": 3,
        "enable_safety_checker": False,
    }

    with ThreadPoolExecutor() as pool:
        asked = pool.submit(first.post, key, **body)
        until(lambda: first.query("SELECT id FROM jobs WHERE state = 'running'") or None, "a lease", every_s=0.005)
        first.kill()
        assert isinstance(asked.exception(LIMIT_S), httpx2.TransportError)

    [[job_id, state]] = first.query("SELECT id, state FROM jobs")
    assert state == "running"
    assert first.query("SELECT * FROM usage") == first.query("SELECT * FROM images") == []

    second = serve(data_dir)
    final = "('succeeded', 'failed', 'cancelled')"
    [[attempt, state, request]] = until(
        lambda: second.query(f"SELECT attempt, state, request FROM jobs WHERE state IN {final}") or None,  # noqa: S608
        "the job's end",
    )

    assert (attempt, state) == (2, "succeeded")
    assert json.loads(request)["prompt"] == "a red apple"
    assert second.query("SELECT job_id, images FROM usage") == [(job_id, 4)]
    rows = second.query("SELECT job_id, position, seed, object_name, sha256 FROM images ORDER BY position")
    assert [row[:3] for row in rows] == [(job_id, position, str(3 + position)) for position in range(4)]
    for *_, object_name, sha256 in rows:
        data = (data_dir / "images" / object_name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (1536, 1536)


def test_second_stop_signal_requeues_open_requests(tmp_path: Path, serve: Serve) -> None:
    first = serve(tmp_path / "data")
    body = SMALL | {"image_size": "1024x1024", "num_inference_steps": 12}
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(first.post, first.key, **body, seed=seed) for seed in range(4)]
        until(lambda: len(first.query("SELECT id FROM jobs")) == 4 or None, "the jobs")
        assert first.stop(twice=True) == 0, first.output
        answers = [future.result(LIMIT_S) for future in asked]

    rejected = [answer for answer in answers if answer.status_code != 200]
    assert rejected
    for answer in rejected:
        problem = answer.json()
        assert (answer.status_code, problem["statusCode"]) == (503, 503)
        assert problem["error"]["code"] == "draining"
        assert {"requestId", "timestamp", "path", "message"} < set(problem)
        assert int(answer.headers["retry-after"]) >= 1
    assert "Traceback" not in first.output

    second = serve(tmp_path / "data")
    waiting = "SELECT id FROM jobs WHERE state IN ('queued', 'running')"
    until(lambda: second.query(waiting) == [] or None, "the jobs' ends")
    assert second.query("SELECT state FROM jobs") == [("succeeded",)] * 4
    assert second.query("SELECT count(DISTINCT job_id), sum(images) FROM usage") == [(4, 4)]
