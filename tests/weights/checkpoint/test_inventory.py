"""Which files make up a checkpoint, and why each other file is not used."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from allaprima.errors import WeightsCorrupt, WeightsMissing
from allaprima.weights.checkpoint.inventory import Inventory, take_inventory
from allaprima.weights.checkpoint.key_maps import Component
from allaprima.weights.paths import model_paths
from tests.weights.published import Published, write_bfl, write_bundle, write_diffusers, write_gguf

TRANSFORMER, T5, CLIP, AUTOENCODER = (f"{name}.safetensors" for name in ("flux1-schnell", "t5xxl_fp16", "clip_l", "ae"))
HTML = b"<!doctype html><title>Access to model is restricted</title>"


@pytest.fixture
def comfy(tmp_path: Path, published: Published) -> Path:
    """The folder `models` of a ComfyUI installation, with one file in each of the folders that FLUX needs."""
    models = tmp_path / "ComfyUI" / "models"
    write_bfl(tmp_path / "flat", published)
    for folder, name in (
        ("diffusion_models/my flux", TRANSFORMER),
        ("text_encoders", T5),
        ("text_encoders", CLIP),
        ("vae/FLUX1", AUTOENCODER),
    ):
        (models / folder).mkdir(parents=True, exist_ok=True)
        shutil.move(tmp_path / "flat" / name, models / folder / name)
    return models


def used(inventory: Inventory) -> dict[str, str]:
    """Return the file of each component, by the component's name."""
    return {str(component): file.container.path.name for component, file in inventory.components.items()}


def reasons(inventory: Inventory) -> dict[str, str]:
    """Return why each file is not used, by the file's name."""
    return {file.path.name: file.reason for file in inventory.unused}


ALL_USED = {"transformer": TRANSFORMER, "t5": T5, "clip": CLIP, "autoencoder": AUTOENCODER}


def complete(path: Path, *pulled: Path) -> Inventory:
    inventory = take_inventory(path, pulled)
    assert inventory.error is None, inventory.error.message
    assert not inventory.missing
    return inventory


# Folders --------------------------------------------------------------------------------------------------------------


def test_flat_folder_uses_each_file_and_counts_the_others(checkpoint: Path) -> None:
    (checkpoint / "README.md").write_text("a model")
    inventory = complete(checkpoint)

    assert used(inventory) == ALL_USED
    assert (inventory.unused, inventory.others) == ((), 1)


@pytest.mark.parametrize("start", ["models", "installation"])
def test_tree_of_comfyui_is_searched_below_its_folders(comfy: Path, start: str) -> None:
    (comfy / "loras").mkdir()
    save_file({"x": torch.ones(1)}, comfy / "loras" / "style.safetensors")

    inventory = complete(comfy if start == "models" else comfy.parent)

    assert used(inventory) == ALL_USED
    assert reasons(inventory) == {"loras": "LoRAs are not applied (1 file of weights)"}


def test_old_folder_names_of_comfyui_are_searched(comfy: Path) -> None:
    (comfy / "diffusion_models").rename(comfy / "unet")
    (comfy / "text_encoders").rename(comfy / "clip")
    assert used(complete(comfy)) == ALL_USED


def test_file_that_links_put_into_two_folders_is_one_file(comfy: Path) -> None:
    (comfy / "clip").symlink_to(comfy / "text_encoders")
    os.link(comfy / "vae" / "FLUX1" / AUTOENCODER, comfy / "vae" / AUTOENCODER)
    for path in (comfy, comfy / "text_encoders" / T5):
        inventory = complete(path)
        assert used(inventory) == ALL_USED
        # A link is the file itself; a hard link is named as its second name.
        [unused] = inventory.unused
        assert unused.path.parent.name in ("vae", "FLUX1")
        assert unused.reason.startswith("another name of ")


def test_diffusers_folder_needs_no_model_index(tmp_path: Path, published: Published) -> None:
    write_diffusers(tmp_path, published)
    (tmp_path / "model_index.json").unlink()
    assert len(complete(tmp_path).components) == 4


def test_subfolders_of_diffusers_precede_single_files(tmp_path: Path, published: Published) -> None:
    write_diffusers(tmp_path, published)
    write_bfl(tmp_path, published)
    inventory = complete(tmp_path)
    assert inventory.components[Component.T5].container.path.parent.name == "text_encoder_2"
    assert reasons(inventory)[T5].startswith("holds the t5, and that of ")


