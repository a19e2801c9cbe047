"""Folders and paths (page 1.3; R4 to R6): which files around a path complete the model."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from allaprima.errors import WeightsCorrupt, WeightsError, WeightsMissing
from tests.flux.oracles import transformer_oracle
from tests.weights.published import write_diffusers, write_gguf
from tests.weights.shapes.case import AUTOENCODER, CLIP, FILES, T5, TRANSFORMER, Cases, Same, Site, refused
from tests.weights.shapes.foreign_cases import chroma, dev, pair, sdxl
from tests.weights.shapes.text_encoder_cases import umt5, vision
from tests.weights.shapes.transformer_cases import bundle, diffusers_transformer

CASES = Cases()
#: ComfyUI's folders of its `models`, with the former names.
TREE = {
    TRANSFORMER: ("diffusion_models", "unet"),
    T5: ("text_encoders", "clip"),
    CLIP: ("text_encoders", "clip"),
    AUTOENCODER: ("vae", "vae"),
}


def comfy_tree(models: Path, site: Site, *, old: bool = False, without: tuple[str, ...] = ()) -> Path:
    """Write Black Forest Labs' files into ComfyUI's `models` folder, in which other folders are empty."""
    for name in ("checkpoints", "loras", "controlnet", "clip_vision", "upscale_models", "embeddings", "style_models"):
        (models / name).mkdir(parents=True, exist_ok=True)
        (models / name / f"put_{name}_here").touch()
    for component, names in TREE.items():
        if component not in without:
            site.copy(component, models / names[old] / FILES[component])
    return models


# ComfyUI --------------------------------------------------------------------------------------------------------------


@CASES.case(Same())
def comfy_models_tree(site: Site) -> Path:
    return comfy_tree(site.root / "ComfyUI" / "models", site)


@CASES.case(Same())
def comfy_root(site: Site) -> Path:
    (site.root / "ComfyUI" / "custom_nodes").mkdir(parents=True)
    (site.root / "ComfyUI" / "main.py").touch()
    comfy_tree(site.root / "ComfyUI" / "models", site)
    return site.root / "ComfyUI"


@CASES.case(Same())
def comfy_old_folder_names(site: Site) -> Path:
    return comfy_tree(site.root / "models", site, old=True)


@CASES.case(refused(WeightsMissing, "T5", "CLIP", "autoencoder", "diffusion_models"))
def comfy_folder_of_the_transformer_as_the_path(site: Site) -> Path:
    return comfy_tree(site.root / "models", site) / "diffusion_models"


@CASES.case(Same())
def comfy_file_of_the_transformer_as_the_path(site: Site) -> Path:
    return comfy_tree(site.root / "models", site) / "diffusion_models" / FILES[TRANSFORMER]


@CASES.case(Same())
def comfy_old_file_of_the_transformer_as_the_path(site: Site) -> Path:
    return comfy_tree(site.root / "models", site, old=True) / "unet" / FILES[TRANSFORMER]


@CASES.case(Same())
def comfy_nested_subfolders_with_spaces_and_unicode(site: Site) -> Path:
    models = comfy_tree(site.root / "Künstliche Bilder 图" / "models", site, without=(TRANSFORMER, T5))
    site.copy(TRANSFORMER, models / "diffusion_models" / "FLUX 1" / "schnell 快" / "flux 1 schnell.safetensors")
    site.copy(T5, models / "text_encoders" / "t5 (xxl)" / "t5.safetensors")
    return models


@CASES.case(Same())
def comfy_nested_file_as_the_path(site: Site) -> Path:
    comfy_nested_subfolders_with_spaces_and_unicode(site)
    return next(site.root.rglob("flux 1 schnell.safetensors"))


@CASES.case(Same())
def comfy_tree_of_links(site: Site) -> Path:
    """`models` on another disk: a link to the folder, and links to the files in a store."""
    store = site.base(folder=site.root / "store")
    models = site.root / "disk" / "models"
    for component, (name, _) in TREE.items():
        (models / name).mkdir(parents=True, exist_ok=True)
        (models / name / FILES[component]).symlink_to(store / FILES[component])
    (site.root / "ComfyUI").mkdir()
    (site.root / "ComfyUI" / "models").symlink_to(models)
    return site.root / "ComfyUI" / "models"


@CASES.case(Same({"sd_xl_base_1.0.safetensors": "SDXL|Stable Diffusion|another model"}, load=False))
def comfy_tree_with_sdxl_checkpoint(site: Site) -> Path:
    models = comfy_tree(site.root / "models", site)
    save_file(sdxl(site), models / "checkpoints" / "sd_xl_base_1.0.safetensors")
    return models


@CASES.case(
    Same(
        {
            "loras": "LoRA",
            "clip_vision": "",
            "umt5.safetensors": "UMT5",
            "chroma.safetensors": "Chroma",
            "flux1-dev.safetensors": "dev",
        },
        load=False,
    )
)
def comfy_tree_with_other_models(site: Site) -> Path:
    models = comfy_tree(site.root / "models", site)
    save_file(pair("lora_unet_double_blocks_0_img_attn_qkv"), models / "loras" / "style.safetensors")
    save_file(vision(), models / "clip_vision" / "sigclip.safetensors")
    save_file(umt5(site.tensors(T5)), models / "text_encoders" / "umt5.safetensors")
    save_file(chroma(site), models / "diffusion_models" / "chroma.safetensors")
    save_file(dev(site), models / "diffusion_models" / "flux1-dev.safetensors")
    return models


@CASES.case(Same())
def comfy_bundle_in_checkpoints(site: Site) -> Path:
    models = comfy_tree(site.root / "models", site, without=tuple(FILES))
    shutil.move(bundle(site), models / "checkpoints" / "flux1-schnell-fp8.safetensors")
    return models


@CASES.case(Same())
def comfy_bundle_as_the_path_in_a_tree_with_single_parts(site: Site) -> Path:
    models = comfy_tree(site.root / "models", site)
    shutil.move(bundle(site), models / "checkpoints" / "flux1-schnell-fp8.safetensors")
    return models / "checkpoints" / "flux1-schnell-fp8.safetensors"


@CASES.case(refused(WeightsMissing, "autoencoder", r"ae\.safetensors"))
def comfy_tree_without_vae(site: Site) -> Path:
    return comfy_tree(site.root / "models", site, without=(AUTOENCODER,))


@CASES.case(refused(WeightsMissing, r"flux1-schnell\.safetensors"))
def comfy_tree_without_transformer(site: Site) -> Path:
    return comfy_tree(site.root / "models", site, without=(TRANSFORMER,))


@CASES.case(refused(WeightsMissing, "transformer|weights|safetensors"))
def comfy_tree_empty(site: Site) -> Path:
    return comfy_tree(site.root / "models", site, without=tuple(FILES))


@CASES.case(refused(WeightsCorrupt, r"flux1-schnell\.safetensors", r"flux1-schnell-Q8_0\.gguf", "twice|two|both"))
def comfy_tree_with_two_schnells(site: Site) -> Path:
    models = comfy_tree(site.root / "models", site)
    (models / "unet").mkdir()
    write_gguf(models / "unet" / "flux1-schnell-Q8_0.gguf", site.tensors(TRANSFORMER))
    return models


@CASES.case(Same())
def comfy_tree_with_two_schnells_one_as_the_path(site: Site) -> Path:
    return comfy_tree_with_two_schnells(site) / "diffusion_models" / FILES[TRANSFORMER]


@CASES.case(refused(WeightsCorrupt, r"t5xxl_fp16\.safetensors", r"t5xxl_copy\.safetensors", "twice|two|both"))
def comfy_tree_with_two_t5s_and_the_file_as_the_path(site: Site) -> Path:
    models = comfy_tree(site.root / "models", site)
    site.copy(T5, models / "clip" / "t5xxl_copy.safetensors")
    return models / "diffusion_models" / FILES[TRANSFORMER]


# Hub cache and diffusers folders --------------------------------------------------------------------------------------

REPO = "models--black-forest-labs--FLUX.1-schnell"


def snapshot(site: Site, repo: Path, name: str, *, refs: bool = True, diffusers: bool = True) -> Path:
    """Write a snapshot of a repository in the hub's cache: links to blobs, and `refs/main`."""
    staged = site.root / f"staged-{name}"
    if diffusers:
        write_diffusers(staged, site.published)
        shutil.copytree(site.published.tokenizers, staged, dirs_exist_ok=True)
    else:
        site.base(folder=staged)
    folder = repo / "snapshots" / (name * 40)[:40]
    (repo / "blobs").mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(sorted(path for path in staged.rglob("*") if path.is_file())):
        blob = repo / "blobs" / f"{name}{number:063x}"
        shutil.move(file, blob)
        link = folder / file.relative_to(staged)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    if refs:
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / "main").write_text(folder.name)
    return folder


