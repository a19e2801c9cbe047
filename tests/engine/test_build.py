"""Building an engine from settings: its models, and the settings that are refused before loading."""

import io
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID, ModelInfo, Precision, TokenCount, find
from allaprima.domain.ports import Engine
from allaprima.domain.progress import StepCallback
from allaprima.engine.build import build_engine
from allaprima.errors import SettingsError, WeightsMissing, WeightsTooLarge
from allaprima.settings import EngineSettings
from allaprima.weights import memory
from allaprima.weights.quantize import WORKING_BYTES, mapped_bytes
from tests.weights.published import CONFIG, Published, make_networks, write_bfl, write_tokenizers

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


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> EngineSettings:
    """Two small checkpoints of FLUX.1 [schnell] with different weights, named `mine/one` and `other`."""
    folder = tmp_path_factory.mktemp("two")
    write_tokenizers(folder)
    networks = make_networks()
    write_bfl(folder / "one", Published(networks, folder))
    networks.transformer.final_layer.linear.weight.neg_()
    write_bfl(folder / "two", Published(networks, folder))
    return EngineSettings(
        models=(f"mine/one={folder / 'one'}", f"other={folder / 'two'}"),
        tokenizer_dir=folder,
        weights_dir=folder / "cache",
        device="cpu",
    )


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_two_checkpoints_generate_their_own_images_at_once(two_checkpoints: EngineSettings, precision: str) -> None:
    engine = build_engine(two_checkpoints.model_copy(update={"precision": precision}))
    engine.start()
    engine.ready.result(LIMIT_S)
    infos = {info.id: info for info in engine.models}
    assert infos["mine/one"].revision != infos["other"].revision
    request = REQUEST.changed(check_safety=False)

    futures = {
        (model, turn): engine.enqueue(f"{model} {turn}", request.changed(model=model), StepCallback())
        for turn in range(2)
        for model in ("mine/one", "other", SKETCH_ID)
    }
    wait(futures.values(), LIMIT_S)
    images = {key: future.result(LIMIT_S).images[0].data for key, future in futures.items()}
    results = {model: future.result(LIMIT_S) for (model, _), future in futures.items()}
    engine.close()

    for model in ("mine/one", "other", SKETCH_ID):
        assert images[model, 0] == images[model, 1]
        assert (results[model].model, results[model].revision) == (model, infos[model].revision)
        with Image.open(io.BytesIO(images[model, 0])) as image:
            assert f'"model":"{model}"' in image.info["allaprima"]
    shown = [pixels(images[model, 0]) for model in ("mine/one", "other", SKETCH_ID)]
    assert not np.array_equal(shown[0], shown[1])
    assert not np.array_equal(shown[1], shown[2])


def test_checkpoint_under_a_name_has_the_pixels_and_revision_of_the_unnamed_one(
    two_checkpoints: EngineSettings,
) -> None:
    path = two_checkpoints.models[0].partition("=")[2]
    results = []
    for model_id, model in (("mine/one", f"mine/one={path}"), ("flux/schnell", path)):
        engine = build_engine(two_checkpoints.model_copy(update={"models": (model,)}))
        engine.start()
        engine.ready.result(LIMIT_S)
        request = REQUEST.changed(model=model_id, check_safety=False)
        results.append(engine.enqueue("job", request, StepCallback()).result(LIMIT_S))
        engine.close()

    named, unnamed = results
    assert named.revision == unnamed.revision
    assert np.array_equal(pixels(named.images[0].data), pixels(unnamed.images[0].data))


def test_second_checkpoint_that_does_not_fit_next_to_the_first_is_refused_by_name(
    two_checkpoints: EngineSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The system counts the mapped weights of the first checkpoint as free, so the number does not change.
    free = WORKING_BYTES + mapped_bytes(CONFIG, Precision.INT8, "cpu") * 3 // 2
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text(f"MemAvailable: {free // 1024} kB\n")
    monkeypatch.setattr(memory, "_ROOT", tmp_path)
    settings = two_checkpoints.model_copy(update={"precision": "int8"})

    engine = build_engine(settings.model_copy(update={"models": settings.models[:1]}))
    engine.start()
    engine.ready.result(LIMIT_S)
    engine.close()

    engine = build_engine(settings)
    engine.start()
    with pytest.raises(WeightsTooLarge) as caught:
        engine.ready.result(LIMIT_S)
    engine.close()
    assert caught.value.message.startswith(f"{settings.models[1].partition('=')[2]} needs ")
    assert "are free on cpu next to the models before it" in caught.value.message


def test_missing_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="absent"):
        build_engine(EngineSettings(models=(str(tmp_path / "absent"),)))


def test_precision_unsupported_by_device_is_refused() -> None:
    with pytest.raises(SettingsError, match="fp8"):
        build_engine(EngineSettings(precision="fp8"))
