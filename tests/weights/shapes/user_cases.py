"""Files and paths as users have them: renamed, linked, copied, half downloaded, described, or of one component only."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from allaprima.errors import WeightsCorrupt, WeightsError, WeightsMissing
from allaprima.weights.paths import sketch_folder
from tests.flux.oracles import t5_oracle
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
from tests.weights.shapes.folder_cases import TREE, comfy_tree
from tests.weights.shapes.foreign_cases import chroma, dev, pair
from tests.weights.shapes.number_cases import E4M3, E5M2, FILE
from tests.weights.shapes.quantizers import in_dtype, scaled
from tests.weights.shapes.text_encoder_cases import EMBEDDING, both_embeddings
from tests.weights.shapes.transformer_cases import BUNDLE, bundle, diffusers_tensors, diffusers_transformer, replaced
from tests.weights.shapes.unlisted_cases import write_transformer

CASES = Cases()
MARKER = {"scaled_fp8": torch.zeros(0)}

# Scales and copies ----------------------------------------------------------------------------------------------------


def unscaled(*layers: str) -> Callable[[Tensors], Tensors]:
    """Return a function that drops the scales of some layers; of all, if none is named."""

    def change(tensors: Tensors) -> Tensors:
        names = [f"{layer}.scale_weight" for layer in layers]
        return {
            name: one
            for name, one in tensors.items()
            if (name not in names if names else not name.endswith(".scale_weight"))
        }

    return change


CASES.add(
    "scaled_fp8_marker_and_no_scale_at_all",
    refused(WeightsCorrupt, FILE, "without a scale", "scaled_fp8"),
    replaced(lambda t: unscaled()(scaled(".scale_weight")(t)) | MARKER),
)
CASES.add(
    "scaled_fp8_without_marker_and_one_scale_missing",
    refused(WeightsCorrupt, FILE, r"double_blocks\.1\.img_mlp\.0\.weight", "without a scale"),
    replaced(lambda t: unscaled("double_blocks.1.img_mlp.0")(scaled(".scale_weight")(t))),
)
CASES.add(
    "scaled_fp8_with_one_layer_in_bf16",
    Right(E4M3),
    replaced(lambda t: unscaled("img_in")(scaled(".scale_weight")(t)) | {"img_in.weight": t["img_in.weight"]} | MARKER),
)
CASES.add(
    "scaled_fp8_with_vectors_in_fp8",
    Right(E4M3),
    replaced(
        lambda t: {
            name: one.to(torch.float8_e4m3fn) if one.ndim == 1 else one
            for name, one in scaled(".scale_weight")(t).items()
        },
    ),
)
CASES.add(
    "t5_scaled_fp8_with_embeddings_in_fp8",
    Right(E4M3),
    replaced(
        lambda t: {
            name: one.to(torch.float8_e4m3fn) if one.dtype == torch.bfloat16 and one.ndim == 2 else one
            for name, one in scaled(".scale_weight")(both_embeddings(t)).items()
        },
        component=T5,
    ),
)
CASES.add(
    "t5_scaled_fp8_with_one_scale_missing",
    refused(WeightsCorrupt, "t5xxl_fp16", r"encoder\.block\.1\.layer\.0\.SelfAttention\.q\.weight", "without a scale"),
    replaced(lambda t: unscaled("encoder.block.1.layer.0.SelfAttention.q")(scaled(".scale_weight")(t)), component=T5),
)
CASES.add(
    "t5_embeddings_in_two_formats",
    Same(),
    replaced(
        lambda t: (
            t | {"shared.weight": t["shared.weight"].half(), EMBEDDING: t["shared.weight"].to(torch.float8_e4m3fn)}
        ),
        component=T5,
    ),
)
CASES.add(
    "t5_embeddings_in_two_formats_differ",
    refused(WeightsCorrupt, "t5xxl_fp16", r"shared\.weight", r"embed_tokens\.weight"),
    replaced(lambda t: t | {EMBEDDING: (t["shared.weight"] * 2).to(torch.float8_e4m3fn)}, component=T5),
)
CASES.add(
    "t5_embeddings_differ_in_one_value",
    refused(WeightsCorrupt, "t5xxl_fp16", r"shared\.weight", r"embed_tokens\.weight"),
    replaced(
        lambda t: t | {EMBEDDING: torch.cat((t["shared.weight"][:-1], t["shared.weight"][-1:] + 1))}, component=T5
    ),
)
CASES.add(
    "t5_embeddings_of_two_vocabularies",
    refused(WeightsCorrupt, "t5xxl_fp16", r"embed_tokens\.weight", "shape"),
    replaced(lambda t: t | {EMBEDDING: t["shared.weight"][:-8].clone()}, component=T5),
)


@CASES.case(Right(E4M3))
def bundle_of_a_scaled_t5_and_a_plain_fp8_transformer(site: Site) -> None:
    path = bundle(site, in_dtype(torch.float8_e4m3fn), {one: prefix for one, prefix in BUNDLE.items() if one != T5})
    t5 = scaled(".scale_weight")(site.tensors(T5)) | MARKER
    save_file({f"{BUNDLE[T5]}{name}": one for name, one in t5.items()}, path.with_name("t5.safetensors"))


# Names of files -------------------------------------------------------------------------------------------------------


def renamed(component: str, name: str) -> Write:
    """Return a writer of Black Forest Labs' files, one of which has another name."""

    def write(site: Site) -> None:
        path = site.base() / FILES[component]
        path.rename(path.with_name(name))

    return write


