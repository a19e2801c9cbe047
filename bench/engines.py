"""The engines that `peers.py` compares, all with the same random weights in FLUX.1's widths.

An engine loads a `Part` and returns a `Run`, which does the part's work once and returns its seconds. Every engine runs
in a process of its own, with THREADS threads. The transformer has 2 double and 4 single blocks of FLUX.1's 19 and 38,
T5 has T5_LAYERS of its 24; their seconds have to be scaled to those of the whole networks.

Some engines load a file that is converted from our weights first (`CONVERSIONS`, kept in FOLDER). A conversion takes
more memory than the loaded engine, so it runs in a process of its own, before any engine is loaded.
"""

import ctypes
import gc
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from allaprima.flux import SCHNELL, Autoencoder, CLIPTextEncoder, Flux, T5Encoder, never_cancelled
from allaprima.flux.latents import image_ids, text_ids
from allaprima.kernels import Int8Linear, Linear

THREADS = 2
#: Converted files, kept from run to run.
FOLDER = Path("build/peers")
TEXT_TOKENS = 256
T5_LAYERS = 6
TRANSFORMER = replace(SCHNELL.transformer, depth=2, depth_single_blocks=4)
T5 = replace(SCHNELL.t5, num_layers=T5_LAYERS)

Run = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Part:
    """A network of FLUX.1, and the size in pixels of the image that it works on."""

    network: str
    width: int = 0
    height: int = 0

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image tokens."""
        return self.height // 16, self.width // 16


PARTS = {
    "transformer 512x512": Part("transformer", 512, 512),
    "transformer 1024x768": Part("transformer", 1024, 768),
    "T5, 256 tokens": Part("t5"),
    "decode 512x512": Part("decoder", 512, 512),
}


def network(part: Part) -> nn.Module:
    """Return our network of a part in bfloat16, with the same random weights in every process."""
    torch.manual_seed(0)
    builders: dict[str, Callable[[], nn.Module]] = {
        "transformer": lambda: Flux(TRANSFORMER),
        "t5": lambda: T5Encoder(T5),
        "decoder": lambda: Autoencoder(SCHNELL.autoencoder),
        "clip": lambda: CLIPTextEncoder(SCHNELL.clip),
    }
    with torch.device("meta"):
        model = builders[part.network]().bfloat16()
    model.to_empty(device="cpu")
    for name, parameter in model.named_parameters():
        mean = 1.0 if "norm" in name and name.endswith(("weight", "scale")) else 0.0
        parameter.data.normal_(mean, parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.02)
    return model.eval().requires_grad_(requires_grad=False)


def timed(work: Callable[[], object]) -> Run:
    """Return a run that calls `work`."""

    def run() -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            work()
        return time.perf_counter() - started

    return run


def transformer_inputs(part: Part) -> dict[str, Tensor]:
    """Return the transformer's inputs by the names of our arguments."""
    generator = torch.Generator().manual_seed(1)
    rows, columns = part.grid
    return {
        "img": torch.randn(1, rows * columns, 64, generator=generator),
        "img_ids": image_ids(rows, columns),
        "txt": torch.randn(1, TEXT_TOKENS, 4096, generator=generator).bfloat16(),
        "txt_ids": text_ids(TEXT_TOKENS),
        "timesteps": torch.tensor([1.0]),
        "y": torch.randn(1, 768, generator=generator).bfloat16(),
    }


def latents(part: Part) -> Tensor:
    """Return the latents that the autoencoder decodes: (1, 16, height / 8, width / 8), bfloat16."""
    return torch.randn(1, 16, part.height // 8, part.width // 8, generator=torch.Generator().manual_seed(2)).bfloat16()


def token_ids() -> Tensor:
    """Return the token ids that T5 encodes: (1, TEXT_TOKENS)."""
    return torch.randint(0, T5.vocab_size, (1, TEXT_TOKENS), generator=torch.Generator().manual_seed(3))


def run_ours(model: nn.Module, part: Part) -> Run:
    """Return a run of one of our networks. A call of the transformer computes its modulations."""
    if isinstance(model, Flux):
        inputs = transformer_inputs(part)
        return timed(lambda: model(**inputs))
    if isinstance(model, T5Encoder):
        ids = token_ids()
        return timed(lambda: model(ids))
    assert isinstance(model, Autoencoder)
    z = latents(part)
    return timed(lambda: model.decode(z, never_cancelled))


def ours_bf16(part: Part) -> Run:
    """allaprima in bfloat16."""
    return run_ours(network(part), part)


def ours_int8(part: Part) -> Run:
    """allaprima in int8: the linears of the blocks, as with `--precision int8`."""
    model = network(part)
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear) and "block" in name:
            packed = Int8Linear.like(module, torch.bfloat16)
            state = packed.pack(module.weight.data) | ({} if module.bias is None else {"bias": module.bias.data})
            packed.load_state_dict(state, assign=True)
            model.set_submodule(name, packed)
    return run_ours(model, part)