def test_folder_without_weights_of_its_own_is_searched_one_level_down(checkpoint: Path) -> None:
    for name in (TRANSFORMER, T5, CLIP, AUTOENCODER):
        (checkpoint / f"the {name}").mkdir()
        (checkpoint / name).rename(checkpoint / f"the {name}" / name)
    assert used(complete(checkpoint)) == ALL_USED


def hub_cache(tmp_path: Path, checkpoint: Path, *commits: str) -> Path:
    """Return the folder of a repository in a hub cache, with links to the files of a checkpoint in each snapshot."""
    repository = tmp_path / "hub" / "models--black-forest-labs--FLUX.1-schnell"
    for commit in commits:
        (repository / "snapshots" / commit).mkdir(parents=True)
        for file in checkpoint.iterdir():
            (repository / "snapshots" / commit / file.name).symlink_to(file)
    return repository


def test_hub_cache_is_read_from_its_repository_its_root_and_its_snapshot(tmp_path: Path, checkpoint: Path) -> None:
    repository = hub_cache(tmp_path, checkpoint, "abc")
    for path in (repository, repository.parent, repository / "snapshots" / "abc"):
        assert used(complete(path)) == ALL_USED


def test_hub_cache_uses_the_snapshot_of_main(tmp_path: Path, checkpoint: Path) -> None:
    repository = hub_cache(tmp_path, checkpoint, "abc", "def")
    with pytest.raises(WeightsMissing, match=r"several snapshots, .*give one: .*abc, .*def"):
        take_inventory(repository)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("def\n")
    assert complete(repository).components[Component.T5].container.path.parent.name == "def"


def test_hub_cache_of_several_models_is_refused_by_their_names(tmp_path: Path, checkpoint: Path) -> None:
    repository = hub_cache(tmp_path, checkpoint, "abc")
    shutil.copytree(repository, repository.with_name("models--other--model"), symlinks=True)
    with pytest.raises(WeightsMissing, match=r"several models; .*models--black-forest-labs--FLUX.1-schnell, models--o"):
        take_inventory(repository.parent)


# Shards ---------------------------------------------------------------------------------------------------------------


def test_shards_without_their_index_are_one_file(tmp_path: Path, published: Published) -> None:
    write_diffusers(tmp_path, published)
    [index] = (tmp_path / "transformer").glob("*.index.json")
    index.unlink()
    transformer = complete(tmp_path).components[Component.TRANSFORMER]
    assert len(transformer.container.files) > 2

    transformer.container.files[1].unlink()
    error = take_inventory(tmp_path).error
    assert isinstance(error, WeightsMissing)
    assert transformer.container.files[1].name in error.message


def test_a_shard_stands_for_its_set(tmp_path: Path, published: Published) -> None:
    write_diffusers(tmp_path, published)
    for shard in (tmp_path / "transformer").iterdir():
        if shard.name.endswith((".safetensors", ".index.json")):
            assert len(complete(shard).components[Component.TRANSFORMER].container.files) > 2


def as_variant(folder: Path, *, keep: bool) -> None:
    """Rename the shards in a folder and their index to those of diffusers' variant fp16. keep: keep the others too."""
    [index] = folder.glob("*.index.json")
    weight_map = json.loads(index.read_text())["weight_map"]
    names = {old: old.replace("model-", "model.fp16-") for old in set(weight_map.values())}
    for old, new in names.items():
        shutil.copy(folder / old, folder / new)
    variant = index.with_name(index.name.replace("index.json", "index.fp16.json"))
    variant.write_text(json.dumps({"weight_map": {key: names[old] for key, old in weight_map.items()}}))
    if not keep:
        for file in (index, *(folder / old for old in names)):
            file.unlink()


def test_variant_of_diffusers_is_read(tmp_path: Path, published: Published) -> None:
    write_diffusers(tmp_path, published)
    as_variant(tmp_path / "transformer", keep=False)
    text_encoder = tmp_path / "text_encoder" / "model.safetensors"
    text_encoder.rename(text_encoder.with_name("model.fp16.safetensors"))
    inventory = complete(tmp_path)
    assert used(inventory)["transformer"].endswith(".index.fp16.json")
    assert used(inventory)["clip"] == "model.fp16.safetensors"


