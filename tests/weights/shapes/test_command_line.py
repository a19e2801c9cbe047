"""The command line refuses a file with exit code 2 and one sentence, and `doctor PATH` says what each file is."""

import json
import re
from pathlib import Path

import pytest

from tests.acceptance.processes import allaprima
from tests.weights.published import Published
from tests.weights.shapes.case import FILES, Refused, Site, write_reference
from tests.weights.shapes.test_shapes import CASES

REFUSED = (
    "zeros_tail",
    "lfs_pointer_as_the_path",
    "int8_convrot_scalar_without_marker",
    "nunchaku_int4_as_the_path",
    "kontext_by_metadata_alone",
    "lora_kohya_as_the_path",
    "fifo_as_the_path",
    "nf4_shape_huge",
    "pickle_named_safetensors_in_place_of_the_transformer",
)


@pytest.fixture
def site(tmp_path: Path, published: Published, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    write_reference(tmp_path / "reference", published)
    return Site(tmp_path, published, tmp_path / "reference")


def written(site: Site, name: str) -> Path:
    return CASES[name].write(site) or site.folder


def generate(site: Site, path: Path) -> tuple[int, str, str]:
    done = allaprima(
        "generate", "a red apple", "--model", path, "--tokenizer", site.published.tokenizers, "--size", "64x96",
        "--steps", 1, "--seed", 7, "-o", site.root / "image.png", folder=site.root,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", REFUSED)
def test_command_refuses_the_file_in_one_sentence(site: Site, name: str) -> None:
    code, _, stderr = generate(site, written(site, name))
    outcome = CASES[name].outcome
    assert isinstance(outcome, Refused)
    assert code == 2, stderr
    assert "Traceback" not in stderr
    text = " ".join(stderr.split())
    for pattern in outcome.patterns:
        assert re.search(pattern, text), f"{pattern} is not in: {stderr}"
    assert not (site.root / "image.png").exists()


@pytest.mark.parametrize("name", ["comfy_models_tree", "nf4_forge_bundle"])
def test_command_generates_from_the_path(site: Site, name: str) -> None:
    code, _, stderr = generate(site, written(site, name))
    assert code == 0, stderr
    assert (site.root / "image.png").stat().st_size > 1000


def test_command_names_the_unused_lora_in_its_log(site: Site) -> None:
    code, _, stderr = generate(site, written(site, "lora_kohya_in_folder"))
    assert code == 0, stderr
    assert re.search(r"not used: .*kohya\.safetensors.*LoRA", " ".join(stderr.split())), stderr


def doctor(site: Site, path: Path, *options: str) -> tuple[int, str]:
    done = allaprima("doctor", path, "--tokenizer", site.published.tokenizers, *options, folder=site.root)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def test_doctor_names_every_file_and_what_fits(site: Site) -> None:
    path = written(site, "several_relatives_in_folder")
    code, output = doctor(site, path)
    assert code == 0, output
    for word in (*FILES.values(), "a.safetensors", "Chroma", "b.safetensors", "[dev]", "c.safetensors", "LoRA", "bf16"):
        assert word in output, (word, output)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("comfy_tree_without_vae", ("autoencoder", "ae.safetensors")),
        ("lfs_pointer_in_place_of_a_needed_file", ("flux1-schnell.safetensors", "LFS")),
        ("nunchaku_int4_alone", ("svdq-int4_r32-flux.1-schnell.safetensors", "nunchaku")),
        ("shards_without_index_and_one_missing", ("00002-of",)),
    ],
)
def test_doctor_fails_and_says_what_is_missing(site: Site, name: str, words: tuple[str, ...]) -> None:
    code, output = doctor(site, written(site, name))
    assert code in (1, 2), output
    for word in words:
        assert word.lower() in output.lower(), (word, output)


def test_doctor_prints_json(site: Site) -> None:
    code, output = doctor(site, written(site, "lora_kohya_in_folder"), "--json")
    assert code == 0, output
    assert "kohya.safetensors" in json.dumps(json.loads(output[output.index("{") : output.rindex("}") + 1]))