def oracle(part: Part) -> nn.Module:
    """Return the network of diffusers or transformers with our weights, in bfloat16."""
    from tests.flux import oracles

    model = network(part)
    # The oracles are built in the default dtype: float32 would take twice the memory until it is converted.
    torch.set_default_dtype(torch.bfloat16)
    try:
        if isinstance(model, Flux):
            return oracles.transformer_oracle(model).bfloat16()
        if isinstance(model, T5Encoder):
            return oracles.t5_oracle(model, T5).bfloat16()
        assert isinstance(model, Autoencoder)
        return oracles.autoencoder_oracle(model).bfloat16()
    finally:
        torch.set_default_dtype(torch.float32)


def diffusers_inputs(part: Part) -> dict[str, Tensor]:
    """Return the transformer's inputs by the names of diffusers."""
    inputs = transformer_inputs(part)
    return {
        "hidden_states": inputs["img"].bfloat16(),
        "encoder_hidden_states": inputs["txt"],
        "pooled_projections": inputs["y"],
        "timestep": inputs["timesteps"].bfloat16(),
        "img_ids": inputs["img_ids"][0],
        "txt_ids": inputs["txt_ids"][0],
    }


def run_theirs(model: nn.Module, part: Part, call: Callable[..., object] | None = None) -> Run:
    """Return a run of a network of diffusers or transformers. call: called instead of the network itself."""
    call = model if call is None else call
    if part.network == "transformer":
        inputs = diffusers_inputs(part)
        return timed(lambda: call(**inputs, return_dict=False))
    if part.network == "t5":
        ids = token_ids()
        return timed(lambda: call(input_ids=ids))
    z = latents(part) / SCHNELL.autoencoder.scale_factor + SCHNELL.autoencoder.shift_factor
    return timed(lambda: call(z))


def eager(part: Part) -> Run:
    """diffusers or transformers in eager mode."""
    model = oracle(part)
    return run_theirs(model, part, model.decoder if part.network == "decoder" else None)  # type: ignore[arg-type]


def channels_last(part: Part) -> Run:
    """The diffusers decoder in the memory format channels-last, which is faster on CPUs."""
    model = oracle(part).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    z = latents(part) / SCHNELL.autoencoder.scale_factor + SCHNELL.autoencoder.shift_factor
    z = z.contiguous(memory_format=torch.channels_last)
    return timed(lambda: model.decoder(z))


def compiled(part: Part) -> Run:
    """diffusers or transformers through `torch.compile`."""
    model = oracle(part)
    return run_theirs(model, part, torch.compile(model))


def write_openvino(path: Path, *, is_int8: bool) -> None:
    """Convert the transformer to OpenVINO's format, with weights in float16 or int8."""
    import nncf
    import openvino as ov

    # The converted shapes are dynamic, so the traced example may be small.
    part = Part("transformer", 64, 64)
    example = {name: tensor.float() for name, tensor in diffusers_inputs(part).items()}
    with torch.no_grad():
        converted = ov.convert_model(oracle(part).float(), example_input=example)
    if is_int8:
        converted = nncf.compress_weights(converted, mode=nncf.CompressWeightsMode.INT8_SYM)
    ov.save_model(converted, path)


def write_safetensors(path: Path) -> None:
    """Write the network that the file is named after, as published checkpoints have it."""
    from safetensors.torch import save_file

    save_file(dict(network(Part(path.stem)).state_dict()), path)


def openvino(part: Part, group: int | None) -> Run:
    """OpenVINO; with weights in int8 if `group` is the group size of its dynamic quantization."""
    import openvino as ov

    inputs = {name: tensor.float() for name, tensor in diffusers_inputs(part).items()}
    options = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY"}
    if group is not None:
        options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = group
    core = ov.Core()
    read = core.read_model(FOLDER / (OPENVINO_BF16 if group is None else OPENVINO_INT8))
    names = {port: port.node.friendly_name for port in read.inputs}
    read.reshape({port: list(inputs[name].shape) for port, name in names.items()})
    request = core.compile_model(read, "CPU", options).create_infer_request()
    arrays = [inputs[name].numpy() for name in names.values()]
    return timed(lambda: request.infer(arrays))


