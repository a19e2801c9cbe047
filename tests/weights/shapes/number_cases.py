"""Number formats (page 1.1, S1, R9, M1): each is read within its loss, or refused by name."""

import json
from collections.abc import Callable

import torch

from allaprima.errors import WeightsCorrupt
from tests.weights.published import Tensors
from tests.weights.shapes.case import CLIP, T5, TRANSFORMER, Cases, Outcome, Right, Same, Site, Write, refused
from tests.weights.shapes.quantizers import Change, bytes_tensor, in_bnb4, in_dtype, int8_rows, rotated, scaled
from tests.weights.shapes.stored import write_stored
from tests.weights.shapes.transformer_cases import BUNDLE, PREFIX, bundle, diffusers_tensors, prefixed, replaced

CASES = Cases()
#: The loss of each format, as a share of a tensor's norm.
E4M3, E5M2, NF4, FP4 = 0.04, 0.07, 0.11, 0.16
FILE = r"flux1-schnell\.safetensors"


def add(name: str, outcome: Outcome, change: Change, metadata: dict[str, str] | None = None) -> None:
    CASES.add(name, outcome, replaced(change, metadata))


def quant_metadata(change: Change, form: str) -> Change:
    """Return a function that also drops the markers: the format is in the header's metadata alone."""
    return lambda t: {name: one for name, one in change(t).items() if not name.endswith(".comfy_quant")}


def layer_metadata(form: str) -> dict[str, str]:
    """Return ComfyUI's metadata that declares one format for each linear layer of the tiny transformer."""
    names = [f"{kind}_blocks.{i}." for i in range(2) for kind in ("double", "single")]
    double = ("img_mod.lin", "img_attn.qkv", "img_attn.proj", "img_mlp.0", "img_mlp.2")
    double = (*double, *(name.replace("img", "txt") for name in double))
    layers = [
        name + leaf
        for name in names
        for leaf in (double if "double" in name else ("linear1", "linear2", "modulation.lin"))
    ]
    layers += ["img_in", "txt_in", "time_in.in_layer", "time_in.out_layer", "vector_in.in_layer", "vector_in.out_layer"]
    layers += ["final_layer.linear", "final_layer.adaLN_modulation.1"]
    return {
        "_quantization_metadata": json.dumps(
            {"format_version": "1.0", "layers": {name: {"format": form} for name in layers}}
        )
    }


# float8 ---------------------------------------------------------------------------------------------------------------

add("bfl_f64", Same(), in_dtype(torch.float64))
add("kijai_e4m3fn", Right(E4M3), in_dtype(torch.float8_e4m3fn))
add("kijai_e5m2", Right(E5M2), in_dtype(torch.float8_e5m2))
for _dtype, _bound in ((torch.float8_e4m3fn, E4M3), (torch.float8_e5m2, E5M2)):
    for _shape in ((), (1,), (1, 1)):
        for _marker in (torch.zeros(2).to(_dtype), torch.zeros(0)):
            add(
                f"fp8_scaled_{str(_dtype)[-6:]}_scale{len(_shape)}d_marker{_marker.numel()}",
                Right(_bound),
                lambda t, d=_dtype, s=_shape, m=_marker: scaled(".scale_weight", d, s)(t) | {"scaled_fp8": m},
            )