@CASES.case(Same())
def hf_snapshot(site: Site) -> Path:
    return snapshot(site, site.root / "hub" / REPO, "a")


@CASES.case(Same())
def hf_cache_root(site: Site) -> Path:
    return snapshot(site, site.root / "hub" / REPO, "a").parents[1]


@CASES.case(Same())
def hf_cache_root_of_single_files(site: Site) -> Path:
    return snapshot(site, site.root / "hub" / REPO, "a", diffusers=False).parents[1]


@CASES.case(Same())
def hf_cache_root_without_refs(site: Site) -> Path:
    return snapshot(site, site.root / "hub" / REPO, "a", refs=False).parents[1]


@CASES.case(Same())
def hf_cache_root_with_two_snapshots_takes_that_of_main(site: Site) -> Path:
    repo = site.root / "hub" / REPO
    partial = repo / "snapshots" / ("b" * 40)
    partial.mkdir(parents=True)
    (partial / "model_index.json").write_text("{}")
    snapshot(site, repo, "a")
    return repo


@CASES.case(refused(WeightsError, "a" * 40, "c" * 40))
def hf_cache_root_with_two_whole_snapshots_and_no_refs(site: Site) -> Path:
    repo = site.root / "hub" / REPO
    snapshot(site, repo, "a", refs=False)
    snapshot(site, repo, "c", refs=False)
    return repo


