"""The engines that `peers.py` compares, each made with the same random weights in FLUX.1's widths.

An engine is a function from a `Part` to a `Run`, which does the part's work once and returns its seconds. Every engine
runs in a process of its own, with THREADS threads. The transformer has 2 double and 4 single blocks of FLUX.1's 19 and
38, T5 has T5_LAYERS of its 24; both are scaled by whoever needs whole seconds.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from allaprima.flux import SCHNELL, Autoencoder, CLIPTextEncoder, Flux, T5Encoder, never_cancelled
from allaprima.flux.latents import image_ids, text_ids
from allaprima.kernels import Int8Linear, Linear

THREADS = 2
FOLDER = Path("build/peers")
TEXT_TOKENS = 256
T5_LAYERS = 6
TRANSFORMER = replace(SCHNELL.transformer, depth=2, depth_single_blocks=4)
T5 = replace(SCHNELL.t5, num_layers=T5_LAYERS)

Run = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Part:
    """What is timed."""

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
    """Return our network of a part in bfloat16; the same numbers in every process."""
    torch.manual_seed(0)
    makers: dict[str, Callable[[], nn.Module]] = {
        "transformer": lambda: Flux(TRANSFORMER),
        "t5": lambda: T5Encoder(T5),
        "decoder": lambda: Autoencoder(SCHNELL.autoencoder),
        "clip": lambda: CLIPTextEncoder(SCHNELL.clip),
    }
    with torch.device("meta"):
        made = makers[part.network]().bfloat16()
    made.to_empty(device="cpu")
    for name, parameter in made.named_parameters():
        mean = 1.0 if "norm" in name and name.endswith(("weight", "scale")) else 0.0
        parameter.data.normal_(mean, parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.02)
    return made.eval().requires_grad_(requires_grad=False)


def timed(work: Callable[[], object]) -> Run:
    """Return a run of some work."""

    def run() -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            work()
        return time.perf_counter() - started

    return run


def transformer_inputs(part: Part) -> dict[str, Tensor]:
    """Return what the transformer is given, by names of ours."""
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
    """Return what the autoencoder decodes."""
    return torch.randn(1, 16, part.height // 8, part.width // 8, generator=torch.Generator().manual_seed(2)).bfloat16()


def token_ids() -> Tensor:
    """Return what T5 reads."""
    return torch.randint(0, T5.vocab_size, (1, TEXT_TOKENS), generator=torch.Generator().manual_seed(3))


def run_ours(made: nn.Module, part: Part) -> Run:
    """Return a run of one of our networks. A transformer call has its modulations worked out in it."""
    if isinstance(made, Flux):
        inputs = transformer_inputs(part)
        return timed(lambda: made(**inputs))
    if isinstance(made, T5Encoder):
        ids = token_ids()
        return timed(lambda: made(ids))
    assert isinstance(made, Autoencoder)
    z = latents(part)
    return timed(lambda: made.decode(z, never_cancelled))


def ours_bf16(part: Part) -> Run:
    """allaprima in bfloat16."""
    return run_ours(network(part), part)


def ours_int8(part: Part) -> Run:
    """allaprima in int8: the linears of the blocks, as `--precision int8` has them."""
    made = network(part)
    for name, module in list(made.named_modules()):
        if isinstance(module, Linear) and "block" in name:
            packed = Int8Linear.like(module, torch.bfloat16)
            state = packed.pack(module.weight.data) | ({} if module.bias is None else {"bias": module.bias.data})
            packed.load_state_dict(state, assign=True)
            made.set_submodule(name, packed)
    return run_ours(made, part)


def oracle(part: Part) -> nn.Module:
    """Return the counterpart of diffusers or transformers, with our numbers, in bfloat16."""
    from tests.flux import oracles

    made = network(part)
    if isinstance(made, Flux):
        return oracles.transformer_oracle(made).bfloat16()
    if isinstance(made, T5Encoder):
        return oracles.t5_oracle(made, T5).bfloat16()
    assert isinstance(made, Autoencoder)
    return oracles.autoencoder_oracle(made).bfloat16()


def diffusers_inputs(part: Part) -> dict[str, Tensor]:
    """Return what the transformer is given, by names of diffusers."""
    inputs = transformer_inputs(part)
    return {
        "hidden_states": inputs["img"].bfloat16(),
        "encoder_hidden_states": inputs["txt"],
        "pooled_projections": inputs["y"],
        "timestep": inputs["timesteps"].bfloat16(),
        "img_ids": inputs["img_ids"][0],
        "txt_ids": inputs["txt_ids"][0],
    }


def run_theirs(made: nn.Module, part: Part, call: Callable[..., object] | None = None) -> Run:
    """Return a run of a network of theirs. call: what does it, if not the network itself."""
    call = made if call is None else call
    if part.network == "transformer":
        inputs = diffusers_inputs(part)
        return timed(lambda: call(**inputs, return_dict=False))
    if part.network == "t5":
        ids = token_ids()
        return timed(lambda: call(input_ids=ids))
    z = latents(part) / SCHNELL.autoencoder.scale_factor + SCHNELL.autoencoder.shift_factor
    return timed(lambda: call(z))


def eager(part: Part) -> Run:
    """diffusers or transformers as they are."""
    made = oracle(part)
    return run_theirs(made, part, made.decoder if part.network == "decoder" else None)  # type: ignore[arg-type]


def channels_last(part: Part) -> Run:
    """The diffusers decoder with the pixels' channels side by side, which CPUs prefer."""
    made = oracle(part).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    z = latents(part) / SCHNELL.autoencoder.scale_factor + SCHNELL.autoencoder.shift_factor
    z = z.contiguous(memory_format=torch.channels_last)
    return timed(lambda: made.decoder(z))


