"""Model folders: loading, revisions, and refusal of damaged files by file and tensor."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from allaprima.domain.models import SKETCH_ID
from allaprima.errors import WeightsCorrupt, WeightsError, WeightsMissing
from allaprima.flux import ModelConfig
from allaprima.kernels import library
from allaprima.weights.builtin import save_model
from allaprima.weights.builtin_header import TOKENIZER_FILE, WEIGHTS_FILE
from allaprima.weights.networks import Networks
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from allaprima.weights.prompts.lexicon import LEXICON_FILE
from allaprima.weights.tokenizers import word_tokenizer

Tensors = dict[str, torch.Tensor]
TENSOR = "transformer.img_in.weight"


def read(folder: Path) -> tuple[Tensors, dict[str, str]]:
    with safe_open(folder / WEIGHTS_FILE, "pt") as opened:
        header = opened.metadata()
    return load_file(folder / WEIGHTS_FILE), header


def rewrite(folder: Path, change: Callable[[Tensors], object]) -> None:
    """Change the tensors of a model folder in place."""
    tensors, header = read(folder)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_FILE, header)


def rewrite_header(folder: Path, **values: str | None) -> None:
    """Change the header of a model folder; None removes an entry."""
    tensors, header = read(folder)
    header = {name: value for name, value in (header | values).items() if value is not None}
    save_file(tensors, folder / WEIGHTS_FILE, header)


def revision(folder: Path) -> str:
    return open_model(folder).load().revision


def test_loaded_model_equals_saved_model(folder: Path, networks: Networks, config: ModelConfig) -> None:
    files = open_model(folder)
    model = files.load()

    assert (files.id, files.config) == (model.id, model.config) == ("tests/tiny", config)
    read_back, written = model.networks.state_dict(), networks.state_dict()
    assert read_back.keys() == written.keys()
    assert all(torch.equal(read_back[name], written[name]) for name in written)


def test_loaded_model_is_ready_for_inference_on_cpu(folder: Path) -> None:
    networks = open_model(folder).load().networks

    assert not networks.training
    dtype = torch.bfloat16 if library.level() >= library.IsaLevel.AVX512 else torch.float32
    assert all(tensor.dtype == dtype and not tensor.requires_grad for tensor in networks.parameters())
    assert not any(tensor.is_meta for tensor in networks.state_dict().values())


def test_tensors_are_stored_in_bfloat16(folder: Path) -> None:
    tensors, _ = read(folder)

    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_tokenizers_have_lengths_of_their_encoders(folder: Path, config: ModelConfig) -> None:
    model = open_model(folder).load()

    assert len(model.t5_tokenizer.encode("a red apple").ids) == config.t5.length
    assert len(model.clip_tokenizer.encode("a red apple").ids) == config.clip.length


def test_model_saved_again_has_same_revision(folder: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = open_model(folder).load()

    save_model(tmp_path / "deep" / "again", model.id, model.config, model.networks, tokenizer)

    assert revision(tmp_path / "deep" / "again") == model.revision


def test_folder_name_does_not_change_revision(folder: Path, tmp_path: Path) -> None:
    before = revision(folder)

    shutil.move(folder, tmp_path / "another name")

    assert revision(tmp_path / "another name") == before


@pytest.mark.parametrize("network", ["autoencoder", "clip", "t5", "transformer"])
def test_every_weight_changes_revision(folder: Path, network: str) -> None:
    tensors, header = read(folder)
    names = [name for name in tensors if name.startswith(f"{network}.")]
    seen = {revision(folder)}

    for name, index in ((names[0], 0), (names[0], -1), (names[-1], 0), (names[-1], -1)):
        changed = tensors | {name: tensors[name].clone()}
        changed[name].view(-1)[index] += 1
        save_file(changed, folder / WEIGHTS_FILE, header)
        seen.add(revision(folder))

    assert len(seen) == 5


def test_lexicon_changes_revision(folder: Path) -> None:
    seen = {revision(folder)}
    content = (sketch_folder() / LEXICON_FILE).read_bytes()
    for end in (b"", b" "):
        (folder / LEXICON_FILE).write_bytes(content + end)
        seen.add(revision(folder))

    assert len(seen) == 3


def test_revision_is_16_hexadecimal_digits(folder: Path) -> None:
    digits = revision(folder)

    assert len(digits) == 16
    assert set(digits) <= set("0123456789abcdef")


@pytest.mark.parametrize("name", [WEIGHTS_FILE, TOKENIZER_FILE])
def test_missing_file_is_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).unlink()

    with pytest.raises(WeightsMissing) as caught:
        open_model(folder)

    assert name in caught.value.message
    assert str(folder) in caught.value.message


def test_missing_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="nowhere"):
        open_model(tmp_path / "nowhere")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999], ids=str)
def test_truncated_file_is_refused_by_name(folder: Path, share: float) -> None:
    data = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(data[: int(len(data) * share)])

    with pytest.raises(WeightsCorrupt) as caught:
        open_model(folder).load()

    assert str(folder / WEIGHTS_FILE) in caught.value.message


@pytest.mark.parametrize("data", [b"garbage", b"\xff" * 4096, b"\0" * 4096, b"PK\x03\x04" + b"x" * 100])
def test_garbage_weights_are_refused_by_name(folder: Path, data: bytes) -> None:
    (folder / WEIGHTS_FILE).write_bytes(data)

    with pytest.raises(WeightsCorrupt) as caught:
        open_model(folder)

    assert str(folder / WEIGHTS_FILE) in caught.value.message


@pytest.mark.parametrize("data", [b"", b"garbage", b"{}", b"\xff\xfe", b'{"model": {"type": "Unheard"}}'])
def test_garbage_word_list_is_refused_by_name(folder: Path, data: bytes) -> None:
    (folder / TOKENIZER_FILE).write_bytes(data)

    with pytest.raises(WeightsCorrupt) as caught:
        open_model(folder).load()

    assert str(folder / TOKENIZER_FILE) in caught.value.message


def test_word_list_larger_than_vocabulary_is_refused(folder: Path, config: ModelConfig) -> None:
    # The word list begins with 3 special tokens, and CLIP reserves the last 2 ids.
    limit = config.clip.vocab_size - 5
    word_tokenizer([f"word{number}" for number in range(limit)]).save(str(folder / TOKENIZER_FILE))
    open_model(folder).load()
    word_tokenizer([f"word{number}" for number in range(limit + 1)]).save(str(folder / TOKENIZER_FILE))

    with pytest.raises(WeightsCorrupt) as caught:
        open_model(folder).load()

    assert str(folder / TOKENIZER_FILE) in caught.value.message


def with_value(name: str, value: float) -> Callable[[Tensors], object]:
    def change(tensors: Tensors) -> None:
        tensors[name].view(-1)[3] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(TENSOR), f"lacks the tensor {TENSOR} (1 in all)"),
        (lambda tensors: tensors.update({"more": torch.zeros(1).bfloat16()}), "the unexpected tensor more (1 in all)"),
        (lambda tensors: tensors.update({TENSOR: tensors[TENSOR].T.contiguous()[:-1]}), f"the tensor {TENSOR} has the"),
        (lambda tensors: tensors.update({TENSOR: tensors[TENSOR].reshape(-1)}), f"the tensor {TENSOR} has the shape"),
        (lambda tensors: tensors.update({TENSOR: torch.zeros(())}), f"the tensor {TENSOR} has the shape ()"),
        (with_value(TENSOR, float("nan")), f"the tensor {TENSOR} holds values that are not finite"),
        (
            with_value("clip.text_model.final_layer_norm.bias", float("inf")),
            "final_layer_norm.bias holds values that are",
        ),
    ],
    ids=["missing", "unexpected", "transposed", "flat", "scalar", "NaN", "infinite"],
)
def test_invalid_tensor_is_refused_by_file_and_name(
    folder: Path, change: Callable[[Tensors], object], message: str
) -> None:
    rewrite(folder, change)

    with pytest.raises(WeightsCorrupt) as caught:
        open_model(folder).load()

    assert str(folder / WEIGHTS_FILE) in caught.value.message
    assert message in caught.value.message


@pytest.mark.parametrize(
    "dtype",
    [torch.int8, torch.uint8, torch.bool, torch.complex64, torch.float32, torch.float16, torch.float8_e4m3fn],
    ids=str,
)
def test_tensor_of_another_number_format_than_bfloat16_is_refused_by_name(folder: Path, dtype: torch.dtype) -> None:
    rewrite(folder, lambda tensors: tensors.update({TENSOR: tensors[TENSOR].to(dtype)}))

    with pytest.raises(WeightsCorrupt) as caught:
        open_model(folder).load()

    assert str(folder / WEIGHTS_FILE) in caught.value.message
    assert TENSOR in caught.value.message


def test_foreign_weights_file_is_refused_by_name(folder: Path) -> None:
    rewrite_header(folder, format=None)

    with pytest.raises(WeightsCorrupt, match="was not written by allaprima") as caught:
        open_model(folder)

    assert str(folder / WEIGHTS_FILE) in caught.value.message


def header_config(folder: Path) -> dict[str, Any]:
    return json.loads(read(folder)[1]["config"])


def changed_config(folder: Path, network: str, **values: object) -> str:
    sizes = header_config(folder)
    return json.dumps(sizes | {network: sizes[network] | values})


@pytest.mark.parametrize(
    "text",
    ["", "not JSON", "null", "[]", "7", "{}", '{"transformer": []}', '{"transformer": {}}', "[" * 5000, None],
    ids=["empty", "no JSON", "null", "a list", "a number", "nothing", "lists", "no sizes", "too deep", "absent"],
)
def test_header_with_invalid_configuration_is_refused(folder: Path, text: str | None) -> None:
    rewrite_header(folder, config=text)

    with pytest.raises(WeightsCorrupt, match="header") as caught:
        open_model(folder)

    assert str(folder / WEIGHTS_FILE) in caught.value.message


def test_configuration_with_unknown_size_is_refused(folder: Path) -> None:
    rewrite_header(folder, config=changed_config(folder, "t5", more=1))

    with pytest.raises(WeightsCorrupt, match="header"):
        open_model(folder)


def test_tensors_of_another_configuration_are_refused(folder: Path) -> None:
    rewrite_header(folder, config=changed_config(folder, "t5", d_ff=24))

    with pytest.raises(WeightsCorrupt, match=r"the tensor t5\..* has the shape"):
        open_model(folder).load()


def test_header_without_id_is_refused(folder: Path) -> None:
    rewrite_header(folder, id=None)

    with pytest.raises(WeightsCorrupt, match="header"):
        open_model(folder)


def test_mutated_weights_are_refused_or_equal_to_the_sound_ones(folder: Path, networks: Networks) -> None:
    path = folder / WEIGHTS_FILE
    sound = path.read_bytes()
    header = 8 + int.from_bytes(sound[:8], "little")
    written = networks.state_dict()
    rng = random.Random(30)
    refusals: list[str] = []

    for number in range(200):
        data = bytearray(sound)
        match number % 4:
            case 0:
                data[rng.randrange(8, header)] = rng.randrange(256)
            case 1:
                for _ in range(8):
                    data[rng.randrange(8, header)] = rng.choice(b'0123456789"{}[],:-.eE ntf')
            case 2:
                data[:8] = (header - 8 + rng.choice((-9, -1, 1, 8, 10**6, 2**40))).to_bytes(8, "little")
            case 3:
                start = rng.randrange(8, header)
                del data[start : start + rng.randrange(1, 40)]
                data[:8] = (header - 8 + len(data) - len(sound)).to_bytes(8, "little")
        path.write_bytes(data)
        try:
            state = open_model(folder).load().networks.state_dict()
        except WeightsError as exc:
            refusals.append(exc.message)
        else:
            assert state.keys() == written.keys()
            assert all(torch.equal(state[name], written[name]) for name in written)

    assert len(refusals) > 100
    assert all(str(path) in message for message in refusals)


def test_model_may_have_any_configuration(tmp_path: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
    whole = replace(config, native_tokens=None)

    save_model(tmp_path, "mine/own", whole, Networks(whole), tokenizer)

    assert open_model(tmp_path).config == whole


def test_built_in_model_loads_with_its_revision() -> None:
    files = open_model(sketch_folder())
    model = files.load()

    assert files.id == model.id == SKETCH_ID
    assert model.revision == "2a45228875e62d77"
