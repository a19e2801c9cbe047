"""Transformers in the naming schemes of public files (page 1.1), and bundles."""

import json
import shutil
from functools import partial
from pathlib import Path

import gguf
import torch
from safetensors.torch import load_file, save_file

from allaprima.errors import WeightsCorrupt, WeightsError, WeightsMissing
from tests.flux.oracles import transformer_oracle
from tests.weights.published import Tensors, gguf_t5_name, write_gguf
from tests.weights.shapes.case import (
    AUTOENCODER,
    CLIP,
    T5,
    TRANSFORMER,
    Cases,
    Outcome,
    Right,
    Same,
    Site,
    Write,
    refused,
)
from tests.weights.shapes.quantizers import Change, in_dtype, scaled

CASES = Cases()
PREFIX = "model.diffusion_model."
BUNDLE = {
    TRANSFORMER: PREFIX,
    T5: "text_encoders.t5xxl.transformer.",
    CLIP: "text_encoders.clip_l.transformer.",
    AUTOENCODER: "vae.",
}


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    """Put a prefix before all names."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def comfy2026(tensors: Tensors) -> Tensors:
    """Rename the norms as ComfyUI does since February 2026."""
    return {name.replace("_norm.scale", "_norm.weight"): tensor for name, tensor in tensors.items()}


def unchanged(tensors: Tensors) -> Tensors:
    """Return the tensors as they are."""
    return tensors


def replaced(change: Change, metadata: dict[str, str] | None = None, *, component: str = TRANSFORMER) -> Write:
    """Return a writer of Black Forest Labs' files, of which one has changed tensors."""

    def write(site: Site) -> None:
        site.replace(component, change(site.tensors(component)), metadata)

    return write


def bundle(site: Site, change: Change = unchanged, prefixes: dict[str, str] = BUNDLE, name: str = "bundle") -> Path:
    """Write components into one file. change: applied to transformer and T5."""
    tensors: Tensors = {}
    for component, prefix in prefixes.items():
        made = site.tensors(component)
        tensors |= prefixed(prefix, change(made) if component in (TRANSFORMER, T5) else made)
    site.folder.mkdir(exist_ok=True)
    path = site.folder / f"{name}.safetensors"
    save_file(tensors, path)
    return path


def diffusers_tensors(site: Site) -> Tensors:
    """Return the transformer in diffusers' names, made by diffusers."""
    return dict(transformer_oracle(site.published.networks.transformer).bfloat16().state_dict())


def diffusers_transformer(site: Site, folder: Path, **options: object) -> None:
    """Write the transformer by diffusers' `save_pretrained`."""
    transformer_oracle(site.published.networks.transformer).bfloat16().save_pretrained(folder, **options)


def add_replaced(name: str, outcome: Outcome, change: Change, metadata: dict[str, str] | None = None) -> None:
    CASES.add(name, outcome, replaced(change, metadata))


# Names ----------------------------------------------------------------------------------------------------------------

add_replaced("bfl_bf16", Same(pixels=True), unchanged)
add_replaced("bfl_f32", Same(), in_dtype(torch.float32))
add_replaced("bfl_f16", Right(1e-3), in_dtype(torch.float16))
add_replaced("prefix_model_diffusion_model", Same(), partial(prefixed, PREFIX))
add_replaced("prefix_diffusion_model", Same(), partial(prefixed, "diffusion_model."))
add_replaced("comfy2026_bare", Same(pixels=True), comfy2026)
add_replaced("comfy2026_model_save", Same(), lambda t: prefixed(PREFIX, comfy2026(t)))
add_replaced("comfy2026_fp8", Right(0.05), lambda t: prefixed(PREFIX, in_dtype(torch.float8_e4m3fn)(comfy2026(t))))
add_replaced(
    "comfy2026_scaled_fp8",
    Right(0.05),
    lambda t: scaled(".scale_weight")(comfy2026(t)) | {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)},
)
add_replaced(
    "comfy_quant_e4m3fn_rmsweight",
    Right(0.05),
    lambda t: scaled(marker='{"format": "float8_e4m3fn"}')(comfy2026(t)),
)
add_replaced(
    "comfy2026_with_both_norm_names",
    refused(WeightsCorrupt, r"flux1-schnell\.safetensors", r"key_norm|query_norm"),
    lambda t: t | {name: one.clone() for name, one in comfy2026(t).items() if name not in t},
)
add_replaced(
    "comfy2026_in_half_of_the_blocks",
    Same(),
    lambda t: {
        name: one for k, v in t.items() for name, one in (comfy2026 if "double" in k else unchanged)({k: v}).items()
    },
)


