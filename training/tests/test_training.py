"""The whole training in few steps, from random weights to a model that the engine can load."""

import re
import sys

import pytest

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID
from allaprima.engine.pipeline import Pipeline
from allaprima.weights.open import open_model
from training.__main__ import main
from training.fit import autoencoder, snapshots

STEPS = {"autoencoder": 20, "decoder": 4, "text-encoder": 20, "flow": 15}


@pytest.mark.timeout(600)
def test_training_command_produces_model_and_resumes(art, tmp_path, minutes_of, monkeypatch, capsys):
    monkeypatch.setattr(autoencoder, "CROPS", 2)
    monkeypatch.setattr(autoencoder, "PSNR_SCENES", 2)
    monkeypatch.setattr(autoencoder, "DEVIATION_SCENES", 8)
    # A snapshot generates three images.
    monkeypatch.setattr(snapshots, "EVERY", 300)
    # Extracting sprites would take longer than the rest of the training.
    command = ["training", "--scenes", "30", "--batch", "8", "--composites", "0"]
    command += ["--work", str(tmp_path / "work"), "--art", str(art.folder), "--out", str(tmp_path / "model")]
    command += [word for fit, steps in STEPS.items() for word in (f"--{fit}-minutes", str(minutes_of(steps)))]
    monkeypatch.setattr(sys, "argv", command)

    main()
    log = capsys.readouterr().out

    def numbers(pattern):
        return [float(number) for number in re.findall(pattern, log)]

    first, *_, last = numbers(r"autoencoder.* (?:psnr|done:) ([\d.]+)")
    # The few steps are all in the warm-up, which is enough for the losses to fall. The flow's loss depends on random
    # times, so after few steps the test only checks its bounds.
    assert last > first
    assert len(numbers(r"decoder done: ([\d.]+)")) == 1
    encoder_losses = numbers(r"text encoders .*loss (\S+)")
    assert encoder_losses[-1] < encoder_losses[0]
    losses = numbers(r"flow .*loss (\S+)")
    assert len(losses) > 1
    assert losses[-1] < 1.2 * losses[0]
    probe_losses = numbers(r"flow .*layout (\S+)")
    assert probe_losses[-1] < probe_losses[0]
    assert "snapshot at step" in log
    assert list((tmp_path / "work").glob("sheet-*.png"))
    model = open_model(tmp_path / "model").load()
    assert model.networks.transformer.final_layer.linear.weight.abs().sum() > 0
    images = Pipeline(model, "cpu").generate(
        GenerationRequest(prompt="a fox on a beach", seed=0, model=SKETCH_ID, width=256, height=192)
    )
    assert images[0].shape == (192, 256, 3)

    main()
    again = capsys.readouterr().out
    assert not re.search(r"(autoencoder|decoder|flow|text encoders) +\d", again)
    assert open_model(tmp_path / "model").load().revision == model.revision