def stable_diffusion_cpp(part: Part, kind: str) -> Run:
    """stable-diffusion.cpp: the second step of an image, or the time after its last step, which is the decode."""
    from stable_diffusion_cpp import StableDiffusion

    # It needs one text encoder; CLIP is the smaller one, and T5's embeddings are then zeros. Neither is timed.
    files = {Path(name).stem: FOLDER / name for name in CHECKPOINT}
    engine = StableDiffusion(
        diffusion_model_path=str(files["transformer"]),
        vae_path=str(files["decoder"]),
        clip_l_path=str(files["clip"]),
        wtype=kind,
        n_threads=THREADS,
        verbose=False,
    )
    ends: list[float] = []

    def run() -> float:
        ends.clear()
        engine.generate_image(
            prompt="",
            width=part.width,
            height=part.height,
            sample_steps=2 if part.network == "transformer" else 1,
            cfg_scale=1.0,
            progress_callback=lambda *_: ends.append(time.perf_counter()),
        )
        done = time.perf_counter()
        return ends[-1] - ends[-2] if part.network == "transformer" else done - ends[-1]

    return run


OPENVINO_BF16, OPENVINO_INT8 = "transformer.xml", "transformer-int8.xml"
CHECKPOINT = ("transformer.safetensors", "decoder.safetensors", "clip.safetensors")
#: Converted files, with the function that writes each to a path.
CONVERSIONS: dict[str, Callable[[Path], None]] = {
    OPENVINO_BF16: partial(write_openvino, is_int8=False),
    OPENVINO_INT8: partial(write_openvino, is_int8=True),
    **dict.fromkeys(CHECKPOINT, write_safetensors),
}


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that is timed."""

    load: Callable[[Part], Run]
    networks: tuple[str, ...]
    #: The files of CONVERSIONS that it loads.
    files: tuple[str, ...] = ()


#: Prefix of the engines that run without a warm-up because they are slow; they time the second step of an image anyway.
SLOW = "stable-diffusion.cpp"
TRANSFORMERS, T5S, DECODERS = ("transformer",), ("t5",), ("decoder",)
ENGINES = {
    "allaprima int8": Engine(ours_int8, TRANSFORMERS + T5S),
    "allaprima bf16": Engine(ours_bf16, TRANSFORMERS + T5S + DECODERS),
    "diffusers bf16": Engine(eager, TRANSFORMERS + T5S + DECODERS),
    "diffusers bf16 channels-last": Engine(channels_last, DECODERS),
    "diffusers bf16 compiled": Engine(compiled, TRANSFORMERS + T5S),
    "OpenVINO bf16": Engine(partial(openvino, group=None), TRANSFORMERS, (OPENVINO_BF16,)),
    "OpenVINO int8, groups of 64": Engine(partial(openvino, group=64), TRANSFORMERS, (OPENVINO_INT8,)),
    "OpenVINO int8, groups of 128": Engine(partial(openvino, group=128), TRANSFORMERS, (OPENVINO_INT8,)),
    "stable-diffusion.cpp bf16": Engine(
        partial(stable_diffusion_cpp, kind="bf16"), TRANSFORMERS + DECODERS, CHECKPOINT
    ),
    "stable-diffusion.cpp q8_0": Engine(partial(stable_diffusion_cpp, kind="q8_0"), TRANSFORMERS, CHECKPOINT),
}


def convert(name: str) -> None:
    """Write a file of CONVERSIONS into FOLDER. A conversion that is cut off leaves no such file."""
    partial_folder = FOLDER / "partial"
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir(parents=True)
    CONVERSIONS[name](partial_folder / name)
    # OpenVINO writes the weights into a second file, `.bin`, which must be there before the `.xml`.
    for file in sorted(partial_folder.iterdir()):
        file.replace(FOLDER / file.name)
    partial_folder.rmdir()


def serve(engine: str, part: str) -> None:
    """Load one engine, and run it for every line on standard input; print the seconds.

    Except for the slow engines, an untimed run precedes every timed one: while the other engines take their turns the
    process's memory leaves the caches, and on a virtual machine it is then first read at a few GB/s, which would be
    most of a short run.
    """
    # Some engines print to standard output, which must not mix with the seconds.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(THREADS)
    run = ENGINES[engine].load(PARTS[part])
    warms = not engine.startswith(SLOW)
    if warms:
        run()
    release_memory()
    print("ready", file=replies, flush=True)
    try:
        while input() == "run":
            if warms:
                run()
            print(run(), file=replies, flush=True)
    except EOFError:
        return


def release_memory() -> None:
    """Return the heap's free pages, several GB after loading, to the system; only glibc keeps them."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