@CASES.case(Same(pixels=True))
def comfy2026_checkpoint_save(site: Site) -> None:
    bundle(site, comfy2026)


@CASES.case(Same())
def comfy2026_tree_of_shards_merged_with_model_sampling_key(site: Site) -> None:
    tensors = comfy2026(site.tensors(TRANSFORMER))
    site.replace(TRANSFORMER, prefixed(PREFIX, tensors), {"prompt": "{}", "workflow": "{}"})


@CASES.case(Same(pixels=True))
def bundle_bf16(site: Site) -> None:
    bundle(site)


@CASES.case(Right(0.05))
def bundle_fp8_e4m3fn(site: Site) -> None:
    bundle(site, in_dtype(torch.float8_e4m3fn))


@CASES.case(Same())
def bundle_path_of_the_file(site: Site) -> Path:
    return bundle(site)


@CASES.case(Same())
def bundle_first_stage_model(site: Site) -> None:
    bundle(site, prefixes=BUNDLE | {AUTOENCODER: "first_stage_model."})


@CASES.case(Same())
def bundle_forge_names(site: Site) -> None:
    """Forge's bundles: `text_encoders.` without `transformer.` for T5's name, with `logit_scale`."""
    path = bundle(site)
    extra = {f"text_encoders.{name}.logit_scale": torch.ones(()) for name in ("clip_l", "t5xxl")}
    extra["text_encoders.clip_l.transformer.text_projection.weight"] = torch.eye(64).bfloat16()
    save_file(load_file(path) | extra, path)


@CASES.case(Same())
def bundle_unet_vae_only(site: Site) -> None:
    site.base(TRANSFORMER, AUTOENCODER)
    bundle(site, prefixes={TRANSFORMER: PREFIX, AUTOENCODER: "vae."})


@CASES.case(Same())
def bundle_unet_and_text_encoders_without_vae(site: Site) -> None:
    site.base(TRANSFORMER, T5, CLIP)
    bundle(site, prefixes={name: prefix for name, prefix in BUNDLE.items() if name != AUTOENCODER})


# diffusers ------------------------------------------------------------------------------------------------------------


@CASES.case(Same())
def diffusers_single_file(site: Site) -> None:
    site.replace(TRANSFORMER, diffusers_tensors(site))


@CASES.case(Same())
def diffusers_prefix_transformer(site: Site) -> None:
    site.replace(TRANSFORMER, prefixed("transformer.", diffusers_tensors(site)))


@CASES.case(Same())
def diffusers_shards_beside_single_files(site: Site) -> None:
    diffusers_transformer(site, site.base(TRANSFORMER), max_shard_size="300KB")


@CASES.case(Right(1e-3))
def variant_index_only(site: Site) -> None:
    site.base(TRANSFORMER)
    module = transformer_oracle(site.published.networks.transformer).half()
    module.save_pretrained(site.folder, variant="fp16", max_shard_size="300KB")
    assert list(site.folder.glob("*.safetensors.index.fp16.json"))


@CASES.case(Right(1e-3))
def variant_single_file_only(site: Site) -> None:
    site.base(TRANSFORMER)
    transformer_oracle(site.published.networks.transformer).half().save_pretrained(site.folder, variant="fp16")


@CASES.case(Same())
def variant_fp16_beside_the_plain_file(site: Site) -> None:
    site.base(TRANSFORMER)
    diffusers_transformer(site, site.folder)
    transformer_oracle(site.published.networks.transformer).half().save_pretrained(site.folder, variant="fp16")


@CASES.case(Same())
def variant_fp16_shards_beside_plain_shards(site: Site) -> None:
    site.base(TRANSFORMER)
    diffusers_transformer(site, site.folder, max_shard_size="300KB")
    module = transformer_oracle(site.published.networks.transformer).half()
    module.save_pretrained(site.folder, variant="fp16", max_shard_size="200KB")


@CASES.case(Same())
def shards_without_index(site: Site) -> None:
    diffusers_transformer(site, site.base(TRANSFORMER), max_shard_size="300KB")
    next(site.folder.glob("*.index.json")).unlink()


@CASES.case(
    refused(
        WeightsMissing,
        r"diffusion_pytorch_model-00002-of-0000\d\.safetensors",
        r"missing|lacks|not there|does not exist|not exist",
    )
)
def shards_without_index_and_one_missing(site: Site) -> None:
    shards_without_index(site)
    next(site.folder.glob("*-00002-of-*")).unlink()


