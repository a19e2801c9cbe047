"""Pulls from a hub on loopback: complete, resumed, with wrong content, gated, on a full disk."""

import contextlib
import inspect
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from allaprima.errors import WeightsMissing, WeightsTooLarge
from allaprima.weights import hub as hub_module
from allaprima.weights.checkpoint.loader import open_checkpoint
from allaprima.weights.hub import LAYOUTS, ORIGINAL, PullPlan, RemoteFile
from allaprima.weights.hub import pull as pull_files
from allaprima.weights.open import open_model
from allaprima.weights.packed_cache import PackedWeightCache
from allaprima.weights.paths import find_path
from tests.weights.hub_server import Hub, serve_hub
from tests.weights.published import Published, generate, write_bfl, write_bundle, write_diffusers, write_gguf

LIMIT_S = 120
FP8 = "Comfy-Org/flux1-schnell"
#: Bytes that huggingface_hub writes at a time.
CHUNK = 10 * 2**20


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as served:
        yield served


@pytest.fixture(scope="module")
def repositories(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """The content of the repositories of every layout, with small files."""
    folder = tmp_path_factory.mktemp("repositories")
    hub = Hub()
    original = folder / "original"
    write_diffusers(original, published)
    shutil.copytree(published.tokenizers, original, dirs_exist_ok=True)
    (original / "transformer" / "optimizer.bin").write_bytes(b"a pickle that is not part of the layout")
    bfl = folder / "bfl"
    write_bfl(bfl, published)
    shutil.copy(bfl / "ae.safetensors", original)
    hub.add_folder(ORIGINAL, original)
    write_bundle(folder / "bundle", published)
    hub.add_folder(FP8, folder / "bundle")
    quantized = folder / "gguf"
    quantized.mkdir()
    for name in ("flux1-schnell-Q8_0.gguf", "flux1-schnell-Q4_K_S.gguf"):
        write_gguf(quantized / name, published.tensors("transformer"))
    hub.add_folder("city96/FLUX.1-schnell-gguf", quantized)
    encoders = folder / "encoders"
    encoders.mkdir()
    for name in ("t5-v1_1-xxl-encoder-Q8_0.gguf", "t5-v1_1-xxl-encoder-Q4_K_M.gguf"):
        write_gguf(encoders / name, published.tensors("t5"), architecture="t5encoder")
    hub.add_folder("city96/t5-v1_1-xxl-encoder-gguf", encoders)
    hub.repos["comfyanonymous/flux_text_encoders"] = {"clip_l.safetensors": (bfl / "clip_l.safetensors").read_bytes()}
    return hub


@pytest.fixture
def whole_hub(hub: Hub, repositories: Hub) -> Hub:
    """A running hub with the repositories of every layout."""
    hub.repos = {repo: dict(files) for repo, files in repositories.repos.items()}
    return hub


def environment(hub: Hub, tmp_path: Path, **more: str) -> dict[str, str]:
    return dict(os.environ) | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "hf"),
        "ALLAPRIMA_ENGINE__WEIGHTS_DIR": str(tmp_path / "weights"),
        **more,
    }


def command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "allaprima", *arguments)