def renamed_path(component: str, name: str) -> Write:
    def write(site: Site) -> Path:
        renamed(component, name)(site)
        return site.folder / name

    return write


for _case, _file in {
    "renamed_with_quotes": "flux 'schnell' \"final\".safetensors",
    "renamed_with_unicode": "флюкс-ü-快速-🎨.safetensors",
    "renamed_with_percent_and_braces": "100% {flux} %s %(x)s {0}.safetensors",
    "renamed_with_leading_dash": "--model.safetensors",
    "renamed_as_a_download_again": "flux1-schnell (1).safetensors",
    "renamed_as_a_copy": "Copy of flux1-schnell.safetensors",
    "renamed_with_two_suffixes": "flux1-schnell.safetensors.safetensors",
    "renamed_with_a_long_name": "f" * 240 + ".safetensors",
    "renamed_as_a_wrong_component": "lora_t5_vae_clip.safetensors",
}.items():
    CASES.add(_case, Same(load=False), renamed(TRANSFORMER, _file))
    CASES.add(f"{_case}_as_the_path", Same(load=False), renamed_path(TRANSFORMER, _file))

for _case, _file in {
    "without_suffix": "flux1-schnell",
    "with_suffix_txt": "flux1-schnell.safetensors.txt",
    "with_suffix_json": "flux1-schnell.json",
    "with_suffix_bin": "flux1-schnell.bin",
    "with_suffix_ckpt": "flux1-schnell.ckpt",
}.items():
    # The content of a file that is named decides; in a folder only files with the suffixes of weights are opened.
    CASES.add(f"{_case}_as_the_path", Same(load=False), renamed_path(TRANSFORMER, _file))

for _case, _file in {"with_suffix_bin": "flux1-schnell.bin", "with_suffix_ckpt": "flux1-schnell.ckpt"}.items():
    CASES.add(f"{_case}_in_the_folder", refused(WeightsError, _file.replace(".", r"\.")), renamed(TRANSFORMER, _file))

CASES.add(
    "without_suffix_in_the_folder", refused(WeightsMissing, "no transformer", r"flux1-schnell\b"),
    renamed(TRANSFORMER, "flux1-schnell"),
)  # fmt: skip


@CASES.case(Same(load=False))
def folder_with_spaces_quotes_and_unicode(site: Site) -> Path:
    return site.base(folder=site.root / "my 'models' \"für\" 絵; $(x) `y` & | ~")


@CASES.case(Same(load=False))
def folder_named_tilde(site: Site) -> Path:
    return site.base(folder=site.root / "~")


@CASES.case(refused(WeightsMissing, r"flux1-schnell\.safetensors/"))
def file_with_a_trailing_slash(site: Site) -> Path:
    """`pathlib` drops the slash, so the path is made of two parts."""
    return site.base() / FILES[TRANSFORMER] / "x"


@CASES.case(Same(load=False))
def folder_with_the_suffix_of_weights_and_a_file_of_that_name(site: Site) -> Path:
    """Some download tools make a folder of the file's name."""
    folder = site.base(folder=site.root / FILES[TRANSFORMER])
    assert (folder / FILES[TRANSFORMER]).is_file()
    return folder


