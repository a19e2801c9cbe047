"""The id and the word list of a model folder: what is not sane is refused by file, in bounded time and memory."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from allaprima.weights.builtin_header import (
    MAX_HEADER_BYTES,
    MAX_WORD_LIST_BYTES,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    is_model_folder,
)
from allaprima.weights.open import open_model
from allaprima.weights.prompts.lexicon import LEXICON_FILE
from tests.weights.headers import read_metadata, refusal, write_metadata

#: Memory that the refusal of an absurd file may take.
MAX_GROWTH_KIB = 200 * 1024


@pytest.mark.parametrize(
    "model_id",
    [
        "", " ", "a b", "..", "../a", "a/..", "a/../b", "/", "/a", "a/", "a//b", "a/b/c", ".a", "a.", "-a", "Flux",
        "a\n", "\x00", "a\x1b[31m", "a:b", "a,b", "a=b", "a%2fb", "ä", "a" * 65, "a" * 100_000, "\u202ea", "a?b", "a#b",
        "a\\b",
    ],
    ids=lambda value: ascii(value)[:20],
)  # fmt: skip
def test_id_that_no_route_can_address_is_refused(folder: Path, model_id: str) -> None:
    write_metadata(folder, id=model_id)

    message = refusal(folder)

    assert message.startswith(f"{folder / WEIGHTS_FILE} has an invalid header: the id must be a name or owner/name")
    assert message.isprintable()


@pytest.mark.parametrize("model_id", ["a", "mine/own", "a-b_c.d/0.1", "a" * 64, "flux/schnell", "0"])
def test_sane_id_is_read(folder: Path, model_id: str) -> None:
    write_metadata(folder, id=model_id)

    assert open_model(folder).id == model_id


@pytest.mark.parametrize("name", ["id", "config"])
def test_missing_entry_of_header_is_refused_by_name(folder: Path, name: str) -> None:
    metadata = read_metadata(folder)
    write_metadata(folder, **{name: None})
    assert "is not a readable safetensors file" in refusal(folder)

    data = (folder / WEIGHTS_FILE).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = {key: value for key, value in metadata.items() if key != name}
    text = json.dumps(header).encode()
    (folder / WEIGHTS_FILE).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])

    assert f"has an invalid header: it has no {name}" in refusal(folder)


@pytest.mark.parametrize("value", [1, True, [], {"a": 1}, 1.5], ids=str)
@pytest.mark.parametrize("name", ["id", "config", "format"])
def test_entry_of_header_that_is_no_string_is_refused(folder: Path, name: str, value: object) -> None:
    write_metadata(folder, **{name: value})

    assert "is not a readable safetensors file" in refusal(folder)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[" * 5000,
        b'{"a":' * 5000,
        b'{"\xff": 1}',
        b"null",
        b'{"__metadata__": {"id": "a"}, "a": {"dtype": "BF16", "shape": [1e400], "data_offsets": [0, 2]}}',
        b'{"a": {"dtype": "BF16", "shape": [-1], "data_offsets": [0, 2]}}',
        b'{"a": {"dtype": "BF16", "shape": [1], "data_offsets": [2, 0]}}',
        b'{"a": {"dtype": "BF16", "shape": [18446744073709551615, 18446744073709551615], "data_offsets": [0, 2]}}',
    ],
    ids=range(10),
)
def test_damaged_header_is_refused_by_file(folder: Path, header: bytes) -> None:
    (folder / WEIGHTS_FILE).write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")

    assert str(folder / WEIGHTS_FILE) in refusal(folder)


@pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 1, 2**31, 2**63, 2**64 - 1])
def test_header_longer_than_the_file_is_refused(folder: Path, length: int) -> None:
    data = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(length.to_bytes(8, "little") + data[8:])

    expected = "bytes of its header" if length <= MAX_HEADER_BYTES + 1 else "is not a readable safetensors file"
    assert expected in refusal(folder)


def word_list(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the JSON of a word list in place."""
    values = json.loads((folder / TOKENIZER_FILE).read_bytes())
    change(values)
    (folder / TOKENIZER_FILE).write_text(json.dumps(values))


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["model"]["vocab"].update(absurd=2**32 - 1),
        lambda values: values["model"]["vocab"].update(absurd=2**64),
        lambda values: values["model"]["vocab"].update(absurd=-1),
        lambda values: values["model"]["vocab"].update(absurd=1.5),
        lambda values: values["model"]["vocab"].update(absurd="3"),
        lambda values: values["model"]["vocab"].update(absurd=True),
        lambda values: values["model"]["vocab"].update({"<pad>": 5}),
        lambda values: values["model"]["vocab"].pop("</s>"),
        lambda values: values["model"]["vocab"].clear(),
        lambda values: values["model"].update(vocab=[]),
        lambda values: values["model"].update(vocab=None),
        lambda values: values["model"].update(unk_token="red"),
        lambda values: values["model"].update(unk_token=""),
        lambda values: values["model"].update(type="BPE"),
        lambda values: values["model"].update(type="WordPiece"),
        lambda values: values.update(model=None),
        lambda values: values.pop("model"),
        lambda values: values.update(normalizer=None),
        lambda values: values.update(
            normalizer={"type": "Replace", "pattern": {"Regex": "(a|a)*b"}, "content": "a" * 100_000}
        ),
        lambda values: values.update(pre_tokenizer=None),
        lambda values: values.update(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True}),
        lambda values: values.update(post_processor={"type": "ByteLevel", "add_prefix_space": True}),
        lambda values: values.update(decoder={"type": "Fuse"}),
        lambda values: values.update(
            truncation={"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
        ),
        lambda values: values.update(added_tokens=[{"id": 2**32 - 1, "content": "x"}]),
        lambda values: values.update(
            added_tokens=[
                {
                    "id": 2**31,
                    "content": "x",
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
            ]
        ),
        lambda values: values.update(version="9.9"),
    ],
    ids=range(27),
)
def test_tokenizer_that_is_no_word_list_is_refused(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    word_list(folder, change)

    assert str(folder / TOKENIZER_FILE) in refusal(folder)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"model":' * 100_000,
        b"null",
        b"7",
        b"\xff\xfe\x00",
        b'{"model": {"type": "WordLevel", "vocab": {}}}',
    ],
    ids=range(6),
)
def test_word_list_that_is_no_tokenizer_is_refused(folder: Path, data: bytes) -> None:
    (folder / TOKENIZER_FILE).write_bytes(data)

    assert str(folder / TOKENIZER_FILE) in refusal(folder)