@CASES.case(refused(WeightsMissing, "snapshots"))
def hf_snapshots_folder(site: Site) -> Path:
    return snapshot(site, site.root / "hub" / REPO, "a").parent


@CASES.case(Same())
def hf_hub_folder_with_one_model(site: Site) -> Path:
    return snapshot(site, site.root / "hub" / REPO, "a").parents[2]


@CASES.case(refused(WeightsMissing, REPO, "models--openai--whisper"))
def hf_hub_folder_with_other_models(site: Site) -> Path:
    repo = snapshot(site, site.root / "hub" / REPO, "a").parents[1]
    other = repo.parent / "models--openai--whisper" / "snapshots" / ("f" * 40)
    other.mkdir(parents=True)
    save_file({"model.encoder.conv1.weight": torch.ones(4, 4)}, other / "model.safetensors")
    return repo.parent


@CASES.case(refused(WeightsError, "00001|T5|text_encoder_2|model"))
def hf_cache_with_an_unfinished_blob(site: Site) -> Path:
    folder = snapshot(site, site.root / "hub" / REPO, "a")
    link = next((folder / "text_encoder_2").glob("*.safetensors"))
    blob = link.resolve()
    blob.rename(blob.with_name(f"{blob.name}.incomplete"))
    return folder.parents[1]


def diffusers_folder(site: Site) -> Path:
    write_diffusers(site.folder, site.published)
    return site.folder


CASES.add("diffusers_folder", Same(), diffusers_folder)


@CASES.case(Same())
def diffusers_folder_no_model_index(site: Site) -> None:
    (diffusers_folder(site) / "model_index.json").unlink()


@CASES.case(refused(WeightsMissing, "T5", "CLIP", "autoencoder"))
def diffusers_folder_of_one_component_as_the_path(site: Site) -> Path:
    return diffusers_folder(site) / "transformer"


@CASES.case(refused(WeightsError, r"model_index\.json", "folder"))
def diffusers_model_index_as_the_path(site: Site) -> Path:
    return diffusers_folder(site) / "model_index.json"


@CASES.case(Same(load=False))
def diffusers_folder_with_other_files_of_the_repository(site: Site) -> None:
    """Black Forest Labs' repository has the single files next to diffusers' folders: those of the folders are used."""
    site.base(T5, CLIP, folder=diffusers_folder(site))


@CASES.case(refused(WeightsMissing, "text_encoder_2|T5"))
def diffusers_folder_without_t5(site: Site) -> None:
    shutil.rmtree(diffusers_folder(site) / "text_encoder_2")


@CASES.case(Same())
def diffusers_folder_with_the_transformer_as_gguf(site: Site) -> None:
    shutil.rmtree(diffusers_folder(site) / "transformer")
    write_gguf(site.folder / "flux1-schnell-BF16.gguf", site.tensors(TRANSFORMER))