# Links ----------------------------------------------------------------------------------------------------------------


@CASES.case(Same({"flux1-schnell.safetensors": "another name of .*copy"}))
def hard_link_in_folder(site: Site) -> None:
    """A file under two names is no second model."""
    site.base()
    os.link(site.folder / FILES[TRANSFORMER], site.folder / "copy.safetensors")


@CASES.case(Same({"flux.safetensors": "another name of .*flux1-schnell"}))
def hard_link_in_another_folder_of_the_tree(site: Site) -> Path:
    models = comfy_tree(site.root / "models", site)
    (models / "unet").mkdir()
    os.link(models / "diffusion_models" / FILES[TRANSFORMER], models / "unet" / "flux.safetensors")
    return models


@CASES.case(Same(load=False))
def hard_link_as_the_path(site: Site) -> Path:
    site.base()
    os.link(site.folder / FILES[TRANSFORMER], site.folder / "copy.safetensors")
    return site.folder / "copy.safetensors"


@CASES.case(refused(WeightsMissing, r"flux1-schnell\.safetensors"))
def broken_link_as_the_path(site: Site) -> Path:
    path = site.base(TRANSFORMER) / FILES[TRANSFORMER]
    path.symlink_to(site.root / "gone.safetensors")
    return path


@CASES.case(refused(WeightsMissing, r"flux1-schnell\.safetensors", "link"))
def broken_link_in_place_of_the_transformer(site: Site) -> None:
    broken_link_as_the_path(site)


@CASES.case(refused(WeightsError, r"model-00002-of-0000\d\.safetensors"))
def broken_link_in_place_of_a_shard(site: Site) -> None:
    """A hub cache whose blob was removed."""
    t5_oracle(site.published.networks.t5, CONFIG.t5).bfloat16().save_pretrained(site.base(T5), max_shard_size="50KB")
    path = next(site.folder.glob("model-00002-of-*"))
    path.unlink()
    path.symlink_to(site.root / "gone")


@CASES.case(refused(WeightsMissing, "model"))
def folder_that_is_a_link_to_itself(site: Site) -> Path:
    site.folder.symlink_to(site.folder)
    return site.folder


@CASES.case(Same(load=False))
def link_to_its_own_parent_in_folder(site: Site) -> Path:
    """`models/diffusion_models/models -> ..`: a tree without an end."""
    models = comfy_tree(site.root / "models", site)
    (models / "diffusion_models" / "again").symlink_to(models)
    return models


# Empty and huge files -------------------------------------------------------------------------------------------------


@CASES.case(refused(WeightsCorrupt, r"clip_l\.safetensors", "empty"))
def zero_byte_companion(site: Site) -> Path:
    (site.base() / FILES[CLIP]).write_bytes(b"")
    return site.folder / FILES[TRANSFORMER]


@CASES.case(Same({"ae (1).safetensors": "empty"}, load=False))
def zero_byte_second_copy(site: Site) -> None:
    (site.base() / "ae (1).safetensors").write_bytes(b"")


