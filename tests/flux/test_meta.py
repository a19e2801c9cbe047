"""Networks on the meta device."""

import subprocess
import sys

import torch

from allaprima.flux import SKETCH, T5Encoder, meta_device

LOAD = (
    "import sys\n"
    "from allaprima.engine.safety.checker import SafetyChecker\n"
    "from allaprima.weights.open import open_models\n"
    "SafetyChecker.load()\n"
    "open_models(())[0].load()\n"
    "print(sorted(name for name in sys.modules if name.startswith('torch._dynamo')))"
)


def test_networks_have_shapes_but_no_memory() -> None:
    with meta_device():
        network = T5Encoder(SKETCH.t5)
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert network.shared.weight.shape == (SKETCH.t5.vocab_size, SKETCH.t5.d_model)


def test_initialisers_run_outside_the_context() -> None:
    with meta_device():
        pass
    assert torch.nn.Embedding(8, 8).weight.abs().sum() > 0


def test_loading_a_model_does_not_import_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