@CASES.case(refused(WeightsError, "SDXL|StableDiffusionXL|not FLUX|transformer"))
def diffusers_folder_of_another_pipeline(site: Site) -> None:
    site.folder.mkdir()
    (site.folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    (site.folder / "unet").mkdir()
    unet = {"down_blocks.0.resnets.0.conv1.weight": torch.ones(4, 4, 3, 3), "conv_in.weight": torch.ones(4, 4, 3, 3)}
    save_file(unet, site.folder / "unet" / "diffusion_pytorch_model.safetensors")
    site.copy(CLIP, site.folder / "text_encoder" / "model.safetensors")
    site.copy(AUTOENCODER, site.folder / "vae" / "diffusion_pytorch_model.safetensors")


@CASES.case(refused(WeightsError, r"FLUX\.1 \[dev\]"))
def diffusers_folder_of_dev(site: Site) -> None:
    from diffusers import FluxTransformer2DModel

    folder = diffusers_folder(site)
    shutil.rmtree(folder / "transformer")
    ours = transformer_oracle(site.published.networks.transformer)
    theirs = FluxTransformer2DModel(**{**ours.config, "guidance_embeds": True})
    theirs.bfloat16().save_pretrained(folder / "transformer", max_shard_size="300KB")


@CASES.case(refused(WeightsError, "SDNQ"))
def diffusers_folder_in_sdnq(site: Site) -> None:
    from tests.weights.shapes.foreign_cases import per_linear, sdnq

    folder = diffusers_folder(site)
    shutil.rmtree(folder / "transformer")
    (folder / "transformer").mkdir()
    save_file(per_linear(site, sdnq), folder / "transformer" / "diffusion_pytorch_model.safetensors")
    config = {"_class_name": "FluxTransformer2DModel", "quantization_config": {"quant_method": "sdnq"}}
    (folder / "transformer" / "config.json").write_text(json.dumps(config))


# A single file --------------------------------------------------------------------------------------------------------


@CASES.case(Same(pixels=True))
def single_file_completed_by_its_siblings(site: Site) -> Path:
    return site.base() / FILES[TRANSFORMER]


@CASES.case(Same())
def single_gguf_completed_by_its_siblings(site: Site) -> Path:
    path = site.base(TRANSFORMER) / "flux1-schnell-BF16.gguf"
    write_gguf(path, site.tensors(TRANSFORMER))
    return path


@CASES.case(Same())
def single_file_of_two_transformers_is_the_one_that_is_named(site: Site) -> Path:
    path = site.base() / "finetune.safetensors"
    tensors = site.tensors(TRANSFORMER)
    tensors["img_in.bias"] += 1
    save_file(tensors, path)
    return site.folder / FILES[TRANSFORMER]


@CASES.case(refused(WeightsCorrupt, r"t5xxl_fp16\.safetensors", r"t5_copy\.safetensors"))
def single_file_with_two_candidates_of_one_component(site: Site) -> Path:
    site.copy(T5, site.base() / "t5_copy.safetensors")
    return site.folder / FILES[TRANSFORMER]


@CASES.case(refused(WeightsMissing, "T5", "CLIP", "autoencoder", "pull"))
def single_file_without_anything_around(site: Site) -> Path:
    return site.base(T5, CLIP, AUTOENCODER) / FILES[TRANSFORMER]


@CASES.case(refused(WeightsMissing, "CLIP", r"clip_l\.safetensors"))
def single_file_with_one_component_missing(site: Site) -> Path:
    return site.base(CLIP) / FILES[TRANSFORMER]


@CASES.case(Same())
def single_file_as_a_relative_path(site: Site) -> Path:
    return Path(os.path.relpath(site.base() / FILES[TRANSFORMER]))


@CASES.case(Same())
def single_file_as_a_link_next_to_its_siblings(site: Site) -> Path:
    site.copy(TRANSFORMER, site.root / "store" / "blob")
    path = site.base(TRANSFORMER) / FILES[TRANSFORMER]
    path.symlink_to(site.root / "store" / "blob")
    return path


@CASES.case(refused(WeightsMissing, r"flux\.safetensors", "T5"))
def single_link_whose_target_has_the_siblings(site: Site) -> Path:
    """A link on the desktop to a file in ComfyUI's tree."""
    models = comfy_tree(site.root / "models", site)
    site.folder.mkdir()
    (site.folder / "flux.safetensors").symlink_to(models / "diffusion_models" / FILES[TRANSFORMER])
    return site.folder / "flux.safetensors"


def pulled(site: Site, layout: str, *without: str) -> Path:
    """Write a layout as `allaprima pull` leaves it."""
    folder = site.base(*without, folder=site.cache / "models" / "flux-schnell" / layout)
    (folder / "pulled.json").write_text("{}")
    return folder


@CASES.case(Same())
def single_file_completed_by_a_pulled_layout(site: Site) -> Path:
    pulled(site, "bf16")
    return site.base(T5, CLIP, AUTOENCODER) / FILES[TRANSFORMER]


@CASES.case(Same())
def siblings_precede_a_pulled_layout(site: Site) -> Path:
    folder = pulled(site, "bf16")
    tensors = site.tensors(CLIP)
    tensors["text_model.final_layer_norm.bias"] += 1
    save_file(tensors, folder / FILES[CLIP])
    return site.base(T5, AUTOENCODER) / FILES[TRANSFORMER]


@CASES.case(refused(WeightsMissing, "T5"))
def unfinished_pulled_layout_completes_nothing(site: Site) -> Path:
    (pulled(site, "bf16") / "pulled.json").unlink()
    return site.base(T5, CLIP, AUTOENCODER) / FILES[TRANSFORMER]


@CASES.case(Same())
def folder_completed_by_a_pulled_layout(site: Site) -> None:
    pulled(site, "bf16")
    site.base(T5, CLIP)


@CASES.case(refused(WeightsMissing, "transformer", r"flux1-schnell\.safetensors"))
def pulled_transformer_is_not_taken_for_a_folder_without_one(site: Site) -> None:
    """A folder of text encoders and a pulled transformer: a model that the operator did not name."""
    pulled(site, "bf16")
    site.base(TRANSFORMER)


for _component in (T5, CLIP, AUTOENCODER):

    def _part(site: Site, component: str = _component) -> Path:
        return site.base(*(one for one in FILES if one != component)) / FILES[component]

    CASES.add(
        f"{_component}_alone_as_the_path",
        refused(WeightsMissing, FILES[_component].replace(".", r"\."), "transformer"),
        _part,
    )


@CASES.case(Same())
def text_encoder_as_the_path_in_a_complete_folder(site: Site) -> Path:
    return site.base() / FILES[T5]


@CASES.case(refused(WeightsError, r"lora\.safetensors", "LoRA"))
def lora_as_the_path_in_a_complete_folder(site: Site) -> Path:
    return site.neighbour("lora.safetensors", pair("lora_unet_double_blocks_0_img_attn_qkv"))


@CASES.case(refused(WeightsError, r"flux1-dev\.safetensors", "dev"))
def dev_as_the_path_in_a_complete_folder(site: Site) -> Path:
    return site.neighbour("flux1-dev.safetensors", dev(site))


# Folders --------------------------------------------------------------------------------------------------------------


@CASES.case(Same({"loras": "LoRA"}, load=False))
def subfolder_of_loras(site: Site) -> None:
    site.neighbour("loras/style.safetensors", pair("lora_unet_double_blocks_0_img_attn_qkv"))


@CASES.case(Same(load=False))
def subfolder_with_a_backup_of_the_model(site: Site) -> None:
    """A copy in a folder of another name is no second model; it is named as unused."""
    site.base(folder=site.base() / "backup")


@CASES.case(refused(WeightsMissing, "T5", "t5"))
def one_folder_for_each_file(site: Site) -> None:
    """Folders of no tool: the folders that are not searched are named."""
    for component, name in FILES.items():
        site.copy(component, site.folder / component / name)


@CASES.case(Same(load=False))
def read_only_folder(site: Site) -> None:
    site.base()
    for path in site.folder.iterdir():
        path.chmod(0o444)
    site.folder.chmod(0o555)


@CASES.case(Same(load=False))
def folder_with_a_dot_in_its_name(site: Site) -> Path:
    return site.base(folder=site.root / "flux.safetensors")


@CASES.case(Same(load=False))
def hidden_folder_as_the_path(site: Site) -> Path:
    return site.base(folder=site.root / ".models" / ".flux")


@CASES.case(Same(load=False))
def folder_as_a_link(site: Site) -> Path:
    (site.root / "link").symlink_to(site.base())
    return site.root / "link"


@CASES.case(Same(load=False))
def names_with_glob_characters(site: Site) -> Path:
    folder = site.base(folder=site.root / "flux [schnell] {1} *?")
    (folder / FILES[TRANSFORMER]).rename(folder / "flux [schnell] 100%.safetensors")
    return folder


@CASES.case(refused(WeightsMissing, "nowhere"))
def path_that_does_not_exist(site: Site) -> Path:
    return site.root / "nowhere"


@CASES.case(refused(WeightsMissing, r"flux1-schnel\.safetensors"))
def path_with_a_typing_error(site: Site) -> Path:
    return site.base() / "flux1-schnel.safetensors"


@CASES.case(refused(WeightsMissing, "model"))
def empty_folder(site: Site) -> None:
    site.folder.mkdir()


@CASES.case(refused(WeightsError, r"image\.png"))
def image_as_the_path(site: Site) -> Path:
    path = site.base() / "image.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    return path


def component_twice(component: str) -> Callable[[Site], None]:
    def write(site: Site) -> None:
        site.copy(component, site.base() / "copy.safetensors")

    return write


for _component in (T5, CLIP, AUTOENCODER):
    CASES.add(
        f"{_component}_twice",
        refused(WeightsCorrupt, FILES[_component].replace(".", r"\."), r"copy\.safetensors", "twice|two|both"),
        component_twice(_component),
    )


@CASES.case(refused(WeightsCorrupt, r"bundle\.safetensors", r"flux1-schnell\.safetensors", "twice|two|both"))
def bundle_beside_single_files(site: Site) -> None:
    site.base()
    bundle(site)


@CASES.case(Same())
def sharded_transformer_in_a_tree_without_model_index(site: Site) -> Path:
    models = comfy_tree(site.root / "models", site, without=(TRANSFORMER,))
    diffusers_transformer(site, models / "diffusion_models" / "schnell", max_shard_size="300KB")
    return models


@CASES.case(Same({"ae.safetensors": "autoencoder"}))
def bundle_beside_a_single_autoencoder(site: Site) -> None:
    """Components in one file with the transformer belong to it."""
    site.base(TRANSFORMER, T5, CLIP)
    bundle(site)


@CASES.case(Same({"t5xxl_fp16.safetensors": "(?i)t5"}))
def bundle_path_beside_a_single_t5(site: Site) -> Path:
    site.base(TRANSFORMER, AUTOENCODER, CLIP)
    return bundle(site)


@CASES.case(Same())
def index_maps_a_tensor_to_the_wrong_shard(site: Site) -> None:
    diffusers_transformer(site, site.base(TRANSFORMER), max_shard_size="300KB")
    [path] = site.folder.glob("*.index.json")
    index = json.loads(path.read_text())
    shards = sorted(set(index["weight_map"].values()))
    name = next(name for name, shard in index["weight_map"].items() if shard == shards[0])
    index["weight_map"][name] = shards[1]
    path.write_text(json.dumps(index))


@CASES.case(Same({"diffusion_pytorch_model.safetensors.index.json": "index"}))
def index_is_no_json(site: Site) -> None:
    diffusers_transformer(site, site.base(TRANSFORMER), max_shard_size="300KB")
    next(site.folder.glob("*.index.json")).write_text("{")


@CASES.case(Same({"diffusion_pytorch_model.safetensors.index.json": "index"}))
def index_maps_to_numbers(site: Site) -> None:
    diffusers_transformer(site, site.base(TRANSFORMER), max_shard_size="300KB")
    next(site.folder.glob("*.index.json")).write_text(json.dumps({"weight_map": {"x_embedder.weight": 1}}))


@CASES.case(Same({"diffusion_pytorch_model.safetensors.index.json": "index"}))
def index_without_a_map(site: Site) -> None:
    diffusers_transformer(site, site.base(TRANSFORMER), max_shard_size="300KB")
    next(site.folder.glob("*.index.json")).write_text("[]")


@CASES.case(Same({"model.fp16.safetensors": ""}))
def clip_variant_fp16_beside_the_plain_file(site: Site) -> None:
    site.base(CLIP)
    site.copy(CLIP, site.folder / "model.safetensors")
    tensors = {name: one.half() for name, one in site.tensors(CLIP).items()}
    save_file(tensors, site.folder / "model.fp16.safetensors")


@CASES.case(refused(WeightsError, r"flux1-schnell-0000[12]-of-00002\.gguf"))
def gguf_split_in_two(site: Site) -> None:
    """`llama-gguf-split` cuts a file into two: they are joined by its tool, not by allaprima."""
    site.base(TRANSFORMER)
    tensors = list(site.tensors(TRANSFORMER).items())
    for number, part in enumerate((tensors[:50], tensors[50:]), 1):
        write_gguf(site.folder / f"flux1-schnell-0000{number}-of-00002.gguf", dict(part))