add(
    "fp8_scaled_with_scale_input",
    Right(E4M3),
    lambda t: (
        scaled(".scale_weight")(t)
        | {name.replace(".weight", ".scale_input"): torch.tensor(3.0) for name in t if name.endswith("lin.weight")}
        | {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
    ),
)
add(
    "fp8_scaled_prefixed_with_prefixed_marker",
    Right(E4M3),
    lambda t: prefixed(PREFIX, scaled(".scale_weight")(t) | {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}),
)
for _form, _dtype, _bound in (
    ("float8_e4m3fn", torch.float8_e4m3fn, E4M3),
    ("float8_e5m2", torch.float8_e5m2, E5M2),
):
    _name = _form.removeprefix("float8_")
    _marker_text = json.dumps({"format": _form})
    add(f"comfy_quant_{_name}", Right(_bound), scaled(dtype=_dtype, marker=_marker_text))
    add(
        f"comfy_quant_{_name}_full_precision",
        Right(_bound),
        scaled(dtype=_dtype, marker=json.dumps({"format": _form, "full_precision_matrix_mult": True})),
    )
    add(f"comfy_metadata_only_{_name}", Right(_bound), scaled(dtype=_dtype), layer_metadata(_form))
    add(
        f"comfy_quant_u8_container_{_name}",
        Right(_bound),
        scaled(dtype=_dtype, container=torch.uint8, marker=_marker_text),
    )
    add(
        f"comfy_metadata_only_u8_container_{_name}",
        Right(_bound),
        scaled(dtype=_dtype, container=torch.uint8),
        layer_metadata(_form),
    )
    add(
        f"u8_container_without_declaration_{_name}",
        refused(WeightsCorrupt, FILE, r"\.weight", "uint8|U8|integer"),
        scaled(dtype=_dtype, container=torch.uint8),
    )
    add(
        f"i8_container_without_declaration_{_name}",
        refused(WeightsCorrupt, FILE, r"\.weight", "int8|I8|integer"),
        scaled(dtype=_dtype, container=torch.int8),
    )
add(
    "comfy_quant_with_input_scale",
    Right(E4M3),
    lambda t: (
        scaled(marker='{"format": "float8_e4m3fn"}')(t)
        | {name.replace(".weight", ".input_scale"): torch.tensor(0.5) for name in t if name.endswith("lin.weight")}
    ),
)
add(
    "comfy_quant_prefixed",
    Right(E4M3),
    lambda t: prefixed(PREFIX, scaled(marker='{"format": "float8_e4m3fn"}')(t)),
)
add(
    "comfy_quant_declares_e4m3fn_and_stores_bf16",
    refused(WeightsCorrupt, FILE, "float8_e4m3fn", "bfloat16|BF16"),
    lambda t: {name: t.get(name, one) for name, one in scaled(marker='{"format": "float8_e4m3fn"}')(t).items()},
)
add(
    "comfy_quant_declares_e4m3fn_and_stores_e5m2",
    refused(WeightsCorrupt, FILE, "float8_e4m3fn", "e5m2|E5M2"),
    scaled(dtype=torch.float8_e5m2, marker='{"format": "float8_e4m3fn"}'),
)
add(
    "comfy_quant_declares_e5m2_and_stores_e4m3fn",
    refused(WeightsCorrupt, FILE, "float8_e5m2", "e4m3|E4M3"),
    scaled(marker='{"format": "float8_e5m2"}'),
)
add(
    "comfy_quant_marker_is_no_json",
    refused(WeightsCorrupt, FILE, r"comfy_quant"),
    scaled(marker="{format: float8_e4m3fn"),
)
add("comfy_quant_marker_is_a_list", refused(WeightsCorrupt, FILE, r"comfy_quant"), scaled(marker="[1]"))
add("comfy_quant_marker_without_format", refused(WeightsCorrupt, FILE, r"comfy_quant"), scaled(marker="{}"))
add(
    "comfy_quant_marker_format_is_a_number",
    refused(WeightsCorrupt, FILE, r"comfy_quant"),
    scaled(marker='{"format": 8}'),
)
add(
    "comfy_metadata_is_no_json",
    refused(WeightsCorrupt, FILE, "_quantization_metadata"),
    scaled(),
    {"_quantization_metadata": "{"},
)


def bf16_with_scale(t: Tensors) -> Tensors:
    """Return bfloat16 weights and a scale that is not one: no header says whether it is applied already."""
    return t | {"img_in.weight_scale": torch.tensor(0.01)}


add("bf16_weight_with_a_scale", refused(WeightsCorrupt, FILE, r"img_in\.weight"), bf16_with_scale)
add(
    "scale_is_not_a_number",
    refused(WeightsCorrupt, FILE, r"scale"),
    lambda t: scaled(marker='{"format": "float8_e4m3fn"}')(t) | {"img_in.weight_scale": torch.tensor(float("nan"))},
)
add(
    "scale_is_zero",
    refused(WeightsCorrupt, FILE, r"img_in"),
    lambda t: scaled(marker='{"format": "float8_e4m3fn"}')(t) | {"img_in.weight_scale": torch.tensor(0.0)},
)
add(
    "fp8_quantised_diffusers_names",
    Right(E4M3),
    in_dtype(torch.float8_e4m3fn),
)


@CASES.case(Right(E4M3))
def fp8_scaled_in_diffusers_names(site: Site) -> None:
    site.replace(TRANSFORMER, scaled(marker='{"format": "float8_e4m3fn"}')(diffusers_tensors(site)))


# int8 -----------------------------------------------------------------------------------------------------------------

_INT8 = r"int8|8-bit|I8"
add(
    "int8_tensorwise_scalar",
    refused(WeightsCorrupt, FILE, "int8_tensorwise"),
    scaled(dtype=torch.int8, marker='{"format": "int8_tensorwise"}'),
)
add(
    "int8_tensorwise_rows", refused(WeightsCorrupt, FILE, "int8_tensorwise"), int8_rows('{"format": "int8_tensorwise"}')
)
add(
    "int8_convrot",
    refused(WeightsCorrupt, FILE, "int8_tensorwise|convrot"),
    lambda t: int8_rows('{"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 256}')(rotated(t)),
)
add("int8_rows_without_marker", refused(WeightsCorrupt, FILE, _INT8), int8_rows())
add("int8_scalar_without_marker", refused(WeightsCorrupt, FILE, _INT8), scaled(dtype=torch.int8))
add(
    "int8_convrot_scalar_without_marker",
    refused(WeightsCorrupt, FILE, _INT8),
    lambda t: scaled(dtype=torch.int8)(rotated(t)),
)
add("int8_scale_weight_without_marker", refused(WeightsCorrupt, FILE, _INT8), scaled(".scale_weight", torch.int8))
add(
    "int8_scaled_fp8_marker",
    refused(WeightsCorrupt, FILE, _INT8),
    lambda t: scaled(".scale_weight", torch.int8)(t) | {"scaled_fp8": torch.zeros(0)},
)
add(
    "int8_declared_as_float8",
    refused(WeightsCorrupt, FILE, r"int8|I8|noise|float8"),
    scaled(dtype=torch.int8, marker='{"format": "int4_something"}'),
)


# Newer formats of ComfyUI ---------------------------------------------------------------------------------------------


def declared(form: str, dtype: torch.dtype, columns: int, scale: torch.dtype, group: int) -> Change:
    """Return a function that stores one layer in the shape of a block format: packed values and a scale for a group."""

    def change(t: Tensors) -> Tensors:
        name, (rows, width) = "double_blocks.0.img_mlp.0", t["double_blocks.0.img_mlp.0.weight"].shape
        return (
            t
            | {
                f"{name}.weight": torch.ones(rows, width // columns).to(dtype),
                f"{name}.weight_scale": torch.ones(rows, width // group).to(scale),
                f"{name}.comfy_quant": bytes_tensor(json.dumps({"format": form})),
            }
            | ({f"{name}.weight_scale_2": torch.ones(())} if form == "nvfp4" else {})
        )

    return change


for _form, _arguments in {
    "mxfp8": (torch.float8_e4m3fn, 1, torch.uint8, 32),
    "nvfp4": (torch.uint8, 2, torch.float8_e4m3fn, 16),
    "convrot_w4a4": (torch.int8, 2, torch.float32, 32),
    "asym_w4a8_int8": (torch.uint8, 2, torch.float32, 32),
    "awq_w4a16": (torch.int8, 2, torch.bfloat16, 32),
    "svdquant_w4a4": (torch.int8, 2, torch.bfloat16, 32),
}.items():
    add(_form, refused(WeightsCorrupt, FILE, f"(?i){_form}"), declared(_form, *_arguments))
    _metadata = {"_quantization_metadata": json.dumps({"layers": {"double_blocks.0.img_mlp.0": {"format": _form}}})}
    add(
        f"{_form}_declared_in_metadata_only",
        refused(WeightsCorrupt, FILE, f"(?i){_form}"),
        lambda t, a=_arguments, f=_form: {k: v for k, v in declared(f, *a)(t).items() if "comfy_quant" not in k},
        _metadata,
    )


def stored_as(dtype: str, bits: int) -> Write:
    """Return a writer of a file whose header declares a dtype for one matrix, with bytes of that size."""

    def write(site: Site) -> None:
        path = site.base(TRANSFORMER) / "flux1-schnell.safetensors"
        write_stored(path, site.tensors(TRANSFORMER), {"img_in.weight": (dtype, bits)})

    return write


for _dtype_name, _bits in {
    "F8_E8M0": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U16": 16,
    "U32": 32,
    "I16": 16,
    "I64": 64,
    "BOOL": 8,
    "C64": 64,
}.items():
    CASES.add(
        f"stored_as_{_dtype_name}",
        refused(
            WeightsCorrupt,
            FILE,
            r"img_in\.weight",
            _dtype_name if "_" in _dtype_name else rf"{_dtype_name}|int|float|bool|complex",
        ),
        stored_as(_dtype_name, _bits),
    )


# NF4 ------------------------------------------------------------------------------------------------------------------

add("nf4_v1_nested", Right(NF4), in_bnb4(nested=True))
add("nf4_v2", Right(NF4), in_bnb4())
add("nf4_prefixed", Right(NF4), lambda t: prefixed(PREFIX, in_bnb4()(t)))
add(
    "nf4_comfy2026_names",
    Right(NF4),
    lambda t: in_bnb4()({k.replace("_norm.scale", "_norm.weight"): v for k, v in t.items()}),
)
add("nf4_blocks_only", Right(NF4), in_bnb4("blocks."))
add("nf4_one_layer_only", Right(NF4), in_bnb4("single_blocks.0.linear1"))
add("fp4_bnb", Right(FP4), in_bnb4(kind="fp4"))
add("fp4_bnb_nested", Right(FP4), in_bnb4(kind="fp4", nested=True))
for _block in (128, 256, 512, 1024, 4096):
    add(f"nf4_block_{_block}", Right(0.17), in_bnb4(block=_block))
add("nf4_nested_block_128", Right(0.13), in_bnb4(nested=True, block=128))


@CASES.case(Right(NF4))
def nf4_forge_bundle(site: Site) -> None:
    """lllyasviel's bundle: the transformer in NF4, T5 in float8, CLIP and the autoencoder as they are."""
    path = bundle(site, prefixes={name: prefix for name, prefix in BUNDLE.items() if name not in (TRANSFORMER, T5)})
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors |= prefixed(PREFIX, in_bnb4(nested=True)(site.tensors(TRANSFORMER)))
    tensors |= prefixed(BUNDLE[T5], in_dtype(torch.float8_e4m3fn)(site.tensors(T5)))
    save_file(tensors, path)


@CASES.case(Right(NF4))
def nf4_invokeai_starter(site: Site) -> None:
    """InvokeAI's starter: bare names, double quantisation, T5 elsewhere."""
    site.replace(TRANSFORMER, in_bnb4(nested=True)(site.tensors(TRANSFORMER)), {"format": "pt"})


@CASES.case(Right(NF4))
def nf4_diffusers_names(site: Site) -> None:
    site.replace(TRANSFORMER, in_bnb4()(diffusers_tensors(site)))


@CASES.case(Right(NF4))
def nf4_diffusers_names_nested(site: Site) -> None:
    site.replace(TRANSFORMER, in_bnb4(nested=True)(diffusers_tensors(site)))


@CASES.case(Right(NF4))
def nf4_diffusers_names_only_a_part_of_a_fused_layer(site: Site) -> None:
    site.replace(TRANSFORMER, in_bnb4("attn.to_k")(diffusers_tensors(site)))


for _nested in (False, True):
    CASES.add(
        f"nf4_t5{'_nested' * _nested}",
        Right(NF4),
        replaced(in_bnb4(nested=_nested), component=T5),
    )
CASES.add("nf4_clip", Right(NF4), replaced(in_bnb4(), component=CLIP))


@CASES.case(Right(NF4))
def nf4_t5_and_transformer(site: Site) -> None:
    from safetensors.torch import save_file

    site.replace(TRANSFORMER, in_bnb4(nested=True)(site.tensors(TRANSFORMER)))
    save_file(in_bnb4(nested=True)(site.tensors(T5)), site.folder / "t5xxl_fp16.safetensors")


@CASES.case(Right(NF4))
def nf4_fp16_scales(site: Site) -> None:
    """Some converters store absmax in the dtype of the other weights."""
    tensors = in_bnb4()(site.tensors(TRANSFORMER))
    site.replace(TRANSFORMER, {k: v.half() if k.endswith(".absmax") else v for k, v in tensors.items()})


LAYER = "double_blocks.0.img_mlp.0.weight"
STATE = f"{LAYER}.quant_state.bitsandbytes__nf4"


def damaged(change: Callable[[Tensors], object], *, nested: bool = True) -> Change:
    """Return a function that damages one tensor, a function of the tensors, of a file in NF4."""

    def make(t: Tensors) -> Tensors:
        tensors = in_bnb4(nested=nested)(t)
        change(tensors)
        return tensors

    return make


def with_state(**fields: object) -> Callable[[Tensors], None]:
    """Return a function that changes fields of one layer's state; None removes a field."""

    def change(tensors: Tensors) -> None:
        state = json.loads(bytes(tensors[STATE].tolist())) | fields
        state = {name: value for name, value in state.items() if value is not None}
        tensors[STATE] = bytes_tensor(json.dumps(state))

    return change


_MLP = r"double_blocks\.0\.img_mlp\.0"
for _name, _change in {
    "nested_absmax_missing": lambda t: t.pop(f"{LAYER}.nested_absmax"),
    "nested_quant_map_missing": lambda t: t.pop(f"{LAYER}.nested_quant_map"),
    "absmax_missing": lambda t: t.pop(f"{LAYER}.absmax"),
    "quant_map_missing": lambda t: t.pop(f"{LAYER}.quant_map"),
    "state_missing": lambda t: t.pop(STATE),
    "weight_missing": lambda t: t.pop(LAYER),
    "absmax_too_short": lambda t: t.update({f"{LAYER}.absmax": t[f"{LAYER}.absmax"][:-1].clone()}),
    "nested_absmax_too_long": lambda t: t.update({f"{LAYER}.nested_absmax": torch.ones(2)}),
    "packed_too_short": lambda t: t.update({LAYER: t[LAYER][:-1].clone()}),
    "packed_in_float": lambda t: t.update({LAYER: t[LAYER].float()}),
    "quant_map_of_8": lambda t: t.update({f"{LAYER}.quant_map": torch.ones(8)}),
    "nested_quant_map_of_16": lambda t: t.update({f"{LAYER}.nested_quant_map": torch.ones(16)}),
    "quant_map_not_finite": lambda t: t.update({f"{LAYER}.quant_map": torch.full((16,), float("inf"))}),
    "nested_absmax_not_finite": lambda t: t.update({f"{LAYER}.nested_absmax": torch.tensor([float("nan")])}),
    "all_scales_zero": lambda t: t.update({f"{LAYER}.absmax": torch.zeros(256, dtype=torch.float32)}),
    "state_is_no_json": lambda t: t.update({STATE: bytes_tensor("{" * 40)}),
    "state_is_a_list": lambda t: t.update({STATE: bytes_tensor("[]")}),
    "state_is_no_utf8": lambda t: t.update({STATE: torch.full((30,), 0xFF, dtype=torch.uint8)}),
    "state_deeply_nested": lambda t: t.update({STATE: bytes_tensor("[" * 50_000)}),
    "state_empty": lambda t: t.update({STATE: torch.zeros(0, dtype=torch.uint8)}),
    "shape_lies": with_state(shape=[64, 257]),
    "shape_transposed": with_state(shape=[64, 256]),
    "shape_negative": with_state(shape=[-256, -64]),
    "shape_huge": with_state(shape=[2**40, 2**20]),
    "shape_missing": with_state(shape=None),
    "shape_text": with_state(shape="256x64"),
    "shape_float": with_state(shape=[256.0, 64.5]),
    "blocksize_zero": with_state(blocksize=0),
    "blocksize_negative": with_state(blocksize=-64),
    "blocksize_other": with_state(blocksize=128),
    "blocksize_missing": with_state(blocksize=None),
    "nested_blocksize_zero": with_state(nested_blocksize=0),
    "nested_offset_missing": with_state(nested_offset=None),
    "nested_offset_infinite": with_state(nested_offset=float("inf")),
    "nested_offset_text": with_state(nested_offset="0.1"),
    "type_fp4_in_state": with_state(quant_type="fp4"),
}.items():
    add(f"nf4_{_name}", refused(WeightsCorrupt, FILE, _MLP), damaged(_change))
add(
    "nf4_float_absmax_shape_of_zero_scales",
    refused(WeightsCorrupt, FILE, _MLP, "zero"),
    damaged(lambda t: t[f"{LAYER}.absmax"].zero_(), nested=False),
)
add(
    "nf4_absmax_not_finite",
    refused(WeightsCorrupt, FILE, _MLP),
    damaged(lambda t: t[f"{LAYER}.absmax"].fill_(float("nan")), nested=False),
)

add(
    "comfy_quant_scale_missing",
    refused(WeightsCorrupt, FILE, r"img_in"),
    lambda t: {k: v for k, v in scaled(marker='{"format": "float8_e4m3fn"}')(t).items() if k != "img_in.weight_scale"},
)
add(
    "comfy_metadata_only_scale_missing",
    refused(WeightsCorrupt, FILE, r"img_in"),
    lambda t: {k: v for k, v in scaled()(t).items() if k != "img_in.weight_scale"},
    layer_metadata("float8_e4m3fn"),
)
add(
    "two_scales_of_one_layer",
    refused(WeightsCorrupt, FILE, r"img_in"),
    lambda t: scaled()(t) | {"img_in.scale_weight": torch.tensor(0.5)},
)
add(
    "scale_infinite",
    refused(WeightsCorrupt, FILE, r"img_in"),
    lambda t: scaled()(t) | {"img_in.weight_scale": torch.tensor(float("inf"))},
)
add(
    "scale_of_two_values",
    refused(WeightsCorrupt, FILE, r"img_in"),
    lambda t: scaled()(t) | {"img_in.weight_scale": torch.ones(2)},
)
add(
    "scale_stored_as_integer",
    refused(WeightsCorrupt, FILE, r"img_in"),
    lambda t: scaled()(t) | {"img_in.weight_scale": torch.ones((), dtype=torch.int32)},
)
for _dtype_name in ("F8_E4M3FNUZ", "F8_E5M2FNUZ", "Q4", "f16"):
    CASES.add(
        f"stored_as_{_dtype_name}_unknown_to_safetensors",
        refused(WeightsCorrupt, FILE),
        stored_as(_dtype_name, 8),
    )
for _nested in (False, True):
    for _part in ("the_tail", "one_matrix"):

        def _zeros(site: Site, nested: bool = _nested, part: str = _part) -> None:
            """Zero bytes are -1 times the scale in NF4, which no check of the values would find."""
            tensors = in_bnb4(nested=nested)(site.tensors(TRANSFORMER))
            if part == "one_matrix":
                tensors[LAYER].zero_()
            path = site.replace(TRANSFORMER, tensors)
            if part == "the_tail":
                size = path.stat().st_size
                with path.open("r+b") as file:
                    file.seek(size * 2 // 3)
                    file.write(bytes(size - file.tell()))

        CASES.add(f"nf4_zeros_in_{_part}{'_nested' * _nested}", refused(WeightsCorrupt, FILE, "zero"), _zeros)
