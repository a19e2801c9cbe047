"""Shapes of the same kinds that the collection of public files does not list."""

import json
import shutil
from pathlib import Path

import gguf
import torch
from safetensors.torch import load_file, save_file

from allaprima.errors import WeightsCorrupt, WeightsError, WeightsMissing
from tests.flux.oracles import t5_oracle, transformer_oracle
from tests.weights.published import CONFIG, Tensors, write_diffusers, write_gguf
from tests.weights.shapes.case import (
    AUTOENCODER,
    CLIP,
    FILES,
    T5,
    TRANSFORMER,
    Cases,
    Right,
    Same,
    Site,
    Write,
    refused,
)
from tests.weights.shapes.damaged_cases import zeros_tail
from tests.weights.shapes.folder_cases import comfy_tree
from tests.weights.shapes.foreign_cases import pair
from tests.weights.shapes.number_cases import E4M3, FILE, LAYER, NF4, damaged, layer_metadata
from tests.weights.shapes.quantizers import bytes_tensor, in_bnb4, scaled
from tests.weights.shapes.transformer_cases import (
    BUNDLE,
    PREFIX,
    bundle,
    diffusers_tensors,
    diffusers_transformer,
    prefixed,
)

CASES = Cases()
DECLARED = '{"format": "float8_e4m3fn"}'

# Number formats -------------------------------------------------------------------------------------------------------


