"""A minimal FLUX.1 [schnell], and writers of its published checkpoint formats."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import Precision
from allaprima.engine.pipeline import Pipeline
from allaprima.flux import SCHNELL, AutoencoderConfig, CLIPConfig, ModelConfig, T5Config, TransformerConfig
from allaprima.weights.checkpoint.loader import open_checkpoint
from allaprima.weights.networks import Model, Networks
from allaprima.weights.packed_cache import PackedWeightCache
from allaprima.weights.tokenizers.clip import read_clip_tokenizer
from tests.flux.oracles import autoencoder_oracle, clip_oracle, randomize, t5_oracle, transformer_oracle
from tests.weights.thousand_prompts import PROMPTS
from tests.weights.tokenizers.t5_gguf import T5Fields

#: Larger than the vocabulary of either tokenizer.
VOCABULARY = 540
CONFIG = ModelConfig(
    transformer=TransformerConfig(
        in_channels=16,
        vec_in_dim=64,
        context_in_dim=32,
        hidden_size=64,
        mlp_ratio=4.0,
        num_heads=2,
        depth=2,
        depth_single_blocks=2,
        axes_dim=(4, 14, 14),
    ),
    t5=T5Config(VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_heads=4, num_layers=2, length=256),
    clip=CLIPConfig(VOCABULARY, hidden_size=64, intermediate_size=96, num_heads=1, num_layers=2, length=77),
    autoencoder=AutoencoderConfig(
        ch=32, ch_mult=(1, 2), num_res_blocks=1, z_channels=4, scale_factor=0.3611, shift_factor=0.1159
    ),
)
#: A small model with the vocabularies of FLUX's text encoders.
FULL_VOCABULARIES = replace(
    CONFIG,
    t5=replace(CONFIG.t5, vocab_size=SCHNELL.t5.vocab_size),
    clip=replace(CONFIG.clip, vocab_size=SCHNELL.clip.vocab_size),
)
REQUEST = GenerationRequest(prompt="a red apple on a beach", seed=7, model="flux/schnell", width=64, height=96, steps=2)
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Published:
    """Weights that bfloat16 represents exactly, and the folder of the tokenizers."""

    networks: Networks
    tokenizers: Path

    def tensors(self, component: str) -> Tensors:
        """Return the tensors of one component in bfloat16, by their names in allaprima."""
        network = self.networks.get_submodule(component)
        return {name: tensor.bfloat16() for name, tensor in network.state_dict().items()}


def make_networks(config: ModelConfig = CONFIG) -> Networks:
    networks = Networks(config).requires_grad_(requires_grad=False)
    for seed, network in enumerate(networks.children()):
        randomize(network, seed)
        for tensor in network.state_dict().values():
            tensor.copy_(tensor.bfloat16())
    return networks.eval()


def load_checkpoint(
    path: Path, cache: PackedWeightCache, published: Published, precision: Precision | None = None
) -> Model:
    return open_checkpoint(path, cache, published.tokenizers).load("cpu", precision)


def generate(model: Model, request: GenerationRequest = REQUEST) -> np.ndarray:
    """Return the pixels of the first image of a request."""
    return Pipeline(model, "cpu").generate(request)[0]


# Tokenizers -----------------------------------------------------------------------------------------------------------


def write_tokenizers(folder: Path) -> None:
    """Write a small T5 and a small CLIP tokenizer as in a diffusers folder."""
    t5 = Tokenizer(models.Unigram())
    t5.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    t5.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    t5.train_from_iterator(
        PROMPTS, trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    (folder / "tokenizer_2").mkdir(parents=True)
    t5.save(str(folder / "tokenizer_2" / "tokenizer.json"))
    (folder / "tokenizer").mkdir()
    files = folder / "tokenizer" / "vocab.json", folder / "tokenizer" / "merges.txt"
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    start = {text: i for i, text in enumerate([*characters, *(f"{one}</w>" for one in characters)])}
    pieces = [("r", "e"), ("re", "d</w>"), ("a", "p"), ("ap", "p"), ("l", "e</w>"), ("app", "le</w>"), ("t", "h")]
    vocabulary = start | {a + b: len(start) + i for i, (a, b) in enumerate(pieces)}
    for text in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[text] = len(vocabulary)
    files[0].write_text(json.dumps(vocabulary))
    files[1].write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in pieces))
    assert read_clip_tokenizer(*files).get_vocab_size() == len(vocabulary)


# Checkpoint formats ---------------------------------------------------------------------------------------------------


def write_diffusers(folder: Path, published: Published) -> None:
    """Write a diffusers folder with diffusers and transformers; the transformer is sharded."""
    networks = published.networks
    components = {
        "transformer": transformer_oracle(networks.transformer),
        "vae": autoencoder_oracle(networks.autoencoder),
        "text_encoder": clip_oracle(networks.clip, CONFIG.clip),
        "text_encoder_2": t5_oracle(networks.t5, CONFIG.t5),
    }
    for name, network in components.items():
        network.bfloat16().save_pretrained(folder / name, max_shard_size="100KB" if name == "transformer" else "10GB")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))


def write_bfl(folder: Path, published: Published) -> None:
    """Write transformer and autoencoder in Black Forest Labs' format, text encoders in ComfyUI's."""
    folder.mkdir(exist_ok=True)
    save_file(published.tensors("transformer"), folder / "flux1-schnell.safetensors")
    in_float32 = {name: tensor.float() for name, tensor in published.tensors("autoencoder").items()}
    save_file(in_float32, folder / "ae.safetensors")
    write_text_encoders(folder, published)


def write_text_encoders(folder: Path, published: Published) -> None:
    t5 = published.tensors("t5")
    save_file(t5 | {"encoder.embed_tokens.weight": t5["shared.weight"].clone()}, folder / "t5xxl_fp16.safetensors")
    unused = {"text_projection.weight": torch.ones(4, 4), "logit_scale": torch.ones(())}
    save_file(published.tensors("clip") | unused, folder / "clip_l.safetensors")


def write_bundle(folder: Path, published: Published, change: Callable[[Tensors], Tensors] = dict) -> None:
    """Write all components in one file in ComfyUI's format. change: applied to the tensors of transformer and T5."""
    folder.mkdir(exist_ok=True)
    prefixes = {
        "transformer": "model.diffusion_model.",
        "t5": "text_encoders.t5xxl.transformer.",
        "clip": "text_encoders.clip_l.transformer.",
        "autoencoder": "vae.",
    }
    bundle: Tensors = {f"text_encoders.{name}.logit_scale": torch.ones(()) for name in ("clip_l", "t5xxl")}
    for component, prefix in prefixes.items():
        tensors = published.tensors(component)
        changed = change(tensors) if component in ("transformer", "t5") else tensors
        bundle |= {prefix + name: tensor for name, tensor in changed.items()}
    save_file(bundle, folder / "flux1-schnell-fp8.safetensors")