def test_file_without_variant_is_preferred(tmp_path: Path, published: Published) -> None:
    write_diffusers(tmp_path, published)
    as_variant(tmp_path / "transformer", keep=True)
    inventory = complete(tmp_path)
    assert used(inventory)["transformer"].endswith(".safetensors.index.json")
    [variant] = reasons(inventory)
    assert variant.endswith(".index.fp16.json")


# Single files ---------------------------------------------------------------------------------------------------------


def test_single_file_is_completed_by_the_files_next_to_it(checkpoint: Path, published: Published) -> None:
    write_gguf(checkpoint / "other.gguf", published.tensors("transformer"))
    for name in ("other.gguf", TRANSFORMER):
        inventory = complete(checkpoint / name)
        assert used(inventory) == ALL_USED | {"transformer": name}
    assert reasons(inventory)["other.gguf"] == f"holds the transformer, and that of {checkpoint / TRANSFORMER} is used"


def test_single_file_is_completed_by_its_tree(comfy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = comfy / "diffusion_models" / "my flux"
    assert used(complete(folder / TRANSFORMER)) == ALL_USED
    monkeypatch.chdir(folder)
    for path in (Path(TRANSFORMER), Path("..", "my flux", TRANSFORMER)):
        assert used(complete(path)) == ALL_USED


def test_single_file_is_completed_by_a_tree_whose_folders_are_links(comfy: Path, tmp_path: Path) -> None:
    (comfy / "diffusion_models").rename(tmp_path / "large disk")
    (comfy / "diffusion_models").symlink_to(tmp_path / "large disk")
    [named] = model_paths([str(comfy / "diffusion_models" / "my flux" / TRANSFORMER)], tmp_path)[1:]
    assert used(complete(named.path)) == ALL_USED


def test_single_file_is_completed_by_its_diffusers_folder(tmp_path: Path, published: Published) -> None:
    write_diffusers(tmp_path, published)
    save_file(published.tensors("transformer"), tmp_path / TRANSFORMER)
    inventory = complete(tmp_path / TRANSFORMER)
    assert used(inventory)["transformer"] == TRANSFORMER
    assert used(inventory)["t5"] == "model.safetensors"


def test_single_file_is_refused_when_two_files_could_complete_it(checkpoint: Path) -> None:
    shutil.copy(checkpoint / T5, checkpoint / "t5xxl_fp8.safetensors")
    error = take_inventory(checkpoint / TRANSFORMER).error
    assert isinstance(error, WeightsCorrupt)
    assert T5 in error.message
    assert "t5xxl_fp8.safetensors" in error.message
    assert "give the file to use with --model" in error.message
    # The file of the text encoder decides.
    assert used(complete(checkpoint / T5)) == ALL_USED


def test_components_of_the_transformers_own_file_are_preferred(checkpoint: Path, published: Published) -> None:
    write_bundle(checkpoint, published)
    bundle = checkpoint / "flux1-schnell-fp8.safetensors"
    assert set(used(complete(bundle)).values()) == {bundle.name}
    # A whole model completes another one only if no file has the component alone.
    assert used(complete(checkpoint / TRANSFORMER)) == ALL_USED
    (checkpoint / CLIP).unlink()
    assert used(complete(checkpoint / TRANSFORMER)) == ALL_USED | {"clip": bundle.name}


def test_text_encoder_of_another_size_is_no_candidate(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / CLIP).items()
    wider = {name: torch.ones(*one.shape[:-1], 2 * one.shape[-1]) for name, one in tensors if one.ndim}
    save_file(wider, checkpoint / "clip_g.safetensors")
    inventory = complete(checkpoint)
    assert used(inventory) == ALL_USED
    assert reasons(inventory) == {"clip_g.safetensors": f"holds the clip, and that of {checkpoint / CLIP} is used"}


def test_pulled_layout_completes_text_encoders_and_autoencoder_only(checkpoint: Path, tmp_path: Path) -> None:
    pulled = tmp_path / "pulled"
    shutil.copytree(checkpoint, pulled)
    for name in (T5, CLIP, AUTOENCODER):
        (checkpoint / name).unlink()
    inventory = complete(checkpoint / TRANSFORMER, pulled)
    assert inventory.components[Component.T5].container.path == pulled / T5
    assert inventory.components[Component.TRANSFORMER].container.path == checkpoint / TRANSFORMER

    (checkpoint / TRANSFORMER).rename(checkpoint / "README.md")
    error = take_inventory(checkpoint, [pulled]).error
    assert isinstance(error, WeightsMissing)
    assert "holds no safetensors or GGUF file" in error.message


def test_pulled_file_does_not_replace_a_file_that_cannot_be_read(checkpoint: Path, tmp_path: Path) -> None:
    pulled = tmp_path / "pulled"
    shutil.copytree(checkpoint, pulled)
    (checkpoint / T5).write_bytes(HTML)
    error = take_inventory(checkpoint, [pulled]).error
    assert isinstance(error, WeightsCorrupt)
    assert error.message.startswith(str(checkpoint / T5))


# Files that are not used ----------------------------------------------------------------------------------------------


def unreadable(folder: Path) -> str:
    (folder / "page.safetensors").write_bytes(HTML)
    return "page.safetensors"


def unfinished(folder: Path) -> str:
    (folder / "t5xxl_fp8.safetensors.crdownload").write_bytes(b"\0" * 99)
    return "t5xxl_fp8.safetensors.crdownload"


def apple_double(folder: Path) -> str:
    (folder / f"._{TRANSFORMER}").write_bytes(bytes.fromhex("00051607") + b"\0" * 99)
    return f"._{TRANSFORMER}"


def pickle(folder: Path) -> str:
    torch.save({"weight": torch.ones(2)}, folder / "old.pth")
    return "old.pth"


def dangling_link(folder: Path) -> str:
    (folder / "linked.safetensors").symlink_to(folder / "nowhere")
    return "linked.safetensors"


def other_tensors(folder: Path) -> str:
    save_file({"something": torch.ones(2, 2)}, folder / "other.safetensors")
    return "other.safetensors"


def second_folder(folder: Path) -> str:
    (folder / "old").mkdir()
    save_file({"something": torch.ones(2, 2)}, folder / "old" / "model.safetensors")
    return "old"


@pytest.mark.parametrize(
    "put", [unreadable, unfinished, apple_double, pickle, dangling_link, other_tensors, second_folder]
)
def test_file_of_no_use_is_named_and_ignored(checkpoint: Path, put: Callable[[Path], str]) -> None:
    name = put(checkpoint)
    for path in (checkpoint, checkpoint / TRANSFORMER):
        inventory = complete(path)
        assert used(inventory) == ALL_USED
        if path.is_dir() or not (checkpoint / name).is_dir():
            assert list(reasons(inventory)) == [name]
            assert reasons(inventory)[name]


def test_folders_and_pipes_with_names_of_weights_are_ignored(checkpoint: Path) -> None:
    (checkpoint / "folder.safetensors").mkdir()
    os.mkfifo(checkpoint / "pipe.safetensors")
    assert used(complete(checkpoint)) == ALL_USED
    assert reasons(complete(checkpoint)) == {"pipe.safetensors": "not a regular file"}


def test_unreadable_file_in_place_of_a_component_is_refused_by_its_name(checkpoint: Path) -> None:
    (checkpoint / T5).write_bytes(HTML)
    inventory = take_inventory(checkpoint)
    assert inventory.error is not None
    assert inventory.error.message.startswith(str(checkpoint / T5))
    assert list(inventory.missing) == [Component.T5]


def test_named_file_of_no_use_is_refused_though_the_files_next_to_it_are_complete(checkpoint: Path) -> None:
    name = other_tensors(checkpoint)
    error = take_inventory(checkpoint / name).error
    assert isinstance(error, WeightsCorrupt)
    assert error.message == (
        f"{checkpoint / name} holds no tensors of FLUX.1 [schnell]; give the file or folder of a FLUX.1 [schnell] model"
    )


def test_incomplete_model_names_what_is_missing_and_what_is_there(checkpoint: Path) -> None:
    (checkpoint / T5).rename(checkpoint / f"{T5}.part")
    error = take_inventory(checkpoint).error
    assert isinstance(error, WeightsMissing)
    assert "holds no T5 text encoder (such as t5xxl_fp16.safetensors)" in error.message
    assert f"{T5}.part: an unfinished download" in error.message


def test_transformer_without_its_first_block_is_refused_by_the_tensor_that_it_lacks(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / TRANSFORMER)
    save_file({name: one for name, one in tensors.items() if ".0." not in name}, checkpoint / TRANSFORMER)
    error = take_inventory(checkpoint).error
    assert isinstance(error, WeightsCorrupt)
    assert error.message.startswith(f"{checkpoint / TRANSFORMER} is no transformer of FLUX.1 [schnell], since it lacks")
    assert "double_blocks.0.img_attn.norm.key_norm" in error.message
