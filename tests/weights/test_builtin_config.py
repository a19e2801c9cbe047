"""The configuration in the header of a model folder: invalid fields are refused by name before anything is built."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from allaprima.flux import SKETCH, ModelConfig
from allaprima.weights.builtin_config import MAX_CONFIG_BYTES
from allaprima.weights.builtin_header import WEIGHTS_FILE, read_header
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from tests.weights.headers import change_config, read_config, refusal, write_metadata

WHOLE = (
    "transformer.in_channels", "transformer.vec_in_dim", "transformer.context_in_dim", "transformer.hidden_size",
    "transformer.num_heads", "transformer.depth", "transformer.depth_single_blocks", "transformer.theta",
    "transformer.place_channels", "t5.vocab_size", "t5.d_model", "t5.d_kv", "t5.d_ff", "t5.num_heads", "t5.num_layers",
    "t5.length", "t5.relative_attention_num_buckets", "t5.relative_attention_max_distance", "clip.vocab_size",
    "clip.hidden_size", "clip.intermediate_size", "clip.num_heads", "clip.num_layers", "clip.length", "autoencoder.ch",
    "autoencoder.num_res_blocks", "autoencoder.z_channels", "autoencoder.patch", "autoencoder.groups",
)  # fmt: skip
REAL = (
    "transformer.mlp_ratio", "t5.layer_norm_epsilon", "clip.layer_norm_eps", "autoencoder.scale_factor",
    "autoencoder.shift_factor",
)  # fmt: skip
LISTS = ("transformer.axes_dim", "autoencoder.ch_mult")
ALL = (*WHOLE, *REAL, *LISTS, "transformer.canvas_means", "canvas_tokens", "predicts")
DEEP: Any = json.loads("[" * 500 + "]" * 500)
WRONG_WHOLE = (-1, 2**40, 10**400, True, "3", 3.0, None, [3], {}, float("nan"), float("inf"), DEEP)
WRONG_REAL = (-1e9, 1e9, True, "1", None, [1.0], float("nan"), float("inf"), float("-inf"), 10**400)
WRONG_LISTS = ([], 3, "123", None, [1, -1, 1], [2, 2, True], [2, 2, 2.0], [2, 2, 10**400], [[2], 2, 2], [2] * 99, {})


def set_field(field: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        *owners, name = field.split(".")
        for owner in owners:
            config = config[owner]
        assert name in config
        config[name] = value

    return change


@pytest.mark.parametrize("field", WHOLE)
def test_whole_number_outside_its_bounds_is_refused_by_field(folder: Path, field: str) -> None:
    for value in WRONG_WHOLE:
        change_config(folder, set_field(field, value))

        message = refusal(folder)

        start = f"{folder / WEIGHTS_FILE} has an invalid configuration in its header: {field} must be a"
        assert message.startswith(start), value
        assert "; it is " in message, value


@pytest.mark.parametrize("field", REAL)
def test_number_outside_its_bounds_is_refused_by_field(folder: Path, field: str) -> None:
    for value in WRONG_REAL:
        change_config(folder, set_field(field, value))

        assert f"{field} must be a number above " in refusal(folder), value


@pytest.mark.parametrize("field", [*WHOLE, *(field for field in REAL if field != "autoencoder.shift_factor")])
def test_zero_is_refused_by_field(folder: Path, field: str) -> None:
    change_config(folder, set_field(field, 0))
    if field == "transformer.place_channels":
        assert open_model(folder).config.transformer.pos_embed_channels == 0
    elif field == "transformer.depth_single_blocks":
        assert f"{field} is 0, but the file has the tensors of 1 of them" in refusal(folder)
    else:
        assert f"{field} must be a" in refusal(folder)


@pytest.mark.parametrize("field", LISTS)
def test_list_of_other_values_is_refused_by_field(folder: Path, field: str) -> None:
    for value in WRONG_LISTS:
        change_config(folder, set_field(field, value))

        assert f"{field} must be a list of" in refusal(folder), value


@pytest.mark.parametrize(
    ("field", "value", "clause"),
    [
        ("transformer.canvas_means", 1, "must be true or false; it is 1"),
        ("transformer.canvas_means", None, "must be true or false; it is null"),
        ("canvas_tokens", 0, "must be a whole number from 1 to 4096; it is 0"),
        ("canvas_tokens", 1e3, "must be a whole number from 1 to 4096; it is 1000.0"),
        ("predicts", "noise", "Expected 'velocity' | 'image'"),
        ("predicts", None, "Expected 'velocity' | 'image'"),
        ("predicts", ["image"], "Expected 'velocity' | 'image'"),
        ("transformer", None, "transformer must be an object; it is null"),
        ("t5", [], "t5 must be an object; it is a list"),
        ("clip", "clip", "clip must be an object; it is a string"),
        ("autoencoder", {}, "autoencoder.ch is required"),
    ],
    ids=str,
)
def test_field_of_another_type_is_refused_by_field(folder: Path, field: str, value: object, clause: str) -> None:
    change_config(folder, set_field(field, value))

    message = refusal(folder)

    assert f"header: {field}" in message
    assert clause in message


@pytest.mark.parametrize("field", ALL)
def test_missing_field_is_refused_by_name(folder: Path, field: str) -> None:
    def remove(config: dict[str, Any]) -> None:
        *owners, name = field.split(".")
        for owner in owners:
            config = config[owner]
        del config[name]

    change_config(folder, remove)

    assert f"{field} is required" in refusal(folder)


@pytest.mark.parametrize(
    "name", ["more", "native_tokens", "", "\n\x1b[31m", "x" * 10_000], ids=lambda name: ascii(name)[:20]
)
@pytest.mark.parametrize("owner", ["", "transformer", "t5", "clip", "autoencoder"])
def test_unknown_field_is_refused(folder: Path, owner: str, name: str) -> None:
    change_config(folder, lambda config: (config[owner] if owner else config).update({name: 1}))

    message = refusal(folder)

    assert "is not a known field" in message
    assert message.isprintable()


@pytest.mark.parametrize(
    ("changes", "clause"),
    [
        ({"transformer.in_channels": 20}, "in_channels must be 4 x autoencoder.z_channels, 16; it is 20"),
        ({"transformer.in_channels": 18}, "in_channels must be a multiple of 4; it is 18"),
        ({"transformer.place_channels": 6}, "place_channels must be a multiple of 4; it is 6"),
        ({"transformer.num_heads": 3}, "hidden_size must be a multiple of transformer.num_heads, 3; it is 16"),
        ({"transformer.num_heads": 4}, "the sum of transformer.axes_dim must be"),
        ({"transformer.axes_dim": [2, 2, 2]}, "the sum of transformer.axes_dim must be"),
        ({"transformer.axes_dim": [2, 3, 3]}, "axes_dim must be even numbers; it is [2, 3, 3]"),
        ({"transformer.vec_in_dim": 4}, "vec_in_dim must be clip.hidden_size, 8; it is 4"),
        ({"transformer.context_in_dim": 4}, "context_in_dim must be t5.d_model, 8; it is 4"),
        ({"transformer.mlp_ratio": 1e-9}, "mlp_ratio must give a layer of one value or more"),
        ({"clip.num_heads": 3}, "clip.hidden_size must be a multiple of clip.num_heads, 3; it is 8"),
        ({"autoencoder.groups": 3}, "autoencoder.ch must be a multiple of autoencoder.groups, 3; it is 8"),
        ({"t5.relative_attention_max_distance": 8}, "relative_attention_max_distance must be above a quarter"),
        (
            {"autoencoder.patch": 64, "canvas_tokens": 4096},
            "canvas_tokens, with image tokens of 256 x 256 pixels, must be at most",
        ),
        ({"autoencoder.patch": 3, "canvas_tokens": None}, "must divide 32 pixels without canvas_tokens; it has 12"),
    ],
    ids=str,
)
def test_fields_that_contradict_each_other_are_refused(folder: Path, changes: dict[str, Any], clause: str) -> None:
    for field, value in changes.items():
        change_config(folder, set_field(field, value))

    assert clause in refusal(folder)


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("transformer.depth", 60, 1),
        ("transformer.depth_single_blocks", 128, 1),
        ("t5.num_layers", 128, 1),
        ("clip.num_layers", 2, 1),
        ("autoencoder.num_res_blocks", 16, 1),
    ],
)
def test_number_of_layers_must_be_that_of_the_tensors(folder: Path, field: str, value: int, found: int) -> None:
    change_config(folder, set_field(field, value))

    assert f"{field} is {value}, but the file has the tensors of {found} of them" in refusal(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"transformer.hidden_size": 2**14, "transformer.axes_dim": [2**11, 2**11, 2**12]},
        {"transformer.hidden_size": 32, "transformer.axes_dim": [4, 4, 8]},
        {"transformer.place_channels": 8},
        {"transformer.canvas_means": True},
        {"transformer.mlp_ratio": 64.0},
        {"t5.vocab_size": 2**20},
        {"t5.d_ff": 2**17},
        {"t5.d_kv": 8},
        {"t5.num_heads": 4, "t5.d_kv": 2},
        {"t5.relative_attention_num_buckets": 64},
        {"clip.vocab_size": 17},
        {"clip.intermediate_size": 2**17},
        {"clip.length": 77},
        {"autoencoder.ch": 16},
        {"autoencoder.patch": 2},
        {"autoencoder.ch_mult": [1, 4]},
        {"autoencoder.z_channels": 8, "transformer.in_channels": 32},
        {"clip.hidden_size": 16, "transformer.vec_in_dim": 16},
        {"t5.d_model": 16, "transformer.context_in_dim": 16},
    ],
    ids=str,
)
def test_sizes_must_be_those_of_the_tensors(folder: Path, changes: dict[str, Any]) -> None:
    for field, value in changes.items():
        change_config(folder, set_field(field, value))

    message = refusal(folder)

    assert any(f"{field.rpartition('.')[2]}" in message for field in changes)


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("", "is not JSON"),
        ("not JSON", "is not JSON"),
        ("null", "is not a JSON object"),
        ("[]", "is not a JSON object"),
        ("7", "is not a JSON object"),
        ("[" * 5000, "nested too deeply"),
        ('{"a":' * 5000, "nested too deeply"),
        ("{}", "transformer is required"),
        ('{"t5": {"length": 1, "length": 2}}', "has the key 'length' twice"),
        ('{"t5": 1' + "0" * 5000 + "}", "has a number with thousands of digits"),
        ("x" * (MAX_CONFIG_BYTES + 1), "at most 65536 are allowed"),
        ('{"t5": "\\ud800"}', "is required"),
        ('{"\\ud800": 1}', "has a key that is not valid Unicode"),
    ],
    ids=[
        "empty",
        "text",
        "null",
        "list",
        "number",
        "lists",
        "objects",
        "nothing",
        "duplicate",
        "digits",
        "long",
        "lone",
        "key",
    ],
)
def test_text_that_is_no_configuration_is_refused(folder: Path, text: str, clause: str) -> None:
    write_metadata(folder, config=text)

    assert clause in refusal(folder)


def test_duplicate_field_is_refused_even_with_equal_values(folder: Path) -> None:
    text = json.dumps(read_config(folder)).replace('"depth": 1', '"depth": 1, "depth": 1')
    write_metadata(folder, config=text)

    assert "has the key 'depth' twice" in refusal(folder)


def test_configurations_of_shipped_and_tiny_model_are_valid(folder: Path, config: ModelConfig) -> None:
    assert open_model(sketch_folder()).config == SKETCH
    assert open_model(folder).config == config
    assert read_header(folder).config.token_px == config.token_px
