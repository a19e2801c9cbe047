"""Training from a model folder or with a fitted autoencoder."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from allaprima.domain.models import SKETCH_ID
from allaprima.flux import SKETCH, Autoencoder
from allaprima.weights.builtin import save_model
from allaprima.weights.networks import Networks
from allaprima.weights.tokenizers import word_tokenizer
from training.__main__ import AUTOENCODER, copy_autoencoder, export, save_autoencoder, warm_start
from training.data.captions import vocabulary
from training.fit.flow import SPARSE_UNTIL, FlowNetworks, flow_optimizers
from training.fit.loop import Fit


def test_warm_start_loads_weights_of_folder(tmp_path):
    torch.manual_seed(0)
    shipped, autoencoder = FlowNetworks(), Autoencoder(SKETCH.autoencoder)
    export(tmp_path / "model", shipped, autoencoder)

    warm_start(tmp_path, tmp_path / "model", 8.0)

    flow = FlowNetworks()
    fit = Fit(tmp_path / "flow.ckpt", {"flow": flow}, flow_optimizers(flow), minutes=8.0, seed=0)
    assert (fit.step, fit.progress) == (0, pytest.approx(SPARSE_UNTIL))
    begun = flow.state_dict() | load_file(tmp_path / "autoencoder.safetensors")
    for name, weight in (shipped.state_dict() | autoencoder.state_dict()).items():
        # The layout probe is not shipped.
        if name.startswith("cells."):
            continue
        assert torch.equal(begun[name].float(), weight.bfloat16().float()), name


def test_fitted_autoencoder_is_copied_once(tmp_path):
    torch.manual_seed(0)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        save_autoencoder(Autoencoder(SKETCH.autoencoder), tmp_path / name)

    for name in ("first", "second"):
        copy_autoencoder(tmp_path, tmp_path / name / AUTOENCODER)

    taken, first = (load_file(folder / AUTOENCODER) for folder in (tmp_path, tmp_path / "first"))
    assert taken.keys() == first.keys()
    assert all(torch.equal(taken[name], weight) for name, weight in first.items())


def test_invalid_autoencoder_file_is_rejected(tmp_path):
    save_file({"alone": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")

    for name in ("other", "torn"):
        with pytest.raises(ValueError, match=f"{name}.safetensors is not an autoencoder"):
            copy_autoencoder(tmp_path, tmp_path / f"{name}.safetensors")

    assert not (tmp_path / AUTOENCODER).exists()


def test_warm_start_keeps_existing_flow(tmp_path):
    (tmp_path / "flow.ckpt").write_bytes(b"begun")

    warm_start(tmp_path, tmp_path / "none", 8.0)

    assert [path.name for path in tmp_path.iterdir()] == ["flow.ckpt"]


def test_warm_start_needs_work_folder_without_autoencoder(tmp_path):
    (tmp_path / "autoencoder.safetensors").write_bytes(b"fitted")

    with pytest.raises(ValueError, match="needs an empty work folder"):
        warm_start(tmp_path, tmp_path / "none", 8.0)

    assert [path.name for path in tmp_path.iterdir()] == ["autoencoder.safetensors"]


def test_warm_start_rejects_model_of_other_sizes(tmp_path):
    other = replace(SKETCH, transformer=replace(SKETCH.transformer, depth_single_blocks=1))
    save_model(tmp_path / "other", SKETCH_ID, other, Networks(other), word_tokenizer(vocabulary()))

    with pytest.raises(ValueError, match="other sizes than SKETCH"):
        warm_start(tmp_path, tmp_path / "other", 8.0)

    assert [path.name for path in tmp_path.iterdir()] == ["other"]