def write_huge_header(path: Path, size: int) -> None:
    """Write a file with a header of `size` bytes, most of it in a text of the metadata."""
    start, end = b'{"__metadata__":{"note":"', b'"}}'
    with path.open("wb") as file:
        file.write(size.to_bytes(8, "little") + start)
        for _ in range(size // 2**20):
            file.write(b"x" * 2**20)
        file.truncate(8 + size - len(end))
        file.seek(0, os.SEEK_END)
        file.write(end)


@CASES.case(Same({"huge.safetensors": "header"}, load=False))
def huge_header_in_folder(site: Site) -> None:
    write_huge_header(site.base() / "huge.safetensors", 64 * 2**20 + 100)


@CASES.case(refused(WeightsCorrupt, r"huge\.safetensors", "header of 67108964 bytes"))
def huge_header_as_the_path(site: Site) -> Path:
    huge_header_in_folder(site)
    return site.folder / "huge.safetensors"


# Shards ---------------------------------------------------------------------------------------------------------------


def shard(site: Site, *names: str) -> list[Path]:
    """Write the transformer in shards of diffusers with an index; return the shards."""
    diffusers_transformer(site, site.base(TRANSFORMER, *names), max_shard_size="300KB")
    return sorted(site.folder.glob("diffusion_pytorch_model-*.safetensors"))


@CASES.case(refused(WeightsCorrupt, r"diffusion_pytorch_model", "more than one shard"))
def the_same_shard_twice_under_two_numbers(site: Site) -> None:
    shards = shard(site)
    shutil.copy(shards[0], shards[1])


@CASES.case(refused(WeightsCorrupt, "twice", r"-00001-of-00002 \(1\)\.safetensors", r"index\.json", "keep only one"))
def one_shard_again_as_a_download_again(site: Site) -> None:
    shards = shard(site)
    shutil.copy(shards[0], site.folder / "diffusion_pytorch_model-00001-of-00002 (1).safetensors")


@CASES.case(Right(E5M2))
def shards_in_different_formats(site: Site) -> None:
    """The parts of one matrix are in shards of different formats."""
    tensors = diffusers_tensors(site)
    site.base(TRANSFORMER)
    names = sorted(tensors)
    dtypes = (torch.float32, torch.float8_e4m3fn, torch.float8_e5m2)
    thirds = [names[0::3], names[1::3], names[2::3]]
    for number, (own, dtype) in enumerate(zip(thirds, dtypes, strict=True), 1):
        path = site.folder / f"diffusion_pytorch_model-0000{number}-of-00003.safetensors"
        save_file({name: tensors[name].to(dtype).contiguous() for name in own}, path)


def one_part_in(dtype: torch.dtype) -> Callable[[Tensors], Tensors]:
    name = "transformer_blocks.0.attn.to_k.weight"
    return lambda t: t | {name: (t[name].float() * 100).to(dtype)}


for _dtype in (torch.int8, torch.uint8, torch.int64, torch.bool):
    # torch would join integers and bfloat16 to bfloat16.
    CASES.add(
        f"one_part_of_a_matrix_in_{str(_dtype).removeprefix('torch.')}",
        refused(WeightsCorrupt, FILE, r"transformer_blocks\.0\.attn\.to_k\.weight", "I8|U8|I64|BOOL"),
        lambda site, dtype=_dtype: write_transformer(site, one_part_in(dtype)(diffusers_tensors(site))),
    )


@CASES.case(refused(WeightsCorrupt, r"more\.safetensors|flux1-schnell\.safetensors"))
def transformer_in_two_files_without_numbers(site: Site) -> None:
    tensors = list(site.tensors(TRANSFORMER).items())
    site.base(TRANSFORMER)
    save_file(dict(tensors[: len(tensors) // 2]), site.folder / "flux1-schnell.safetensors")
    save_file(dict(tensors[len(tensors) // 2 :]), site.folder / "more.safetensors")


@CASES.case(refused(WeightsMissing, "index", r"00003-of-00003\.safetensors"))
def index_as_the_path_names_a_missing_shard(site: Site) -> Path:
    shard(site)
    path = next(site.folder.glob("*.index.json"))
    index = json.loads(path.read_text())
    index["weight_map"]["x_embedder.weight"] = "diffusion_pytorch_model-00003-of-00003.safetensors"
    path.write_text(json.dumps(index))
    return path


@CASES.case(refused(WeightsCorrupt, r"index\.json"))
def index_that_is_no_json_as_the_path(site: Site) -> Path:
    shard(site)
    path = next(site.folder.glob("*.index.json"))
    path.write_text("{")
    return path


@CASES.case(refused(WeightsError, r"index\.json|bin"))
def index_of_pickles_as_the_path(site: Site) -> Path:
    path = site.base(TRANSFORMER) / "diffusion_pytorch_model.bin.index.json"
    path.write_text(json.dumps({"weight_map": {"x_embedder.weight": "diffusion_pytorch_model-00001-of-00002.bin"}}))
    return path


for _case, _shard in {
    "with_a_nul": "x\0y",
    "with_a_lone_surrogate": "\ud800.safetensors",
    "of_300_characters": "x" * 300,
    "that_is_empty": "",
    "that_is_the_parent": "..",
    "with_a_line_break": "a\nb.safetensors",
}.items():

    def _index(site: Site, name: str = _shard) -> Path:
        shard(site)
        path = next(site.folder.glob("*.index.json"))
        path.write_text(json.dumps({"weight_map": {"x_embedder.weight": name}}))
        return path

    CASES.add(f"index_as_the_path_names_a_file_{_case}", refused(WeightsCorrupt, r"index\.json", "readable"), _index)
    CASES.add(
        f"index_names_a_file_{_case}",
        Same({"diffusion_pytorch_model.safetensors.index.json": "readable index"}),
        lambda site, write=_index: write(site).parent,
    )


@CASES.case(refused(WeightsCorrupt, r"model\.safetensors", "built-in format", "give the model's folder"))
def weights_of_the_built_in_model_as_the_path(site: Site) -> Path:
    return sketch_folder() / "model.safetensors"


@CASES.case(Same({"model.safetensors": "built-in format"}, load=False))
def weights_of_the_built_in_model_in_folder(site: Site) -> None:
    shutil.copy(sketch_folder() / "model.safetensors", site.base() / "model.safetensors")


for _ending, _archive in {"zip": b"PK\x03\x04", "gz": b"\x1f\x8b\x08", "7z": b"7z\xbc\xaf\x27\x1c"}.items():

    def _packed(site: Site, ending: str = _ending, content: bytes = _archive) -> Path:
        path = site.base(TRANSFORMER) / f"flux1-schnell.safetensors.{ending}"
        path.write_bytes(content + bytes(range(200)))
        return path

    _name = rf"flux1-schnell\.safetensors\.{_ending}"
    CASES.add(f"archive_{_ending}_as_the_path", refused(WeightsCorrupt, _name, "archive", "unpack it"), _packed)
    CASES.add(
        f"archive_{_ending}_in_place_of_the_transformer",
        refused(WeightsMissing, "no transformer", _name, "archive; unpack it"),
        lambda site, write=_packed: write(site).parent,
    )


def too_large(dtype: torch.dtype, factor: float) -> Callable[[Tensors], Tensors]:
    name = "double_blocks.1.img_mlp.0.weight"
    return lambda t: t | {name: t[name].sign().to(dtype) * factor}


CASES.add(
    "float64_beyond_bfloat16",
    refused(WeightsCorrupt, FILE, r"double_blocks\.1\.img_mlp\.0\.weight", "not finite"),
    replaced(too_large(torch.float64, 1e300)),
)
CASES.add(
    "float32_beyond_bfloat16",
    refused(WeightsCorrupt, FILE, r"double_blocks\.1\.img_mlp\.0\.weight", "not finite"),
    replaced(too_large(torch.float32, 3.4e38)),
)


# Descriptions as the path ---------------------------------------------------------------------------------------------


def description(name: str) -> Write:
    def write(site: Site) -> Path:
        write_diffusers(site.folder, site.published)
        shutil.copytree(site.published.tokenizers, site.folder, dirs_exist_ok=True)
        path = site.folder / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_text("{}")
        return path

    return write


for _file in (
    "transformer/config.json",
    "text_encoder_2/config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer_2/tokenizer.json",
    "tokenizer_2/spiece.model",
    "scheduler/scheduler_config.json",
    "README.md",
):
    CASES.add(
        f"{_file.replace('/', '_').replace('.', '_')}_as_the_path",
        refused(WeightsMissing, _file.replace(".", r"\."), r"holds no weights; give the folder \S+/model,"),
        description(_file),
    )


@CASES.case(refused(WeightsMissing, r"v1-inference\.yaml", "folder"))
def config_of_another_tool_as_the_path(site: Site) -> Path:
    path = site.base() / "v1-inference.yaml"
    path.write_text("model:\n  target: x\n")
    return path


# Trees ----------------------------------------------------------------------------------------------------------------


def tree_in(change: Callable[[str], str]) -> Write:
    """Return a writer of ComfyUI's tree whose folders have other capitals."""

    def write(site: Site) -> Path:
        models = site.root / change("models")
        for component, (name, _) in TREE.items():
            site.copy(component, models / change(name) / FILES[component])
        return models

    return write


CASES.add("tree_in_capitals", Same(load=False), tree_in(str.upper))
CASES.add("tree_with_initial_capitals", Same(load=False), tree_in(str.capitalize))


@CASES.case(Same(load=False))
def root_of_a_tree_with_capitals(site: Site) -> Path:
    return tree_in(str.capitalize)(site).parent  # type: ignore[union-attr]


@CASES.case(Same(load=False))
def file_in_a_tree_with_capitals(site: Site) -> Path:
    models = tree_in(str.capitalize)(site)
    assert models is not None
    return models / "Diffusion_models" / FILES[TRANSFORMER]


@CASES.case(Same(load=False))
def tree_with_both_spellings_of_a_folder(site: Site) -> Path:
    models = comfy_tree(site.root / "models", site, without=(AUTOENCODER, CLIP))
    (models / "vae").mkdir()
    site.copy(AUTOENCODER, models / "VAE" / FILES[AUTOENCODER])
    site.copy(CLIP, models / "Clip" / FILES[CLIP])
    return models


@CASES.case(refused(WeightsCorrupt, "twice", r"VAE/ae\.safetensors", r"vae/ae\.safetensors"))
def tree_with_a_component_in_both_spellings_of_a_folder(site: Site) -> Path:
    models = comfy_tree(site.root / "models", site)
    site.copy(AUTOENCODER, models / "VAE" / FILES[AUTOENCODER])
    return models


@CASES.case(refused(WeightsMissing, "Models", "models", "two"))
def installation_with_two_trees(site: Site) -> Path:
    for name in ("models", "Models"):
        comfy_tree(site.root / "ui" / name, site)
    return site.root / "ui"


@CASES.case(Same({"Lora": "LoRA", "Embeddings": ""}, load=False))
def tree_with_capitals_and_folders_that_are_not_searched(site: Site) -> Path:
    models = comfy_tree(site.root / "Models", site)
    for name in ("Lora", "Embeddings"):
        (models / name).mkdir()
        save_file(pair("lora_unet_double_blocks_0_img_attn_qkv"), models / name / "style.safetensors")
    return models


# One component, or none -----------------------------------------------------------------------------------------------

for _component in (T5, CLIP, AUTOENCODER):
    CASES.add(
        f"folder_of_{_component}_only",
        refused(WeightsMissing, "no transformer", r"flux1-schnell\.safetensors", "allaprima pull"),
        lambda site, component=_component: site.base(*(one for one in FILES if one != component)),
    )


@CASES.case(refused(WeightsError, r"style\.safetensors", "LoRA"))
def folder_of_a_lora_only(site: Site) -> None:
    site.folder.mkdir()
    save_file(pair("lora_unet_double_blocks_0_img_attn_qkv"), site.folder / "style.safetensors")


@CASES.case(refused(WeightsError, r"style\.safetensors", "LoRA"))
def lora_in_place_of_the_transformer(site: Site) -> None:
    save_file(pair("lora_unet_double_blocks_0_img_attn_qkv"), site.base(TRANSFORMER) / "style.safetensors")


@CASES.case(refused(WeightsError, r"a\.safetensors", r"b\.safetensors", "Chroma"))
def two_relatives_a_lora_and_no_schnell(site: Site) -> None:
    site.base(TRANSFORMER)
    save_file(dev(site), site.folder / "a.safetensors")
    save_file(chroma(site), site.folder / "b.safetensors")
    save_file(pair("lora_unet_double_blocks_0_img_attn_qkv"), site.folder / "c.safetensors")


@CASES.case(refused(WeightsError, r"dev-0\.safetensors", "and 6 more"))
def ten_relatives_and_no_schnell(site: Site) -> None:
    site.base(TRANSFORMER)
    for number in range(10):
        save_file(dev(site), site.folder / f"dev-{number}.safetensors")


@CASES.case(refused(WeightsError, r"t5-a\.safetensors", r"t5-b\.safetensors", "empty", "(?i)lfs"))
def two_broken_text_encoders(site: Site) -> None:
    site.base(T5)
    (site.folder / "t5-a.safetensors").write_bytes(b"")
    (site.folder / "t5-b.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64)


@CASES.case(refused(WeightsError, r"flux1-schnell-Q8_0\.gguf", "cut|download"))
def broken_gguf_whose_good_copy_is_unfinished(site: Site) -> None:
    path = site.base(TRANSFORMER) / "flux1-schnell-Q8_0.gguf"
    write_gguf(path, site.tensors(TRANSFORMER))
    os.truncate(path, path.stat().st_size // 2)
    site.copy(TRANSFORMER, site.folder / "flux1-schnell.safetensors.part")
