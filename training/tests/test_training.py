"""The whole training in two minutes, from nothing to a model that the engine paints with."""

import re
import subprocess
import sys

import pytest

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID
from allaprima.engine.pipeline import Pipeline
from allaprima.weights.open import open_model

MINUTES = {"autoencoder": 0.7, "decoder": 0.2, "reading": 0.5, "flow": 0.9}


@pytest.mark.timeout(600)
def test_one_command_trains_from_nothing_and_goes_on_where_it_stopped(art, tmp_path):
    # Cutouts alone would take longer than all of this.
    command = [sys.executable, "-m", "training", "--scenes", "320", "--collages", "0"]
    command += ["--work", str(tmp_path / "work"), "--art", str(art.folder), "--out", str(tmp_path / "model")]
    command += [word for fit, minutes in MINUTES.items() for word in (f"--{fit}-minutes", str(minutes))]

    log = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def told(pattern):
        return [float(number) for number in re.findall(pattern, log)]

    begun, *_, done = told(r"autoencoder.* (?:psnr|done:) ([\d.]+)")
    # Two minutes beside other work are few steps, most of them at rates that still rise: enough to see that the fits go
    # the right way. The flow's loss is of random times, so after so few steps only that it stays in bounds can be seen.
    assert done > begun
    assert len(told(r"decoder done: ([\d.]+)")) == 1
    read = told(r"reading .*loss (\S+)")
    assert read[-1] < read[0]
    losses = told(r"flow .*loss (\S+)")
    assert len(losses) > 1
    assert losses[-1] < 1.2 * losses[0]
    cells = told(r"flow .*cells (\S+)")
    assert cells[-1] < cells[0]
    assert "snapshot at step" in log
    assert list((tmp_path / "work").glob("sheet-*.png"))
    model = open_model(tmp_path / "model").load()
    assert model.networks.transformer.final_layer.linear.weight.abs().sum() > 0
    pictures = Pipeline(model, "cpu").generate(
        GenerationRequest(prompt="a fox on a beach", seed=0, model=SKETCH_ID, width=256, height=192)
    )
    assert pictures[0].shape == (192, 256, 3)

    again = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert not re.search(r"(autoencoder|decoder|flow|reading) +\d", again)
    assert open_model(tmp_path / "model").load().revision == model.revision
