"""`python -m training`: train the built-in model from random weights, in four fits.

Each fit runs for the given minutes and saves checkpoints in the work folder, so the same command resumes an interrupted
run. See `docs/explanation/training.md`.
"""

import argparse
import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from allaprima.domain.models import SKETCH_ID, Precision
from allaprima.flux import SKETCH, Autoencoder, meta_device
from allaprima.weights.builtin import save_model
from allaprima.weights.networks import Networks
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from allaprima.weights.tokenizers import word_tokenizer
from training.data.art import Art
from training.data.batches import LatentStore, Mix
from training.data.cached_latents import build_buckets
from training.data.captions import vocabulary
from training.data.latent_sprites import SpriteExtractor, build_sprites
from training.data.rendering import SceneRenderer
from training.evaluate.evaluator import load_evaluator
from training.fit.autoencoder import fit_autoencoder, fit_decoder
from training.fit.flow import BATCH, FLOW_CHECKPOINT, FLOW_SEED, SPARSE_UNTIL, FlowNetworks, fit_flow, flow_optimizers
from training.fit.loop import Fit
from training.fit.snapshots import take_snapshot
from training.fit.text_encoders import AppearanceTargets, pretrain_text_encoders

#: File of the fitted autoencoder in the work folder, in bfloat16. Its encoder is final; `fit_decoder` then fits its
#: decoder further.
AUTOENCODER = "autoencoder.safetensors"


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the arguments. For an invalid value its error names the option."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/train"), help="folder of checkpoints")
    parser.add_argument("--art", type=Path, default=Path("build/art"), help="folder of the art package")
    parser.add_argument("--out", type=Path, default=sketch_folder(), help="folder of the model to write")
    parser.add_argument("--autoencoder-minutes", type=_minutes, default=100)
    parser.add_argument("--decoder-minutes", type=_minutes, default=20)
    parser.add_argument("--text-encoder-minutes", type=_minutes, default=10)
    parser.add_argument("--flow-minutes", type=_minutes, default=310)
    parser.add_argument(
        "--scenes",
        type=_number,
        default=20000,
        help="number of scenes to draw for the flow; the autoencoder uses a tenth",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="device of the fits")
    parser.add_argument("--batch", type=_number, default=BATCH, help="scenes per step of the flow; 256 suits a GPU")
    parser.add_argument(
        "--composites",
        type=_share,
        default=0.5,
        help="share of a step's scenes that are latent composites, 0 to 1; with 0 no sprites are extracted",
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile the transformer; saves time in fits over ten minutes"
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--autoencoder", type=Path, help="fitted autoencoder for a work folder without one")
    start.add_argument("--warm-start", type=Path, help="model folder to start from if the work folder is empty")
    return parser


def _minutes(text: str) -> float:
    if not 0 <= (value := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of minutes, 0 or more")
    return value


def _number(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number, 1 or more")
    return value


def _share(text: str) -> float:
    if not 0 <= (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share, 0 to 1")
    return value


def main() -> None:
    """Train with the options of the command line and write the model."""
    parser = command_line()
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    try:
        if options.autoencoder:
            copy_autoencoder(options.work, options.autoencoder)
        if options.warm_start:
            warm_start(options.work, options.warm_start, options.flow_minutes)
    except ValueError as error:
        parser.error(str(error))
    train(options)


def train(options: argparse.Namespace) -> None:
    """Run all fits, resuming from the state in the work folder, and write the model."""
    work, device = options.work, torch.device(options.device)
    # cuDNN's attention fails in the backward pass of a learned bias, which T5 has (torch 2.11, H200).
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    art = Art(options.art)
    torch.manual_seed(FLOW_SEED)
    renderer, evaluator, flow = SceneRenderer(art), load_evaluator(), FlowNetworks().to(device)
    autoencoder_scenes = -(-options.scenes // 10)
    with renderer:
        if not (work / AUTOENCODER).exists():
            save_autoencoder(
                fit_autoencoder(work, renderer, options.autoencoder_minutes, autoencoder_scenes, device), work
            )
        autoencoder = Autoencoder(SKETCH.autoencoder).to(device).eval()
        # The weights in the file are rounded to bfloat16, so the flow is fitted to the latents of the shipped encoder.
        autoencoder.load_state_dict(load_file(work / AUTOENCODER))
        fit_decoder(work, autoencoder, renderer, options.decoder_minutes, autoencoder_scenes, device)
        if not (work / FLOW_CHECKPOINT).exists():
            appearance_targets = AppearanceTargets(art, autoencoder)
            pretrain_text_encoders(
                work, appearance_targets, flow.t5, flow.clip, options.text_encoder_minutes, options.scenes
            )
        buckets = build_buckets(autoencoder, renderer, options.scenes, work)
    composites = round(options.composites * options.batch)
    mix = Mix(options.batch - composites, composites)
    store = LatentStore(buckets, build_sprites(SpriteExtractor(autoencoder, art), work) if composites else None)

    def snap(step: int) -> None:
        take_snapshot(lambda folder: export(folder, flow, autoencoder), evaluator.detect, work, step, device)

    fit_flow(work, flow, store, options.flow_minutes, snap, mix=mix, compiled=options.compile)
    export(options.out, flow, autoencoder)


def copy_autoencoder(work: Path, fitted: Path) -> None:
    """Copy a fitted autoencoder to the work folder, unless it has one.

    Raises ValueError for a file that is not an autoencoder of `SKETCH`'s sizes, OSError for one that can't be read.
    """
    if (work / AUTOENCODER).exists():
        return
    autoencoder = Autoencoder(SKETCH.autoencoder)
    try:
        autoencoder.load_state_dict(load_file(fitted))
    # SafetensorError: not a safetensors file. RuntimeError: missing or unexpected tensors, or other sizes.
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{fitted} is not an autoencoder of SKETCH's sizes: {error}") from error
    save_autoencoder(autoencoder, work)


def warm_start(work: Path, folder: Path, flow_minutes: float) -> None:
    """Initialise a work folder from a model folder, unless the work folder has a flow checkpoint.

    The model's autoencoder is copied. Its other networks become a flow checkpoint at progress `SPARSE_UNTIL`, from
    which on every step uses all tokens. Raises ValueError, and writes nothing, if the model's sizes are not those of
    `SKETCH`, or if the work folder has an autoencoder, since the model's flow was fitted to the latents of its own
    autoencoder.
    """
    if (work / FLOW_CHECKPOINT).exists():
        return
    if (work / AUTOENCODER).exists():
        raise ValueError(f"{work / AUTOENCODER} exists; a warm start from {folder} needs an empty work folder")
    files = open_model(folder)
    if files.config != SKETCH:
        raise ValueError(f"the model in {folder} has other sizes than SKETCH; a warm start needs the same sizes")
    networks = files.load("cpu", Precision.FP32).networks
    flow = FlowNetworks()
    for target, source in (
        (flow.transformer, networks.transformer), (flow.t5, networks.t5), (flow.clip, networks.clip)
    ):  # fmt: skip
        target.load_state_dict(source.state_dict())
    save_autoencoder(networks.autoencoder, work)
    elapsed_s = SPARSE_UNTIL * 60 * flow_minutes
    checkpoint = work / FLOW_CHECKPOINT
    Fit(checkpoint, {"flow": flow}, flow_optimizers(flow), flow_minutes, FLOW_SEED, elapsed_s=elapsed_s).save()


def save_autoencoder(autoencoder: Autoencoder, work: Path) -> None:
    """Write a fitted autoencoder to the work folder, atomically."""
    draft = work / "autoencoder.tmp"
    save_file({name: tensor.bfloat16().contiguous() for name, tensor in autoencoder.state_dict().items()}, draft)
    draft.replace(work / AUTOENCODER)


def export(folder: Path, flow: FlowNetworks, autoencoder: Autoencoder) -> None:
    """Write the fitted networks to a model folder."""
    with meta_device():
        networks = Networks(SKETCH)
    networks.transformer, networks.t5, networks.clip = flow.transformer, flow.t5, flow.clip
    networks.autoencoder = autoencoder
    save_model(folder, SKETCH_ID, SKETCH, networks, word_tokenizer(vocabulary()))


if __name__ == "__main__":
    main()