def pull(hub: Hub, tmp_path: Path, layout: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command("pull", "flux/schnell", "--layout", layout),
        env=environment(hub, tmp_path, **more),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_pulled_and_generates_by_name(whole_hub: Hub, tmp_path: Path, layout: str) -> None:
    done = pull(whole_hub, tmp_path, layout)

    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder == tmp_path / "weights" / "models" / "flux-schnell" / layout
    assert not list(folder.rglob("*.bin"))
    assert json.loads((folder / "pulled.json").read_text())["layout"] == layout
    weights_dir = tmp_path / "weights"
    model = open_model(find_path("flux/schnell", weights_dir), weights_dir=weights_dir).load()
    assert len(set(generate(model).tobytes())) > 50


def test_licence_and_size_are_shown_before_download(whole_hub: Hub, tmp_path: Path) -> None:
    output = pull(whole_hub, tmp_path, "fp8").stderr

    assert "apache-2.0" in output
    assert output.index("apache-2.0") < output.index("flux1-schnell-fp8.safetensors")


def test_terminal_shows_progress_of_each_file(whole_hub: Hub, tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (30, 120))
    with os.fdopen(controller, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            command("pull", "flux/schnell", "--layout", "fp8"),
            env=environment(whole_hub, tmp_path),
            stdout=subprocess.DEVNULL,
            stderr=terminal,
        )
        os.close(terminal)
        shown = b""
        # Reads fail after the process has ended.
        with contextlib.suppress(OSError):
            while seen := screen.read(4096):
                shown += seen
    assert process.wait(LIMIT_S) == 0
    assert b"flux1-schnell-fp8.safetensors: 100%" in shown


def test_second_pull_downloads_nothing(whole_hub: Hub, tmp_path: Path) -> None:
    pull(whole_hub, tmp_path, "fp8")
    before = len(whole_hub.downloads)

    done = pull(whole_hub, tmp_path, "fp8")

    assert done.returncode == 0
    assert "0.00 GB to download" in done.stderr
    assert len(whole_hub.downloads) == before


def test_download_is_resumed_after_lost_connection(whole_hub: Hub, tmp_path: Path) -> None:
    name = "flux1-schnell-fp8.safetensors"
    content = whole_hub.repos[FP8][name] = os.urandom(CHUNK + 2**21)
    whole_hub.breaks[name] = CHUNK + 2**20

    done = pull(whole_hub, tmp_path, "fp8")

    assert done.returncode == 0, done.stderr
    starts = [start for file, start in whole_hub.downloads if file == name]
    assert starts[0] == 0
    assert CHUNK <= starts[1] <= CHUNK + 2**20
    assert (Path(done.stdout.strip()) / name).read_bytes() == content


def test_download_is_resumed_after_process_was_killed(whole_hub: Hub, tmp_path: Path) -> None:
    name = "flux1-schnell-fp8.safetensors"
    content = whole_hub.repos[FP8][name] = os.urandom(CHUNK + 2**21)
    whole_hub.stalls[name] = CHUNK + 2**20
    killed = subprocess.Popen(
        command("pull", "flux/schnell", "--layout", "fp8"),
        env=environment(whole_hub, tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = tmp_path / "weights" / "models" / "flux-schnell" / "fp8"
    deadline = time.monotonic() + LIMIT_S
    while not any(file.stat().st_size >= CHUNK for file in folder.rglob("*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait(LIMIT_S)
    whole_hub.resumed.set()
    assert not (folder / "pulled.json").exists()

    done = pull(whole_hub, tmp_path, "fp8")

    assert done.returncode == 0, done.stderr
    assert (folder / name).read_bytes() == content
    starts = [start for file, start in whole_hub.downloads if file == name]
    assert starts[0] == 0
    assert starts[1] >= CHUNK
    assert not list(folder.rglob("*.part"))


@pytest.mark.parametrize("name", ["flux1-schnell-fp8.safetensors", "tokenizer/merges.txt"])
def test_file_with_wrong_hash_is_refused_and_removed(whole_hub: Hub, tmp_path: Path, name: str) -> None:
    repo = FP8 if name.startswith("flux") else ORIGINAL
    listed = whole_hub.repos[repo][name]
    whole_hub.swapped[name] = listed[:-1] + bytes([listed[-1] ^ 1])

    done = pull(whole_hub, tmp_path, "fp8")

    assert done.returncode == 2
    assert f"{name} of {repo} has the hash" in done.stderr.replace("\n", "")
    folder = tmp_path / "weights" / "models" / "flux-schnell" / "fp8"
    assert not (folder / name).exists()
    assert not (folder / "pulled.json").exists()
    whole_hub.swapped.clear()
    assert pull(whole_hub, tmp_path, "fp8").returncode == 0


def test_gated_repository_needs_token(whole_hub: Hub, tmp_path: Path) -> None:
    whole_hub.gated[ORIGINAL] = "hf_secret"

    refused = pull(whole_hub, tmp_path, "fp8")

    assert refused.returncode == 2
    assert f"accept the terms at https://huggingface.co/{ORIGINAL}" in refused.stderr.replace("\n", "")
    assert "HF_TOKEN" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert pull(whole_hub, tmp_path, "fp8", HF_TOKEN="hf_secret").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sketch",), "MODEL: must be flux/schnell"),
        (("flux/schnell", "--layout", "fp4"), "--layout: must be one of bf16, fp8, gguf-q8, gguf-q4; it is fp4"),
    ],
)
def test_unknown_model_or_layout_is_refused_by_name(
    hub: Hub, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = subprocess.run(
        command("pull", *arguments),
        env=environment(hub, tmp_path),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr


def test_missing_repository_or_file_is_refused_by_name(hub: Hub, tmp_path: Path) -> None:
    assert f"the hub has no repository {FP8}" in pull(hub, tmp_path, "fp8").stderr
    hub.repos[FP8] = {"README.md": b"nothing"}
    assert f"{FP8} has no file flux1-schnell-fp8.safetensors" in pull(hub, tmp_path, "fp8").stderr


def test_unreachable_hub_is_reported(tmp_path: Path) -> None:
    with serve_hub() as gone:
        pass
    done = pull(gone, tmp_path, "fp8")
    assert done.returncode == 2
    assert re.search(r"error: no connection to 127\.0\.0\.1:\d+ \(Connection refused\); ", done.stderr)
    assert "with files from another machine: allaprima serve --model FOLDER" in done.stderr
    assert "set HF_ENDPOINT" in done.stderr
    assert "Traceback" not in done.stderr


def test_full_disk_is_refused_before_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda _: free)
    file = RemoteFile("a/b", "c" * 40, "large.safetensors", 5 * 10**9, "0" * 64)

    with pytest.raises(WeightsTooLarge, match=r"needs 5\.0 GB more, and .* has 1\.0 GB free"):
        pull_files(PullPlan("bf16", tmp_path / "to", (file,), {"a/b": "mit"}), lambda _: None)


def test_checkpoint_without_tokenizers_uses_pulled_ones(whole_hub: Hub, tmp_path: Path, published: Published) -> None:
    own = tmp_path / "own"
    write_bfl(own, published)
    cache = PackedWeightCache(tmp_path / "weights")
    with pytest.raises(WeightsMissing, match=r"the tokenizer in the package has 32100"):
        open_checkpoint(own, cache)

    pull(whole_hub, tmp_path, "fp8")

    assert open_checkpoint(own, cache).tokenizers[0].encode("a red apple").ids


@pytest.mark.parametrize(
    "name", ["tokenizer/../../../out.json", "tokenizer//out.json", "tokenizer/a\\\\..\\\\out.json"]
)
def test_file_name_outside_folder_is_refused(whole_hub: Hub, tmp_path: Path, name: str) -> None:
    whole_hub.repos[ORIGINAL][name] = b"{}"
    done = pull(whole_hub, tmp_path, "fp8")
    assert done.returncode == 2
    assert "the hub lists an invalid file" in done.stderr
    assert not list(tmp_path.rglob("out.json"))


def test_files_removed_by_newer_commit_are_deleted(whole_hub: Hub, tmp_path: Path) -> None:
    folder = Path(pull(whole_hub, tmp_path, "fp8").stdout.strip())
    whole_hub.repos[ORIGINAL]["tokenizer/other.json"] = b"{}"
    assert pull(whole_hub, tmp_path, "fp8").returncode == 0
    assert (folder / "tokenizer" / "other.json").is_file()
    del whole_hub.repos[ORIGINAL]["tokenizer/other.json"]

    assert pull(whole_hub, tmp_path, "fp8").returncode == 0

    assert not (folder / "tokenizer" / "other.json").exists()
    assert (folder / "tokenizer" / "merges.txt").is_file()


def test_private_functions_of_huggingface_hub_are_unchanged() -> None:
    """Fails when a release of huggingface_hub moves the functions or renames their parameters."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    parameters = inspect.signature(http_get).parameters
    assert list(parameters)[:2] == ["url", "temp_file"]
    assert {"resume_size", "headers", "expected_size", "displayed_filename"} <= parameters.keys()
    inspect.signature(build_hf_headers).bind()
