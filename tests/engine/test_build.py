"""Building an engine from settings: its models, and the settings that are refused before loading."""

from pathlib import Path

import pytest

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID, ModelInfo, Precision, TokenCount, find
from allaprima.domain.ports import Engine
from allaprima.domain.progress import StepCallback
from allaprima.engine.build import build_engine
from allaprima.errors import SettingsError, WeightsMissing
from allaprima.settings import EngineSettings

#: Longest wait, in seconds.
LIMIT_S = 120
REQUEST = GenerationRequest(prompt="a red apple", seed=1, model=SKETCH_ID, width=64, height=64, steps=1)


def test_started_engine_loads_built_in_model() -> None:
    engine: Engine = build_engine(EngineSettings(precision="fp32"))
    entry = find(SKETCH_ID)
    assert entry is not None
    assert engine.models == (ModelInfo(SKETCH_ID, "", entry.name, entry.description, own_id=SKETCH_ID),)
    assert not engine.is_ready

    engine.start()
    engine.ready.result(LIMIT_S)

    [info] = engine.models
    assert (info.id, info.precision) == (SKETCH_ID, Precision.FP32)
    assert info.revision
    assert engine.enqueue("job", REQUEST, StepCallback()).result(LIMIT_S).revision == info.revision
    engine.close()


def test_prompt_tokens_are_counted_before_loading() -> None:
    engine = build_engine(EngineSettings())
    limit = engine.tokens(REQUEST).limit

    assert engine.tokens(REQUEST) == TokenCount(3, limit)
    assert engine.tokens(REQUEST.changed(prompt="nice " * (limit + 1) + "apple")).over == 2


def test_missing_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="absent"):
        build_engine(EngineSettings(models=(str(tmp_path / "absent"),)))


def test_precision_unsupported_by_device_is_refused() -> None:
    with pytest.raises(SettingsError, match="fp8"):
        build_engine(EngineSettings(precision="fp8"))
