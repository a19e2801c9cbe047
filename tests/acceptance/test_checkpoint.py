"""A published checkpoint, served under the model's own name; and one that can't be, refused in a sentence."""

from pathlib import Path

import httpx2
import pytest

from acceptance.conftest import Serve
from acceptance.processes import allaprima
from weights.published import Published, make_networks, write_ggufs, write_tokenizers

pytestmark = pytest.mark.timeout(900)

BODY = {"model": "flux/schnell", "prompt": "a red apple", "image_size": "64x64", "seed": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one of GGUF and single files, the folder of its tokenizers in it under `tokenizers`."""
    folder = tmp_path_factory.mktemp("flux")
    write_tokenizers(folder / "tokenizers")
    write_ggufs(folder, Published(make_networks(), folder / "tokenizers"))
    return folder


def test_a_checkpoint_paints_under_its_own_name(tmp_path: Path, serve: Serve, checkpoint: Path) -> None:
    server = serve(tmp_path / "data", "--model", checkpoint, "--tokenizer", checkpoint / "tokenizers")

    assert "  model flux/schnell\n" in server.words
    answer = server.post(server.key, **BODY)
    assert answer.status_code == 200
    assert answer.headers["x-model"] == answer.json()["meta"]["model"] == "flux/schnell"
    assert answer.json()["meta"]["warnings"] == []
    [listed] = [
        model for model in httpx2.get(f"{server.url}/v1/models").json()["data"] if model["id"] == "flux/schnell"
    ]
    assert listed["served_by"] == "flux/schnell"
    assert listed["revision"] == answer.json()["meta"]["revision"]


def test_generate_paints_with_a_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    options = ("--model", checkpoint, "--tokenizer", checkpoint / "tokenizers", "--size", "64x64", "-o", "out.png")

    result = allaprima("generate", "a red apple", *options, folder=tmp_path)

    assert (result.returncode, result.stdout) == (0, "out.png\n"), result.stderr
    assert "painted by flux/schnell" in result.stderr


def test_a_checkpoint_without_tokenizers_is_refused_with_what_to_do(tmp_path: Path, checkpoint: Path) -> None:
    result = allaprima("serve", "--port", 0, "--model", checkpoint, folder=tmp_path)

    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert line.startswith(f"error: {checkpoint} holds no tokenizers")
    assert "--tokenizer" in line
