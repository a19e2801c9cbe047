"""Broken downloads, files that only look like weights, and headers (S2, R2, R8, M5; page 1.3)."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from allaprima.errors import WeightsCorrupt, WeightsError, WeightsUnsafe
from tests.weights.published import write_gguf
from tests.weights.shapes.case import AUTOENCODER, CLIP, FILES, T5, TRANSFORMER, Cases, Same, Site, refused
from tests.weights.shapes.quantizers import in_dtype
from tests.weights.shapes.stored import pad_header, write_header
from tests.weights.shapes.transformer_cases import bundle, diffusers_transformer

CASES = Cases()
_BROKEN = r"zero|download|incomplete|cut|damaged|short"

# Zeros (S2) -----------------------------------------------------------------------------------------------------------


def fill_with_zeros(path: Path, share: float = 0.5) -> None:
    """Replace the end of a file by zero bytes, as in a preallocated download that broke off."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(int(size * (1 - share)))
        file.write(bytes(size - file.tell()))


def zeros_tail(component: str, share: float = 0.5) -> Callable[[Site], None]:
    def write(site: Site) -> None:
        fill_with_zeros(site.base() / FILES[component], share)

    return write


for _component in FILES:
    _file = FILES[_component].replace(".", r"\.")
    CASES.add(
        "zeros_tail" if _component == TRANSFORMER else f"zeros_tail_{_component}",
        refused(WeightsCorrupt, _file, "zero", "download"),
        zeros_tail(_component),
    )
CASES.add(
    "zeros_tail_of_the_last_tenth", refused(WeightsCorrupt, "flux1-schnell", "zero"), zeros_tail(TRANSFORMER, 0.1)
)


@CASES.case(refused(WeightsCorrupt, r"flux1-schnell-BF16\.gguf", "zero"))
def zeros_tail_gguf(site: Site) -> None:
    path = site.base(TRANSFORMER) / "flux1-schnell-BF16.gguf"
    write_gguf(path, site.tensors(TRANSFORMER))
    fill_with_zeros(path)


@CASES.case(refused(WeightsCorrupt, r"flux1-schnell-Q8_0\.gguf", "zero"))
def zeros_tail_gguf_quantised(site: Site) -> None:
    import gguf

    path = site.base(TRANSFORMER) / "flux1-schnell-Q8_0.gguf"
    write_gguf(path, site.tensors(TRANSFORMER), gguf.GGMLQuantizationType.Q8_0)
    fill_with_zeros(path)


@CASES.case(refused(WeightsCorrupt, r"diffusion_pytorch_model-00002-of-0000\d\.safetensors", "zero"))
def zeros_tail_second_of_the_shards(site: Site) -> None:
    diffusers_transformer(site, site.base(TRANSFORMER), max_shard_size="500KB")
    fill_with_zeros(next(site.folder.glob("*-00002-of-*")), 0.8)


@CASES.case(refused(WeightsCorrupt, r"bundle\.safetensors", "zero"))
def zeros_tail_bundle(site: Site) -> None:
    fill_with_zeros(bundle(site), 0.3)


@CASES.case(refused(WeightsCorrupt, r"bundle\.safetensors", "zero"))
def zeros_tail_bundle_fp8(site: Site) -> None:
    fill_with_zeros(bundle(site, in_dtype(torch.float8_e4m3fn)), 0.3)