def write_transformer(site: Site, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    site.replace(TRANSFORMER, tensors, metadata)


def without(tensors: Tensors, *names: str) -> Tensors:
    return {name: one for name, one in tensors.items() if name not in names}


@CASES.case(refused(WeightsCorrupt, FILE, "img_in"))
def scaled_fp8_file_with_one_scale_missing(site: Site) -> None:
    tensors = scaled(".scale_weight")(site.tensors(TRANSFORMER)) | {"scaled_fp8": torch.zeros(0)}
    write_transformer(site, without(tensors, "img_in.scale_weight"))


@CASES.case(Right(E4M3))
def fp8_with_weight_scale_and_no_declaration(site: Site) -> None:
    write_transformer(site, scaled()(site.tensors(TRANSFORMER)))


@CASES.case(Right(E4M3))
def fp8_with_scale_weight_and_no_marker(site: Site) -> None:
    write_transformer(site, scaled(".scale_weight")(site.tensors(TRANSFORMER)))


@CASES.case(Right(E4M3))
def comfy_quant_in_a_bundle(site: Site) -> None:
    bundle(site, scaled(marker=DECLARED))


@CASES.case(Right(E4M3))
def comfy_quant_u8_container_in_a_bundle(site: Site) -> None:
    bundle(site, scaled(container=torch.uint8, marker=DECLARED))


@CASES.case(Right(E4M3))
def comfy_quant_u8_container_in_diffusers_names(site: Site) -> None:
    write_transformer(site, scaled(container=torch.uint8, marker=DECLARED)(diffusers_tensors(site)))


@CASES.case(Right(E4M3))
def comfy_metadata_with_prefixed_names(site: Site) -> None:
    layers = json.loads(layer_metadata("float8_e4m3fn")["_quantization_metadata"])
    layers["layers"] = {PREFIX + name: value for name, value in layers["layers"].items()}
    tensors = prefixed(PREFIX, scaled(container=torch.uint8)(site.tensors(TRANSFORMER)))
    write_transformer(site, tensors, {"_quantization_metadata": json.dumps(layers)})


@CASES.case(Right(E4M3 + 0.005))
def scale_in_bf16(site: Site) -> None:
    tensors = scaled(marker=DECLARED)(site.tensors(TRANSFORMER))
    write_transformer(site, {k: v.bfloat16() if k.endswith("_scale") else v for k, v in tensors.items()})


@CASES.case(Right(E4M3))
def marker_padded_by_zero_bytes_or_spaces(site: Site) -> None:
    write_transformer(site, scaled(marker=DECLARED + "   ")(site.tensors(TRANSFORMER)))


@CASES.case(refused(WeightsCorrupt, FILE, "comfy_quant"))
def marker_in_float(site: Site) -> None:
    tensors = scaled(marker=DECLARED)(site.tensors(TRANSFORMER))
    write_transformer(site, tensors | {"img_in.comfy_quant": bytes_tensor(DECLARED).float()})


@CASES.case(refused(WeightsCorrupt, FILE, "comfy_quant"))
def marker_deeply_nested(site: Site) -> None:
    tensors = scaled(marker=DECLARED)(site.tensors(TRANSFORMER))
    write_transformer(site, tensors | {"img_in.comfy_quant": bytes_tensor("[" * 100_000)})


@CASES.case(refused(WeightsCorrupt, FILE, "comfy_quant"))
def marker_is_empty(site: Site) -> None:
    tensors = scaled(marker=DECLARED)(site.tensors(TRANSFORMER))
    write_transformer(site, tensors | {"img_in.comfy_quant": torch.zeros(0, dtype=torch.uint8)})


@CASES.case(refused(WeightsCorrupt, FILE, "_quantization_metadata"))
def metadata_deeply_nested(site: Site) -> None:
    write_transformer(site, scaled()(site.tensors(TRANSFORMER)), {"_quantization_metadata": "[" * 100_000})


@CASES.case(refused(WeightsCorrupt, FILE, "_quantization_metadata"))
def metadata_layers_is_a_list(site: Site) -> None:
    write_transformer(site, scaled()(site.tensors(TRANSFORMER)), {"_quantization_metadata": '{"layers": ["img_in"]}'})


@CASES.case(refused(WeightsCorrupt, FILE, LAYER.removesuffix(".weight").replace(".", r"\.")))
def nf4_code_of_zeros(site: Site) -> None:
    tensors = damaged(lambda t: t[f"{LAYER}.quant_map"].zero_())(site.tensors(TRANSFORMER))
    write_transformer(site, tensors)


@CASES.case(Right(NF4))
def nf4_t5_prefixed_in_a_bundle_with_a_bf16_transformer(site: Site) -> None:
    path = bundle(site, prefixes={name: prefix for name, prefix in BUNDLE.items() if name != T5})
    save_file(load_file(path) | prefixed(BUNDLE[T5], in_bnb4(nested=True)(site.tensors(T5))), path)


@CASES.case(Right(NF4))
def nf4_shards_with_the_state_in_another_shard(site: Site) -> None:
    """diffusers cuts shards between a matrix and its scales."""
    tensors = in_bnb4(nested=True)(diffusers_tensors(site))
    site.base(TRANSFORMER)
    names = sorted(tensors)
    shards = {f"diffusion_pytorch_model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for shard, own in shards.items():
        save_file({name: tensors[name].contiguous() for name in own}, site.folder / shard)
    index = {"metadata": {}, "weight_map": {name: shard for shard, own in shards.items() for name in own}}
    (site.folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


@CASES.case(Right(NF4))
def nf4_diffusers_folder_of_diffusers(site: Site) -> Path:
    """A diffusers folder whose transformer and T5 are in NF4."""
    write_diffusers(site.folder, site.published)
    shutil.rmtree(site.folder / "transformer")
    (site.folder / "transformer").mkdir()
    path = site.folder / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({k: v.contiguous() for k, v in in_bnb4()(diffusers_tensors(site)).items()}, path)
    config = {"_class_name": "FluxTransformer2DModel", "quantization_config": {"quant_method": "bitsandbytes"}}
    (path.parent / "config.json").write_text(json.dumps(config))
    t5 = site.folder / "text_encoder_2" / "model.safetensors"
    save_file(in_bnb4(nested=True)(site.tensors(T5)), t5)
    return site.folder


# Names and headers ----------------------------------------------------------------------------------------------------


def extra_name(name: str) -> Write:
    def write(site: Site) -> None:
        site.replace(TRANSFORMER, site.tensors(TRANSFORMER) | {name: torch.ones(1)})

    return write


for _case, _key in {
    "tensor_name_with_a_line_break": "extra\nok: loaded",
    "tensor_name_with_an_escape": "extra\x1b[31m",
    "tensor_name_of_100_kb": "x" * 100_000,
    "tensor_name_empty": "",
    "tensor_name_with_unicode": "ünexpected.重み",
}.items():
    CASES.add(_case, refused(WeightsCorrupt, FILE), extra_name(_key))


@CASES.case(Same(load=False))
def file_name_with_a_line_break(site: Site) -> None:
    (site.base() / FILES[TRANSFORMER]).rename(site.folder / "flux\nschnell.safetensors")


@CASES.case(Same(load=False))
def unused_file_name_with_a_line_break(site: Site) -> None:
    save_file(pair("lora_unet_double_blocks_0_img_attn_qkv"), site.base() / "lo\nra.safetensors")


@CASES.case(Same(load=False))
def two_hundred_loras_in_folder(site: Site) -> None:
    path = site.neighbour("lora-0.safetensors", pair("lora_unet_double_blocks_0_img_attn_qkv"))
    for i in range(1, 200):
        shutil.copy(path, path.with_name(f"lora-{i}.safetensors"))


# Shards ---------------------------------------------------------------------------------------------------------------


@CASES.case(refused(WeightsCorrupt, r"diffusion_pytorch_model-00001-of-", r"index\.json", "twice"))
def leftover_shards_of_another_split_beside_the_index(site: Site) -> None:
    """A repository that was saved again in other sizes keeps the old shards."""
    diffusers_transformer(site, site.base(TRANSFORMER), max_shard_size="500KB")
    for path in site.folder.glob("diffusion_pytorch_model-*"):
        shutil.copy(path, site.root / path.name)
    for path in site.folder.glob("diffusion_pytorch_model*"):
        path.unlink()
    diffusers_transformer(site, site.folder, max_shard_size="300KB")
    for path in site.root.glob("diffusion_pytorch_model-*"):
        shutil.move(path, site.folder / path.name)


@CASES.case(refused(WeightsError, "diffusion_pytorch_model-00001-of-", "twice|two|both"))
def two_sets_of_shards_without_index(site: Site) -> None:
    leftover_shards_of_another_split_beside_the_index(site)
    next(site.folder.glob("*.index.json")).unlink()


@CASES.case(Same())
def all_components_of_diffusers_in_one_flat_folder(site: Site) -> None:
    diffusers_transformer(site, site.base(TRANSFORMER, T5), max_shard_size="300KB")
    t5_oracle(site.published.networks.t5, CONFIG.t5).bfloat16().save_pretrained(site.folder, max_shard_size="50KB")


@CASES.case(Right(1e-3))
def old_variant_names_of_shards(site: Site) -> None:
    """diffusers before 0.31 wrote `diffusion_pytorch_model-00001-of-00003.fp16.safetensors`."""
    site.base(TRANSFORMER)
    module = transformer_oracle(site.published.networks.transformer).half()
    module.save_pretrained(site.folder, max_shard_size="300KB")
    [index] = site.folder.glob("*.index.json")
    text = index.read_text()
    for path in site.folder.glob("diffusion_pytorch_model-*"):
        new = path.name.replace(".safetensors", ".fp16.safetensors")
        text = text.replace(path.name, new)
        path.rename(path.with_name(new))
    index.with_name("diffusion_pytorch_model.safetensors.index.fp16.json").write_text(text)
    index.unlink()


@CASES.case(Right(1e-3))
def t5_variant_fp16_shards_in_a_diffusers_folder(site: Site) -> None:
    write_diffusers(site.folder, site.published)
    shutil.rmtree(site.folder / "text_encoder_2")
    t5 = t5_oracle(site.published.networks.t5, CONFIG.t5).half()
    t5.save_pretrained(site.folder / "text_encoder_2", variant="fp16", max_shard_size="50KB")


@CASES.case(refused(WeightsMissing, r"fp16-00002-of-0000\d\.safetensors"))
def variant_index_with_a_missing_shard(site: Site) -> None:
    site.base(TRANSFORMER)
    module = transformer_oracle(site.published.networks.transformer).half()
    module.save_pretrained(site.folder, variant="fp16", max_shard_size="300KB")
    next(site.folder.glob("*fp16-00002-of-*")).unlink()


@CASES.case(refused(WeightsMissing, r"-00002-of-0000\d\.safetensors"))
def one_shard_is_still_a_download(site: Site) -> None:
    diffusers_transformer(site, site.base(TRANSFORMER), max_shard_size="300KB")
    path = next(site.folder.glob("*-00002-of-*"))
    path.rename(path.with_name(f"{path.name}.part"))


@CASES.case(refused(WeightsError, r"-00002-of-0000\d\.safetensors", "(?i)lfs"))
def one_shard_is_an_lfs_pointer(site: Site) -> None:
    diffusers_transformer(site, site.base(TRANSFORMER), max_shard_size="300KB")
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 9962580296\n"
    next(site.folder.glob("*-00002-of-*")).write_text(text)


@CASES.case(refused(WeightsError, r"-00002-of-0000\d\.safetensors", "(?i)lfs"))
def one_shard_without_index_is_an_lfs_pointer(site: Site) -> None:
    one_shard_is_an_lfs_pointer(site)
    next(site.folder.glob("*.index.json")).unlink()


# Trees of other tools -------------------------------------------------------------------------------------------------


@CASES.case(Same())
def swarmui_tree_with_capitals(site: Site) -> Path:
    """SwarmUI: `Models/diffusion_models`, `Models/clip`, `Models/VAE`."""
    models = comfy_tree(site.root / "Models", site, without=(T5, CLIP, AUTOENCODER))
    site.copy(T5, models / "clip" / FILES[T5])
    site.copy(CLIP, models / "clip" / FILES[CLIP])
    site.copy(AUTOENCODER, models / "VAE" / FILES[AUTOENCODER])
    return models


@CASES.case(refused(WeightsMissing, "Stable-diffusion", "VAE"))
def forge_tree(site: Site) -> Path:
    """Forge: `models/Stable-diffusion`, `models/text_encoder`, `models/VAE`."""
    models = site.root / "models"
    site.copy(TRANSFORMER, models / "Stable-diffusion" / FILES[TRANSFORMER])
    site.copy(T5, models / "text_encoder" / FILES[T5])
    site.copy(CLIP, models / "text_encoder" / FILES[CLIP])
    site.copy(AUTOENCODER, models / "VAE" / FILES[AUTOENCODER])
    return models


@CASES.case(Same())
def comfy_tree_with_everything_in_one_of_its_folders(site: Site) -> Path:
    models = comfy_tree(site.root / "models", site, without=tuple(FILES))
    site.base(folder=models / "diffusion_models")
    return models


@CASES.case(Same())
def file_inside_a_hub_cache_as_the_path(site: Site) -> Path:
    from tests.weights.shapes.folder_cases import REPO, snapshot

    return snapshot(site, site.root / "hub" / REPO, "a", diffusers=False) / FILES[TRANSFORMER]


@CASES.case(Same())
def path_with_a_trailing_slash_and_dots(site: Site) -> Path:
    site.base()
    return Path(f"{site.folder}/../model/./")


# Broken downloads -----------------------------------------------------------------------------------------------------


@CASES.case(refused(WeightsCorrupt, FILE, "img_in"))
def u8_container_with_one_layer_undeclared(site: Site) -> None:
    tensors = scaled(container=torch.uint8, marker=DECLARED)(site.tensors(TRANSFORMER))
    write_transformer(site, without(tensors, "img_in.comfy_quant"))


@CASES.case(refused(WeightsCorrupt, r"flux1-schnell\.safetensors", "zero"))
def zeros_in_one_matrix_of_a_scaled_fp8_file(site: Site) -> None:
    tensors = scaled(marker=DECLARED)(site.tensors(TRANSFORMER))
    tensors[LAYER] = torch.zeros(tensors[LAYER].shape).to(torch.float8_e4m3fn)
    write_transformer(site, tensors)


@CASES.case(refused(WeightsCorrupt, r"flux1-schnell-Q8_0\.gguf", "zero"))
def zeros_in_one_matrix_of_a_gguf(site: Site) -> None:
    tensors = site.tensors(TRANSFORMER)
    tensors[LAYER].zero_()
    write_gguf(site.base(TRANSFORMER) / "flux1-schnell-Q8_0.gguf", tensors, gguf.GGMLQuantizationType.Q8_0)


for _share in (0.05, 0.02, 0.01):
    CASES.add(
        f"zeros_in_the_last_{_share * 100:.0f}_percent",
        refused(WeightsCorrupt, FILE, "zero"),
        zeros_tail(TRANSFORMER, _share),
    )


@CASES.case(refused(WeightsCorrupt, FILE, LAYER.replace(".", r"\."), "zero"))
def zeros_in_half_of_the_rows_of_one_matrix(site: Site) -> None:
    """A hole of a download in pieces, smaller than a matrix."""
    tensors = site.tensors(TRANSFORMER)
    tensors[LAYER][128:].zero_()
    write_transformer(site, tensors)


@CASES.case(Right(0.3))
def t5_embedding_padded_with_zero_rows(site: Site) -> None:
    """Vocabularies are padded to a multiple: the last rows may be zero in a sound file."""
    tensors = site.tensors(T5)
    tensors["shared.weight"][-28:].zero_()
    site.replace(T5, tensors)