@CASES.case(refused(WeightsMissing, r"diffusion_pytorch_model-00001-of-0000\d\.safetensors"))
def shards_without_index_and_the_first_missing(site: Site) -> None:
    shards_without_index(site)
    next(site.folder.glob("*-00001-of-*")).unlink()


@CASES.case(refused(WeightsMissing, r"diffusion_pytorch_model-00002-of-0000\d\.safetensors"))
def index_names_a_missing_shard(site: Site) -> None:
    diffusers_transformer(site, site.base(TRANSFORMER), max_shard_size="300KB")
    next(site.folder.glob("*-00002-of-*")).unlink()


@CASES.case(refused(WeightsCorrupt, r"diffusion_pytorch_model", r"flux1-schnell\.safetensors", "twice|two|both"))
def index_beside_a_single_file_of_the_same_component(site: Site) -> None:
    diffusers_transformer(site, site.base(), max_shard_size="300KB")


@CASES.case(Same())
def one_shard_given_as_the_path(site: Site) -> Path:
    """A user who points at the first of the shards means the model."""
    diffusers_transformer(site, site.base(TRANSFORMER), max_shard_size="300KB")
    return next(site.folder.glob("*-00001-of-*"))


@CASES.case(Same())
def index_given_as_the_path(site: Site) -> Path:
    diffusers_transformer(site, site.base(TRANSFORMER), max_shard_size="300KB")
    return next(site.folder.glob("*.index.json"))


@CASES.case(refused(WeightsError, r"index\.json", "00002"))
def index_names_a_path_outside_its_folder(site: Site) -> None:
    diffusers_transformer(site, site.base(TRANSFORMER), max_shard_size="300KB")
    shard = next(site.folder.glob("*-00002-of-*"))
    shutil.move(shard, site.root / shard.name)
    index = next(site.folder.glob("*.index.json"))
    index.write_text(index.read_text().replace(shard.name, f"../{shard.name}"))


# GGUF -----------------------------------------------------------------------------------------------------------------


def gguf_case(
    kind: gguf.GGMLQuantizationType,
    architecture: str | None = "flux",
    prefix: str = "",
    change: Change = unchanged,
) -> Write:
    def write(site: Site) -> None:
        site.base(TRANSFORMER)
        tensors = prefixed(prefix, change(site.tensors(TRANSFORMER)))
        write_gguf(site.folder / f"flux1-schnell-{kind.name}.gguf", tensors, kind, architecture)

    return write


KINDS = gguf.GGMLQuantizationType
for _kind, _outcome in {
    KINDS.BF16: Same(),
    KINDS.F32: Same(),
    KINDS.F16: Right(1e-3),
    KINDS.Q8_0: Right(0.01),
    KINDS.Q5_1: Right(0.06),
    KINDS.Q5_0: Right(0.06),
    KINDS.Q4_1: Right(0.1),
    KINDS.Q4_0: Right(0.12),
}.items():
    CASES.add(f"gguf_city96_{_kind.name}", _outcome, gguf_case(_kind))
for _name, _write in {
    "gguf_prefixed": gguf_case(KINDS.BF16, prefix=PREFIX),
    "gguf_leejet": gguf_case(KINDS.BF16, None, PREFIX),
    "gguf_without_architecture_bare": gguf_case(KINDS.BF16, None),
    "gguf_pig": gguf_case(KINDS.BF16, "pig"),
    "gguf_rmsnorm_weight_names": gguf_case(KINDS.BF16, change=comfy2026),
    "gguf_leejet_rmsnorm_weight_names": gguf_case(KINDS.BF16, None, PREFIX, comfy2026),
}.items():
    CASES.add(_name, Same(), _write)


@CASES.case(Same())
def gguf_diffusers_names(site: Site) -> None:
    site.base(TRANSFORMER)
    write_gguf(site.folder / "flux1.gguf", diffusers_tensors(site))


@CASES.case(Right(0.01))
def gguf_one_dimensional_tensors_quantised(site: Site) -> None:
    site.base(TRANSFORMER)
    writer = gguf.GGUFWriter(site.folder / "flux1-schnell-Q8_0.gguf", "flux", use_temp_file=False)
    for name, tensor in site.tensors(TRANSFORMER).items():
        values = tensor.float().numpy()
        kind = KINDS.Q8_0 if values.shape[-1] % 32 == 0 else KINDS.F32
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@CASES.case(Same())
def gguf_whole_bundle(site: Site) -> None:
    site.folder.mkdir()
    tensors: Tensors = {}
    for component, prefix in (BUNDLE | {AUTOENCODER: "first_stage_model."}).items():
        tensors |= prefixed(prefix, site.tensors(component))
    write_gguf(site.folder / "flux1-schnell.gguf", tensors, architecture=None)


