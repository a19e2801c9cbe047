"""Logs: JSON or text, both without prompts and keys."""

import json
from pathlib import Path

import pytest

from tests.acceptance.conftest import Serve, serve

__all__ = ["serve"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_logs_contain_no_prompt_and_no_key(serve: Serve, tmp_path: Path, form: str) -> None:
    server = serve(tmp_path / "data", ALLAPRIMA_SERVER__LOG_FORMAT=form)
    key = server.key
    server.post(key, model="sketch", prompt="a rhinoceros", size="64x64", steps=1)
    server.post("ap_wrong", model="sketch", prompt="a rhinoceros")
    server.post(key, model="sketch", prompt="a rhinoceros", steps=99)
    assert server.stop() == 0
    output = server.output
    assert "rhinoceros" not in output
    assert "ap_wrong" not in output
    # The greeting shows the first key.
    assert output.count(key) == 1
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    if form == "json":
        asked = [line for line in lines if line["logger"] == "allaprima.access" and line["method"] == "POST"]
        assert [line["status"] for line in asked] == [200, 401, 400]
        assert all(line["route"] == "/v1/images/generations" and line["timestamp"] for line in asked)
        assert all(set(line["inference_id"]) > {"-"} for line in asked)
    else:
        assert lines == []