@CASES.case(refused(WeightsCorrupt, r"flux1-schnell\.safetensors", "zero"))
def zeros_in_the_middle_of_the_file(site: Site) -> None:
    """A segment of a download in several connections is missing."""
    path = site.base() / FILES[TRANSFORMER]
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 3)
        file.write(bytes(size // 3))


@CASES.case(refused(WeightsCorrupt, r"flux1-schnell\.safetensors", ""))
def zeros_at_the_start_of_the_file(site: Site) -> None:
    path = site.base() / FILES[TRANSFORMER]
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size // 2))


def zero_tensor(component: str, name: str) -> Callable[[Site], None]:
    def write(site: Site) -> None:
        tensors = site.tensors(component)
        tensors[name].zero_()
        site.replace(component, tensors)

    return write


for _case, (_component, _tensor) in {
    "one_tensor_all_zero": (TRANSFORMER, "double_blocks.1.img_attn.qkv.weight"),
    "one_tensor_all_zero_t5": (T5, "encoder.block.1.layer.1.DenseReluDense.wo.weight"),
    "one_tensor_all_zero_t5_embedding": (T5, "shared.weight"),
    "one_tensor_all_zero_clip": (CLIP, "text_model.encoder.layers.1.mlp.fc2.weight"),
    "one_tensor_all_zero_autoencoder": (AUTOENCODER, "decoder.up.1.block.0.conv1.weight"),
}.items():
    CASES.add(
        _case,
        refused(WeightsCorrupt, FILES[_component].replace(".", r"\."), _tensor.replace(".", r"\."), "zero"),
        zero_tensor(_component, _tensor),
    )


@CASES.case(refused(WeightsCorrupt, r"flux1-schnell\.safetensors", r"img_mod\.lin\.weight", "zero"))
def one_tensor_of_negative_zeros(site: Site) -> None:
    tensors = site.tensors(TRANSFORMER)
    tensors["double_blocks.0.img_mod.lin.weight"].fill_(-0.0)
    site.replace(TRANSFORMER, tensors)


# Zero biases are common in published files: `img_mod.lin.bias` of a model whose training began with zeros.
@CASES.case(Same({}, load=False))
def zero_bias_is_no_broken_download(site: Site) -> None:
    tensors = site.tensors(TRANSFORMER)
    tensors["double_blocks.0.img_mlp.0.bias"].zero_()
    site.replace(TRANSFORMER, tensors)


# Headers (R2) ---------------------------------------------------------------------------------------------------------

for _digit, _remainder in enumerate((640, 896, 1152, 1408), 2):
    for _component in FILES:

        def _pad(site: Site, component: str = _component, remainder: int = _remainder) -> None:
            pad_header(site.base() / FILES[component], remainder)

        _suffix = "" if _component == TRANSFORMER else f"_{_component}"
        CASES.add(f"header_length_looks_like_pickle{_digit}{_suffix}", Same(load=False), _pad)


@CASES.case(Same(load=False))
def header_length_control(site: Site) -> None:
    pad_header(site.base() / FILES[TRANSFORMER], 1160)


@CASES.case(Same(load=False))
def header_length_looks_like_a_zip(site: Site) -> None:
    """`PK` as the first two bytes: the length 0x4b50 modulo 65,536."""
    pad_header(site.base() / FILES[TRANSFORMER], 0x4B50)


@CASES.case(Same())
def header_length_looks_like_pickle_in_a_shard(site: Site) -> None:
    diffusers_transformer(site, site.base(TRANSFORMER), max_shard_size="300KB")
    for path in site.folder.glob("diffusion*.safetensors"):
        pad_header(path, 896)


@CASES.case(Same())
def safetensors_named_sft(site: Site) -> None:
    site.base()
    for name in FILES.values():
        (site.folder / name).rename(site.folder / name.replace(".safetensors", ".sft"))


@CASES.case(Same())
def endings_in_capitals(site: Site) -> None:
    site.base()
    for name in FILES.values():
        (site.folder / name).rename(site.folder / name.replace(".safetensors", ".SAFETENSORS"))


@CASES.case(Same())
def safetensors_named_gguf_and_the_reverse(site: Site) -> None:
    """The format is that of the content."""
    site.base(TRANSFORMER)
    write_gguf(site.folder / "flux1-schnell.safetensors", site.tensors(TRANSFORMER))
    (site.folder / FILES[CLIP]).rename(site.folder / "clip_l.gguf")


# Files that only look like weights ------------------------------------------------------------------------------------

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 23782506688\n"
HTML = "<!doctype html>\n<html><head><title>Access denied</title></head><body>" + "x" * 300 + "</body></html>"
RESTRICTED = "Access to model black-forest-labs/FLUX.1-schnell is restricted. You must be authenticated to access it."
LOOKS: dict[str, tuple[bytes, str, str]] = {
    "lfs_pointer": (LFS.encode(), r"(?i)lfs", r"git lfs pull|download|fetch"),
    "lfs_pointer_crlf": (LFS.replace("\n", "\r\n").encode(), r"(?i)lfs", r"git lfs pull|download|fetch"),
    "html_page": (HTML.encode(), r"(?i)html|web page", r"download|log in|token|fetch"),
    "html_page_with_bom": (b"\xef\xbb\xbf  \n" + HTML.encode(), r"(?i)html|web page", r"download|log in|token|fetch"),
    "restricted_page": (RESTRICTED.encode(), r"(?i)text|page|message", r"download|log in|token|fetch"),
    "json_error": (b'{"error":"Repository not found"}', r"(?i)text|page|JSON|message|not", r""),
    "xml_error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', r"(?i)html|web page|xml|text", r""),
    "empty_file": (b"", r"(?i)empty|0 bytes", r"download|fetch|"),
    "all_zeros": (bytes(100_000), r"(?i)zero|download|empty", r""),
    "seven_bytes": (b"\x01" * 7, r"", r""),
    "header_lies": ((2**62).to_bytes(8, "little") + b"{}" + bytes(1000), r"", r""),
    "header_is_a_list": ((8).to_bytes(8, "little") + b"[1,2,3] " + bytes(10), r"", r""),
    "random_bytes": (bytes((i * 7919 + 13) % 251 for i in range(50_000)), r"", r""),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(range(200)) * 10, r"", r""),
    "zip_archive": (b"PK\x03\x04" + bytes(range(200)) * 10, r"", r""),
    "gguf_magic_only": (b"GGUF", r"", r""),
    "gguf_version_999": (b"GGUF" + (999).to_bytes(4, "little") + bytes(64), r"", r""),
    "gguf_counts_lie": (b"GGUF\x03\0\0\0" + (2**40).to_bytes(8, "little") * 2 + bytes(64), r"", r""),
}
for _name, (_content, _what, _advice) in LOOKS.items():
    for _component in (TRANSFORMER, CLIP) if _name in ("lfs_pointer", "html_page", "empty_file") else (TRANSFORMER,):

        def _instead(site: Site, content: bytes = _content, component: str = _component) -> None:
            (site.base(component) / FILES[component]).write_bytes(content)

        def _instead_path(site: Site, content: bytes = _content, component: str = _component) -> Path:
            path = site.base(component) / FILES[component]
            path.write_bytes(content)
            return path

        _suffix = "" if _component == TRANSFORMER else f"_{_component}"
        _outcome = refused(WeightsError, FILES[_component].replace(".", r"\."), _what, _advice)
        CASES.add(f"{_name}_in_place_of_a_needed_file{_suffix}", _outcome, _instead)
        if _component == TRANSFORMER:
            CASES.add(f"{_name}_as_the_path", _outcome, _instead_path)

    def _next_to(site: Site, content: bytes = _content) -> None:
        (site.base() / "other.safetensors").write_bytes(content)

    CASES.add(f"{_name}_in_folder", Same({"other.safetensors": _what}, load=False), _next_to)


def cut(component: str, share: float, name: str | None = None) -> Callable[[Site], None]:
    def write(site: Site) -> None:
        path = site.base() / FILES[component]
        os.truncate(path, int(path.stat().st_size * share))

    return write


for _component in FILES:
    CASES.add(
        f"cut_short_{_component}",
        refused(WeightsCorrupt, FILES[_component].replace(".", r"\."), r"cut|incomplete|download|short|lacks|missing"),
        cut(_component, 0.6),
    )
CASES.add("cut_inside_the_header", refused(WeightsCorrupt, r"flux1-schnell\.safetensors"), cut(TRANSFORMER, 0.002))
CASES.add(
    "cut_by_one_byte_of_ten_thousand", refused(WeightsCorrupt, r"flux1-schnell\.safetensors"), cut(TRANSFORMER, 0.9999)
)


@CASES.case(refused(WeightsCorrupt, r"flux1-schnell\.safetensors"))
def bytes_appended(site: Site) -> None:
    with (site.base() / FILES[TRANSFORMER]).open("ab") as file:
        file.write(b"\x01" * 64)


@CASES.case(Same({"other.safetensors": ""}, load=False))
def cut_short_copy_in_folder(site: Site) -> None:
    site.copy(TRANSFORMER, site.base() / "other.safetensors")
    os.truncate(site.folder / "other.safetensors", 100_000)


@CASES.case(refused(WeightsCorrupt, r"flux1-schnell-BF16\.gguf", r"cut|incomplete|download|short"))
def cut_short_gguf(site: Site) -> None:
    path = site.base(TRANSFORMER) / "flux1-schnell-BF16.gguf"
    write_gguf(path, site.tensors(TRANSFORMER))
    os.truncate(path, path.stat().st_size // 2)


# Names that are no weights --------------------------------------------------------------------------------------------


def stray(*names: str) -> Callable[[Site], None]:
    """Return a writer of a complete model with copies of the transformer under names of unfinished downloads."""

    def write(site: Site) -> None:
        site.base()
        for name in names:
            site.copy(TRANSFORMER, site.folder / name)

    return write


APPLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(4000)


@CASES.case(Same({f"._{name}": "" for name in FILES.values()}, load=False))
def appledouble_files(site: Site) -> None:
    for name in FILES.values():
        (site.base() / f"._{name}").write_bytes(APPLE)


@CASES.case(Same(load=False))
def appledouble_of_the_folder_and_ds_store(site: Site) -> None:
    (site.base() / "._.DS_Store").write_bytes(APPLE)
    (site.folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1" + bytes(6000))
    (site.folder / "Thumbs.db").write_bytes(bytes(100))
    (site.folder / "desktop.ini").write_text("[.ShellClassInfo]\n")


@CASES.case(Same(load=False))
def files_of_hf_download(site: Site) -> None:
    """`huggingface-cli download --local-dir` leaves locks and an unfinished file of the same contents."""
    cache = site.base() / ".cache" / "huggingface" / "download"
    cache.mkdir(parents=True)
    for name in FILES.values():
        (cache / f"{name}.lock").touch()
        (cache / f"{name}.metadata").write_text("commit\netag\n1.0\n")
    (cache / "flux1-schnell.safetensors.abc.incomplete").write_bytes(bytes(1000))
    (site.folder / ".cache" / "huggingface" / ".gitignore").write_text("*")
    (site.folder / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    (site.folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")


for _ending in (
    "safetensors.part",
    "safetensors.crdownload",
    "safetensors.aria2",
    "safetensors.incomplete",
    "safetensors.download",
    "safetensors.tmp",
    "safetensors~",
    "safetensors.bak",
    "safetensors.json",
    "txt",
):
    CASES.add(
        f"neighbour_{_ending.replace('safetensors', 'st').replace('.', '_')}",
        Same(load=False),
        stray(f"flux1-schnell-copy.{_ending}"),
    )
CASES.add(
    "hidden_copy_of_the_transformer",
    Same({".flux1-copy.safetensors": ""}, load=False),
    stray(".flux1-copy.safetensors"),
)


@CASES.case(Same(load=False))
def read_only_hidden_cache_dotfile(site: Site) -> None:
    site.base()
    site.copy(TRANSFORMER, site.folder / ".cache" / "flux1-schnell.safetensors")
    site.folder.chmod(0o555)


@CASES.case(Same({"model.pt": "pickle|run"}, load=False))
def pickle_in_folder(site: Site) -> None:
    torch.save({"weight": torch.ones(2)}, site.base() / "model.pt")


@CASES.case(Same({"upscale.pth": "", "flux.ckpt": "", "pytorch_model.bin": ""}, load=False))
def pickles_of_other_tools_in_folder(site: Site) -> None:
    site.base()
    for name in ("upscale.pth", "flux.ckpt", "pytorch_model.bin"):
        torch.save({"weight": torch.ones(2)}, site.folder / name)


@CASES.case(refused(WeightsUnsafe, r"flux1-schnell\.safetensors", "pickle", "run|execut"))
def pickle_named_safetensors_in_place_of_the_transformer(site: Site) -> None:
    torch.save({"weight": torch.ones(2)}, site.base(TRANSFORMER) / FILES[TRANSFORMER])


@CASES.case(refused(WeightsError, r"clip_l\.(bin|ckpt|pt)", "pickle"))
def pickle_in_place_of_clip(site: Site) -> None:
    torch.save({"weight": torch.ones(2)}, site.base(CLIP) / "clip_l.bin")


@CASES.case(Same(load=False))
def dangling_link_in_folder(site: Site) -> None:
    (site.base() / "other.safetensors").symlink_to(site.root / "nowhere.safetensors")


@CASES.case(refused(WeightsError, r"clip_l\.safetensors"))
def dangling_link_in_place_of_clip(site: Site) -> None:
    (site.base(CLIP) / FILES[CLIP]).symlink_to(site.root / "nowhere.safetensors")


@CASES.case(Same(load=False))
def link_to_itself_in_folder(site: Site) -> None:
    (site.base() / "loop.safetensors").symlink_to("loop.safetensors")
    (site.folder / "inner").symlink_to(site.folder)


@CASES.case(Same(load=False))
def folder_named_like_weights_in_folder(site: Site) -> None:
    (site.base() / "x.safetensors").mkdir()


@CASES.case(refused(WeightsError, r"flux1-schnell\.safetensors"))
def folder_named_like_weights_in_place_of_the_transformer(site: Site) -> None:
    (site.base(TRANSFORMER) / FILES[TRANSFORMER]).mkdir()


@CASES.case(Same(load=False))
def fifo_named_like_weights_in_folder(site: Site) -> None:
    os.mkfifo(site.base() / "pipe.safetensors")


@CASES.case(refused(WeightsError, r"flux1-schnell\.safetensors"))
def fifo_in_place_of_the_transformer(site: Site) -> None:
    os.mkfifo(site.base(TRANSFORMER) / FILES[TRANSFORMER])


@CASES.case(refused(WeightsError, r"flux1-schnell\.safetensors"))
def fifo_as_the_path(site: Site) -> Path:
    path = site.base(TRANSFORMER) / FILES[TRANSFORMER]
    os.mkfifo(path)
    return path


@CASES.case(refused(WeightsError, "null"))
def device_as_the_path(site: Site) -> Path:
    return Path("/dev/null")


@CASES.case(Same(load=False))
def folder_with_thousands_of_small_files(site: Site) -> None:
    folder = site.base() / "outputs"
    folder.mkdir()
    for i in range(3000):
        (folder / f"{i}.txt").touch()
        (site.folder / f"image-{i}.png").touch()


@CASES.case(Same(load=False))
def the_same_file_twice_by_a_link(site: Site) -> None:
    """A link next to the file that it points at is one file, not two transformers."""
    (site.base() / "flux.safetensors").symlink_to(FILES[TRANSFORMER])


@CASES.case(refused(WeightsCorrupt, r"flux1-schnell\.safetensors", r"copy\.safetensors", "twice|two|both"))
def the_same_transformer_twice_by_a_copy(site: Site) -> None:
    stray("copy.safetensors")(site)


@CASES.case(refused(WeightsCorrupt, r"flux1-schnell\.safetensors", r"img_in\.weight"))
def one_value_not_a_number(site: Site) -> None:
    tensors = load_file(site.base() / FILES[TRANSFORMER])
    tensors["img_in.weight"][3, 5] = float("nan")
    save_file(tensors, site.folder / FILES[TRANSFORMER])


def rewritten(change: Callable[[dict[str, object], bytes], bytes], length: int | None = None) -> Callable[[Site], None]:
    """Return a writer that changes the header of the transformer's file. length: added to the header's length."""

    def write(site: Site) -> None:
        path = site.base() / FILES[TRANSFORMER]
        stored = path.read_bytes()
        size = int.from_bytes(stored[:8], "little")
        header, data = json.loads(stored[8 : 8 + size]), stored[8 + size :]
        data = change(header, data)
        write_header(path, header, data, length and size + length)

    return write


# Writers before safetensors 0.3 did not align the data.
CASES.add("header_of_odd_length", Same(), rewritten(lambda _, data: data, 1001))


def shifted(header: dict[str, object], data: bytes) -> bytes:
    """Let a tensor begin where another one does."""
    entries = [entry for entry in header.values() if isinstance(entry, dict) and "data_offsets" in entry]
    same = [entry for entry in entries if entry["shape"] == [64, 64]]
    same[1]["data_offsets"] = same[0]["data_offsets"]
    return data


CASES.add("two_tensors_at_one_place", refused(WeightsCorrupt, r"flux1-schnell\.safetensors"), rewritten(shifted))


def negative(header: dict[str, object], data: bytes) -> bytes:
    header["img_in.weight"]["shape"] = [-64, -16]
    return data


CASES.add("negative_shape", refused(WeightsCorrupt, r"flux1-schnell\.safetensors"), rewritten(negative))


@CASES.case(refused(WeightsCorrupt, r"flux1-schnell\.safetensors"))
def name_twice_in_the_header(site: Site) -> None:
    path = site.base() / FILES[TRANSFORMER]
    stored = path.read_bytes()
    size = int.from_bytes(stored[:8], "little")
    entry = b'"img_in.bias":' + json.dumps(json.loads(stored[8 : 8 + size])["img_in.bias"]).encode()
    header = stored[8 : 8 + size].rstrip()[:-1] + b"," + entry + b"}"
    path.write_bytes(len(header).to_bytes(8, "little") + header + stored[8 + size :])
