"""The T5 encoder against transformers' T5EncoderModel, with the same random weights."""

import pytest
import torch

from allaprima.flux import T5Config, T5Encoder
from allaprima.flux.t5 import relative_position_bucket
from tests.flux.oracles import fade, randomize, relative_error, t5_oracle

NARROW = T5Config(
    vocab_size=50,
    d_model=24,
    d_kv=10,  # heads x d_kv is not d_model
    d_ff=40,
    num_heads=3,
    num_layers=3,
    length=40,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=20,
)
WIDE = T5Config(vocab_size=90, d_model=64, d_kv=16, d_ff=96, num_heads=4, num_layers=2, length=160)


def random_t5(config: T5Config) -> T5Encoder:
    t5 = T5Encoder(config)
    randomize(t5, seed=3)
    return t5


def random_ids(config: T5Config, length: int) -> torch.Tensor:
    """Two prompts, the second one padded with zeros after its end token."""
    ids = torch.randint(2, config.vocab_size, (2, length), generator=torch.Generator().manual_seed(4))
    ids[:, -1] = 1
    ids[1, length // 3] = 1
    ids[1, length // 3 + 1 :] = 0
    return ids


@pytest.mark.parametrize("share", [1.0, 0.2])
@pytest.mark.parametrize("config", [NARROW, WIDE], ids=["narrow", "wide"])
def test_tokens_equal_transformers_at_two_lengths(config: T5Config, share: float) -> None:
    t5 = random_t5(config)
    ids = random_ids(config, round(config.length * share))
    assert relative_error(t5(ids), t5_oracle(t5, config)(input_ids=ids).last_hidden_state) < 1e-5


def test_epsilon_of_norms_equals_transformers() -> None:
    t5 = random_t5(NARROW)
    fade(t5, ("shared",))
    ids = random_ids(NARROW, 20)
    assert relative_error(t5(ids), t5_oracle(t5, NARROW)(input_ids=ids).last_hidden_state) < 1e-5


@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (8, 20), (16, 33)])
def test_position_buckets_equal_transformers(buckets: int, farthest: int) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention as HFT5Attention

    distance = torch.arange(-300, 301)
    theirs = HFT5Attention._relative_position_bucket(distance, num_buckets=buckets, max_distance=farthest)
    assert relative_position_bucket(distance, buckets, farthest).equal(theirs)


def test_padding_tokens_are_attended_to() -> None:
    t5 = random_t5(NARROW)
    ids = random_ids(NARROW, 30)
    unpadded = ids[1:, :11]
    assert relative_error(t5(ids)[1:, :11], t5(unpadded)) > 0.1


def test_only_first_block_has_position_biases() -> None:
    names = [name for name in T5Encoder(NARROW).state_dict() if "relative" in name]
    assert names == ["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
