"""A model's configuration is inferred from the shapes of its tensors."""

import torch

from allaprima.flux import SCHNELL
from allaprima.weights.checkpoint.infer_config import infer_config
from allaprima.weights.checkpoint.key_maps import Component
from allaprima.weights.networks import Networks


def test_sizes_of_schnell_are_inferred_from_its_shapes() -> None:
    with torch.device("meta"):
        networks = Networks(SCHNELL)
    shapes = {
        component: {
            name: tuple(tensor.shape) for name, tensor in networks.get_submodule(component).state_dict().items()
        }
        for component in Component
    }
    assert infer_config(shapes) == SCHNELL