@CASES.case(Same())
def gguf_of_every_component(site: Site) -> Path:
    site.folder.mkdir()
    for component in BUNDLE:
        tensors = site.tensors(component)
        if component == T5:
            tensors = {gguf_t5_name(name): one for name, one in tensors.items()}
        architecture = "t5encoder" if component == T5 else "pig"
        write_gguf(site.folder / f"{component}.gguf", tensors, architecture=architecture)
    return site.folder / "transformer.gguf"


@CASES.case(Same())
def gguf_with_general_fields_of_llama_quantize(site: Site) -> None:
    """`llama-quantize` writes fields of its own into city96's files."""
    site.base(TRANSFORMER)
    writer = gguf.GGUFWriter(site.folder / "flux1-schnell-BF16.gguf", "flux", use_temp_file=False)
    writer.add_quantization_version(2)
    writer.add_file_type(32)
    writer.add_name("FLUX.1 schnell")
    writer.add_array("comfy.gguf.orig_shape.img_in.weight", [64, 16])
    for name, tensor in site.tensors(TRANSFORMER).items():
        kind = KINDS.BF16 if tensor.ndim == 2 else KINDS.F32
        writer.add_tensor(name, gguf.quantize(tensor.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# Finetunes ------------------------------------------------------------------------------------------------------------


for _key in ("model_sampling.sigmas", "ema.decay", "loss.logvar"):
    CASES.add(
        f"finetune_with_stray_key_{_key.partition('.')[0]}",
        refused(WeightsCorrupt, r"flux1-schnell\.safetensors", _key.replace(".", r"\.")),
        replaced(lambda t, key=_key: t | {key: torch.ones(3)}),
    )
add_replaced(
    "pruned_depth_with_a_gap_in_the_numbers",
    refused(WeightsCorrupt, r"flux1-schnell\.safetensors", r"double_blocks\.0"),
    lambda t: {name: one for name, one in t.items() if not name.startswith("double_blocks.0.")},
)


def ema_bundle(t: Tensors) -> Tensors:
    """Return the transformer twice: training's own weights and their average."""
    return prefixed(PREFIX, t) | prefixed("model_ema.diffusion_model.", {k: v * 2 for k, v in t.items()})


add_replaced(
    "two_transformers_in_one_file_ema",
    refused(WeightsCorrupt, r"flux1-schnell\.safetensors", "two|twice|both", "model_ema|ema"),
    ema_bundle,
)
add_replaced(
    "two_transformers_bare_and_prefixed",
    refused(WeightsCorrupt, r"flux1-schnell\.safetensors", "two|twice|both", r"model\.diffusion_model\."),
    lambda t: prefixed(PREFIX, t) | {name: one.clone() for name, one in t.items()},
)


@CASES.case(Same())
def metadata_of_training_tools(site: Site) -> None:
    """modelspec and workflow metadata, of any size, change nothing."""
    metadata = {
        "modelspec.architecture": "flux-1-schnell",
        "modelspec.title": "Flux.1-schnell",
        "format": "pt",
        "workflow": json.dumps({"nodes": ["ü" * 2000] * 20}),
    }
    site.replace(TRANSFORMER, site.tensors(TRANSFORMER), metadata)


@CASES.case(Same())
def gguf_alignment_of_256(site: Site) -> None:
    site.base(TRANSFORMER)
    writer = gguf.GGUFWriter(site.folder / "flux1-schnell-BF16.gguf", "flux", use_temp_file=False)
    writer.add_custom_alignment(256)
    for name, tensor in site.tensors(TRANSFORMER).items():
        kind = KINDS.BF16 if tensor.ndim == 2 else KINDS.F32
        writer.add_tensor(name, gguf.quantize(tensor.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@CASES.case(refused(WeightsError, r"flux1-schnell-F32\.gguf", "endian|byte order"))
def gguf_big_endian(site: Site) -> None:
    site.base(TRANSFORMER)
    path = site.folder / "flux1-schnell-F32.gguf"
    writer = gguf.GGUFWriter(path, "flux", use_temp_file=False, endianess=gguf.GGUFEndian.BIG)
    for name, tensor in site.tensors(TRANSFORMER).items():
        writer.add_tensor(name, tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