def compiled(part: Part) -> Run:
    """diffusers or transformers through `torch.compile`."""
    made = oracle(part)
    return run_theirs(made, part, torch.compile(made))


def openvino(part: Part, group: int | None) -> Run:
    """OpenVINO; with weights in int8 where a group size of its dynamic quantisation is given."""
    import nncf
    import openvino as ov

    path = FOLDER / f"{part.network}{'' if group is None else '-int8'}.xml"
    inputs = {name: tensor.float() for name, tensor in diffusers_inputs(part).items()}
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            converted = ov.convert_model(oracle(part).float(), example_input=inputs)
        if group is not None:
            converted = nncf.compress_weights(converted, mode=nncf.CompressWeightsMode.INT8_SYM)
        ov.save_model(converted, path)
    options = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY"}
    if group is not None:
        options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = group
    core = ov.Core()
    read = core.read_model(path)
    names = {port: port.node.friendly_name for port in read.inputs}
    read.reshape({port: list(inputs[name].shape) for port, name in names.items()})
    request = core.compile_model(read, "CPU", options).create_infer_request()
    arrays = [inputs[name].numpy() for name in names.values()]
    return timed(lambda: request.infer(arrays))


def stable_diffusion_cpp(part: Part, kind: str) -> Run:
    """stable-diffusion.cpp: the second step of a picture, or what it does behind its last step, which is the decode."""
    from safetensors.torch import save_file
    from stable_diffusion_cpp import StableDiffusion

    FOLDER.mkdir(parents=True, exist_ok=True)
    # It wants a text encoder, if only CLIP's, which counts for neither part; T5's tokens are zeros then.
    files = {name: FOLDER / f"{name}.safetensors" for name in ("transformer", "decoder", "clip")}
    for name, file in files.items():
        if not file.exists():
            save_file(dict(network(Part(name)).state_dict()), file)
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


#: How the names begin of engines so slow that they are run without being warmed: they time a second step anyway.
SLOW = "stable-diffusion.cpp"
TRANSFORMERS, T5S, DECODERS = ("transformer",), ("t5",), ("decoder",)
#: Every engine, with the networks that it is timed on.
ENGINES: dict[str, tuple[Callable[[Part], Run], tuple[str, ...]]] = {
    "allaprima int8": (ours_int8, TRANSFORMERS + T5S),
    "allaprima bf16": (ours_bf16, TRANSFORMERS + T5S + DECODERS),
    "diffusers bf16": (eager, TRANSFORMERS + T5S + DECODERS),
    "diffusers bf16 channels-last": (channels_last, DECODERS),
    "diffusers bf16 compiled": (compiled, TRANSFORMERS + T5S),
    "OpenVINO bf16": (lambda part: openvino(part, None), TRANSFORMERS),
    "OpenVINO int8, groups of 64": (lambda part: openvino(part, 64), TRANSFORMERS),
    "OpenVINO int8, groups of 128": (lambda part: openvino(part, 128), TRANSFORMERS),
    "stable-diffusion.cpp bf16": (lambda part: stable_diffusion_cpp(part, "bf16"), TRANSFORMERS + DECODERS),
    "stable-diffusion.cpp q8_0": (lambda part: stable_diffusion_cpp(part, "q8_0"), TRANSFORMERS),
}


def serve(engine: str, part: str) -> None:
    """Make one engine, and run it for every line on standard input; print the seconds.

    But for the slow ones every run is timed behind one unseen: after the others' turns the memory of a process is cold,
    and on a rented machine comes back at a few GB/s, which would be most of a short run of whoever it is.
    """
    # Some engines print: what they print must not mix with the seconds.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(THREADS)
    run = ENGINES[engine][0](PARTS[part])
    warms = not engine.startswith(SLOW)
    if warms:
        run()
    print("ready", file=replies, flush=True)
    try:
        while input() == "run":
            if warms:
                run()
            print(run(), file=replies, flush=True)
    except EOFError:
        return
