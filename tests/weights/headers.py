"""Writes model folders whose header is invalid, and opens them as the server and the engine do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from allaprima.errors import WeightsCorrupt
from allaprima.weights.builtin_header import WEIGHTS_FILE
from allaprima.weights.open import open_model
from allaprima.weights.roster import open_roster


def read_metadata(folder: Path) -> dict[str, Any]:
    """Return the entries of the header that are no tensors."""
    data = (folder / WEIGHTS_FILE).read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]


def write_metadata(folder: Path, **values: object) -> None:
    """Replace entries of the header, which need not be strings, and keep the tensors."""
    path = folder / WEIGHTS_FILE
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] |= values
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def read_config(folder: Path) -> dict[str, Any]:
    return json.loads(read_metadata(folder)["config"])


def change_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the configuration in the header in place."""
    config = read_config(folder)
    change(config)
    write_metadata(folder, config=json.dumps(config))


def refusal(folder: Path) -> str:
    """Return the message with which a model folder is refused, by the engine and by the roster."""
    with pytest.raises(WeightsCorrupt) as caught:
        open_model(folder)
    with pytest.raises(WeightsCorrupt) as again:
        open_roster([str(folder)], None, folder)
    # Which of several missing fields the tokenizers library names differs from call to call.
    if "is not a readable tokenizer" not in caught.value.message:
        assert again.value.message == caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 600 + len(str(folder))
    return caught.value.message