def test_published_tokenizer_is_no_word_list(folder: Path) -> None:
    Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])).save(str(folder / TOKENIZER_FILE))

    assert "is not a word list" in refusal(folder)


def test_word_list_of_absurd_size_is_refused(folder: Path) -> None:
    with (folder / TOKENIZER_FILE).open("r+b") as file:
        file.truncate(MAX_WORD_LIST_BYTES + 1)

    assert f"has {MAX_WORD_LIST_BYTES + 1} bytes" in refusal(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"grammar": {}, "words": {}}', b'{"a": 1, "a": 1}'],
    ids=range(9),
)
def test_folder_with_invalid_lexicon_is_refused(folder: Path, content: bytes) -> None:
    (folder / LEXICON_FILE).write_bytes(content)

    assert str(folder / LEXICON_FILE) in refusal(folder)


def test_absurd_header_does_not_make_a_folder_a_model_folder(folder: Path) -> None:
    (folder / TOKENIZER_FILE).unlink()
    assert is_model_folder(folder)
    with (folder / WEIGHTS_FILE).open("wb") as file:
        file.write((MAX_HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(MAX_HEADER_BYTES + 100)

    assert not is_model_folder(folder)


def test_refusal_of_huge_files_takes_little_memory(folder: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from allaprima.errors import WeightsCorrupt
from allaprima.weights.open import open_model

folder = Path(sys.argv[1])
open_model(folder)

def growth_of_refusal():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        open_model(folder)
    except WeightsCorrupt as exc:
        print(exc.message)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

for name in ("lexicon.json", "tokenizer.json"):
    path = folder / name
    before = path.read_bytes() if path.exists() else None
    with path.open("wb") as file:
        file.truncate(2**30)
    growth_of_refusal()
    path.unlink() if before is None else path.write_bytes(before)
start, end = b'{"__metadata__": {"format": "allaprima-1", "id": "a", "config": "', b'"}}'
with (folder / "model.safetensors").open("wb") as file:
    file.write((len(start) + 50_000_000 + len(end)).to_bytes(8, "little") + start)
    for _ in range(50):
        file.write(b"x" * 1_000_000)
    file.write(end)
growth_of_refusal()
"""
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [Path(line.split(" ")[0]).name for line in lines[::2]] == [LEXICON_FILE, TOKENIZER_FILE, WEIGHTS_FILE]
    assert "has a header of 50000" in lines[4]
    assert all(int(grown) < MAX_GROWTH_KIB for grown in lines[1::2])