GGUF_T5 = (
    ("encoder.final_layer_norm", "enc.output_norm"),
    ("encoder.block.", "enc.blk."),
    ("shared", "token_embd"),
    ("layer.0.SelfAttention.relative_attention_bias", "attn_rel_b"),
    ("layer.0.SelfAttention.", "attn_"),
    ("layer.0.layer_norm", "attn_norm"),
    ("layer.1.DenseReluDense.wi_0", "ffn_gate"),
    ("layer.1.DenseReluDense.wi_1", "ffn_up"),
    ("layer.1.DenseReluDense.wo", "ffn_down"),
    ("layer.1.layer_norm", "ffn_norm"),
)


def gguf_t5_name(name: str) -> str:
    for ours, theirs in GGUF_T5:
        name = name.replace(ours, theirs)
    return name


def write_gguf(
    path: Path,
    tensors: Tensors,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.BF16,
    architecture: str | None = "flux",
    fields: T5Fields | None = None,
) -> None:
    """Write matrices in one block type and other tensors in float32, as city96's converter does. Without an
    architecture the header is that of leejet's converter. fields: those of a tokenizer.
    """
    writer = gguf.GGUFWriter(path, architecture or "", use_temp_file=False)
    if architecture is None:
        writer.kv_data[0].clear()
    if fields is not None:
        fields.write(writer)
    for name, tensor in tensors.items():
        values = tensor.float().numpy()
        as_kind = kind if tensor.ndim == 2 and values.shape[-1] % 32 == 0 else gguf.GGMLQuantizationType.F32
        packed = values if as_kind == gguf.GGMLQuantizationType.F32 else gguf.quantize(values, as_kind)
        writer.add_tensor(name, np.ascontiguousarray(packed), raw_dtype=as_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_ggufs(folder: Path, published: Published, fields: T5Fields | None = None) -> None:
    """Write transformer and T5 as GGUF, the other components as safetensors in the same folder.

    fields: those of T5's tokenizer, for its file.
    """
    write_bfl(folder, published)
    (folder / "flux1-schnell.safetensors").unlink()
    (folder / "t5xxl_fp16.safetensors").unlink()
    write_gguf(folder / "flux1-schnell-BF16.gguf", published.tensors("transformer"))
    t5 = {gguf_t5_name(name): tensor for name, tensor in published.tensors("t5").items()}
    write_gguf(folder / "t5-v1_1-xxl-encoder-BF16.gguf", t5, architecture="t5encoder", fields=fields)


def write_leejet(folder: Path, published: Published) -> None:
    """Write the transformer as GGUF without an architecture, with prefixed names."""
    write_bfl(folder, published)
    (folder / "flux1-schnell.safetensors").unlink()
    prefixed = {f"model.diffusion_model.{name}": tensor for name, tensor in published.tensors("transformer").items()}
    write_gguf(folder / "flux1-schnell.gguf", prefixed, architecture=None)


def write_mixture(folder: Path, published: Published) -> None:
    """Write components in different formats into one folder, under neutral file names."""
    folder.mkdir(exist_ok=True)
    write_gguf(folder / "one.gguf", published.tensors("transformer"))
    save_file(published.tensors("t5"), folder / "two.safetensors")
    save_file(published.tensors("clip"), folder / "three.safetensors")
    autoencoder_oracle(published.networks.autoencoder).bfloat16().save_pretrained(folder / "vae")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").rename(folder / "four.sft")


LOSSLESS = {
    "diffusers": write_diffusers,
    "bfl": write_bfl,
    "bundle": write_bundle,
    "gguf": write_ggufs,
    "leejet": write_leejet,
    "mixture": write_mixture,
}
