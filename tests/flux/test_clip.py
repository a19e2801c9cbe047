"""The CLIP text encoder against transformers' CLIPTextModel, with the same random weights."""

import pytest
import torch

from allaprima.flux import CLIPConfig, CLIPTextEncoder
from tests.flux.oracles import clip_oracle, fade, randomize, relative_error

NARROW = CLIPConfig(vocab_size=50, hidden_size=24, intermediate_size=40, num_heads=3, num_layers=3, length=20)
WIDE = CLIPConfig(vocab_size=90, hidden_size=64, intermediate_size=160, num_heads=4, num_layers=2, length=77)


def random_clip(config: CLIPConfig) -> CLIPTextEncoder:
    clip = CLIPTextEncoder(config)
    randomize(clip, seed=5)
    return clip


def random_ids(config: CLIPConfig, length: int) -> torch.Tensor:
    """Two prompts between begin token (the last id but one) and end token (the last id); the second one is padded."""
    end = config.vocab_size - 1
    ids = torch.randint(0, end - 1, (2, length), generator=torch.Generator().manual_seed(6))
    ids[:, 0] = end - 1
    ids[:, -1] = end
    ids[1, length // 2 :] = end
    return ids


@pytest.mark.parametrize("share", [1.0, 0.4])
@pytest.mark.parametrize("config", [NARROW, WIDE], ids=["narrow", "wide"])
def test_pooled_vector_equals_transformers_at_two_lengths(config: CLIPConfig, share: float) -> None:
    clip = random_clip(config)
    ids = random_ids(config, round(config.length * share))
    assert relative_error(clip(ids), clip_oracle(clip, config)(input_ids=ids).pooler_output) < 1e-5


def test_epsilon_of_norms_equals_transformers() -> None:
    clip = random_clip(NARROW)
    fade(clip, ("token_embedding", "position_embedding"))
    ids = random_ids(NARROW, 20)
    assert relative_error(clip(ids), clip_oracle(clip, NARROW)(input_ids=ids).pooler_output) < 1e-5


def test_tokens_after_end_token_are_ignored() -> None:
    clip = random_clip(NARROW)
    ids = random_ids(NARROW, 20)[1:]
    other = ids.clone()
    other[:, 11:] = 7
    assert relative_error(clip(other), clip(ids)) < 1e-6


def test_tokens_before_end_token_change_pooled_vector() -> None:
    clip = random_clip(NARROW)
    ids = random_ids(NARROW, 20)[1:]
    other = ids.clone()
    other[:, 1] = (ids[:, 1] + 1) % 40
    assert relative_error(clip(other), clip(ids)) > 1e-3
