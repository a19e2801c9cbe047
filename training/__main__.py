"""`python -m training`: from nothing to the shipped model, in four fits that can each be stopped and resumed.

Every fit is given minutes and keeps its state in the work folder, so the same command goes on where the last run
stopped. Documented in `docs/training.md`.
"""

import argparse
import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from allaprima.flux import SKETCH, Autoencoder
from allaprima.request import Precision
from allaprima.weights.catalog import SKETCH_ID, sketch_folder
from allaprima.weights.folder import save_model
from allaprima.weights.model import open_model
from allaprima.weights.networks import Networks
from allaprima.weights.tokenizer import word_tokenizer
from training.data.art import Art
from training.data.batches import Gallery, Mix
from training.data.cached_latents import make_buckets
from training.data.captions import words
from training.data.latent_sprites import Cutter, make_cutouts
from training.data.rendering import Painters
from training.evaluate.evaluator import load_detector
from training.fit.autoencoder import fit_autoencoder, fit_decoder
from training.fit.flow import BATCH, FEW_UNTIL, FLOW_CHECKPOINT, FLOW_SEED, FlowNetworks, fit_flow, flow_optimizers
from training.fit.loop import Fit
from training.fit.snapshots import take_snapshot
from training.fit.text_encoders import Likenesses, teach_reading

#: The fitted autoencoder in the work folder, in bfloat16; its encoder is shipped, its decoder is fitted on.
AUTOENCODER = "autoencoder.safetensors"


def command_line() -> argparse.ArgumentParser:
    """Return what reads the arguments; what makes no sense is refused by name."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/train"), help="folder of checkpoints")
    parser.add_argument("--art", type=Path, default=Path("build/art"), help="folder of the art package")
    parser.add_argument("--out", type=Path, default=sketch_folder(), help="folder of the model to write")
    parser.add_argument("--autoencoder-minutes", type=_minutes, default=100)
    parser.add_argument("--decoder-minutes", type=_minutes, default=20)
    parser.add_argument("--reading-minutes", type=_minutes, default=10)
    parser.add_argument("--flow-minutes", type=_minutes, default=310)
    parser.add_argument(
        "--scenes", type=_number, default=20000, help="scenes that the flow is fitted to; the autoencoder sees a tenth"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the fits run")
    parser.add_argument("--batch", type=_number, default=BATCH, help="scenes in a step of the flow; a GPU wants 256")
    parser.add_argument(
        "--collages",
        type=_share,
        default=0.5,
        help="share of a step's scenes that are collages, 0 to 1; at 0 no cutouts are made",
    )
    parser.add_argument("--compile", action="store_true", help="compile the transformer: pays after ten minutes")
    begun = parser.add_mutually_exclusive_group()
    begun.add_argument("--autoencoder", type=Path, help="a fitted one, for a work folder that has none")
    begun.add_argument("--warm-start", type=Path, help="model folder to begin from where the work folder is empty")
    return parser


def _minutes(text: str) -> float:
    if not 0 <= (value := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of minutes from 0 on")
    return value


def _number(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return value


def _share(text: str) -> float:
    if not 0 <= (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share of 0 to 1")
    return value


def main() -> None:
    """Fit what the arguments ask for and write the model."""
    parser = command_line()
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    try:
        if options.autoencoder:
            take_autoencoder(options.work, options.autoencoder)
        if options.warm_start:
            warm_start(options.work, options.warm_start, options.flow_minutes)
    except ValueError as refused:
        parser.error(str(refused))
    train(options)


def train(options: argparse.Namespace) -> None:
    """Fit on, from what is in the work folder."""
    work, device = options.work, torch.device(options.device)
    # cuDNN's attention fails in the backward pass of a bias that is learned, T5's (torch 2.11, H200).
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    art = Art(options.art)
    torch.manual_seed(FLOW_SEED)
    painters, judge, flow = Painters(art), load_detector(), FlowNetworks().to(device)
    few = -(-options.scenes // 10)
    with painters:
        if not (work / AUTOENCODER).exists():
            keep_autoencoder(fit_autoencoder(work, painters, options.autoencoder_minutes, few, device), work)
        autoencoder = Autoencoder(SKETCH.autoencoder).to(device).eval()
        # In bfloat16's values, so that the flow is of the very latents that the shipped encoder makes.
        autoencoder.load_state_dict(load_file(work / AUTOENCODER))
        fit_decoder(work, autoencoder, painters, options.decoder_minutes, few, device)
        if not (work / FLOW_CHECKPOINT).exists():
            likenesses = Likenesses(art, autoencoder)
            teach_reading(work, likenesses, flow.t5, flow.clip, options.reading_minutes, options.scenes)
        buckets = make_buckets(autoencoder, painters, options.scenes, work)
    collages = round(options.collages * options.batch)
    mix = Mix(options.batch - collages, collages)
    gallery = Gallery(buckets, make_cutouts(Cutter(autoencoder, art), work) if collages else None)

    def snap(step: int) -> None:
        take_snapshot(lambda folder: export(folder, flow, autoencoder), judge.look, work, step, device)

    fit_flow(work, flow, gallery, options.flow_minutes, snap, mix=mix, compiled=options.compile)
    export(options.out, flow, autoencoder)


def take_autoencoder(work: Path, fitted: Path) -> None:
    """Begin with a fitted autoencoder, unless the work folder has one.

    Raises ValueError naming a file that holds none of `SKETCH`'s sizes, OSError for one that can't be read.
    """
    if (work / AUTOENCODER).exists():
        return
    autoencoder = Autoencoder(SKETCH.autoencoder)
    try:
        autoencoder.load_state_dict(load_file(fitted))
    # The first for what is no safetensors file, the second for tensors that are missing, too many or of other sizes.
    except (SafetensorError, RuntimeError) as other:
        raise ValueError(f"{fitted} holds no autoencoder of SKETCH's sizes: {other}") from other
    keep_autoencoder(autoencoder, work)


def warm_start(work: Path, folder: Path, flow_minutes: float) -> None:
    """Begin from a model folder's weights, unless a flow has been begun: its autoencoder as it is, its other networks
    as the flow's first state, at the share of its minutes from which on every step looks at all tokens.

    Raises ValueError if the model is of other sizes than `SKETCH`, or the work folder holds an autoencoder, whose
    latents the model does not know; nothing is written then.
    """
    if (work / FLOW_CHECKPOINT).exists():
        return
    if (work / AUTOENCODER).exists():
        raise ValueError(f"{work / AUTOENCODER} would be mixed with {folder}; a warm start wants an empty work folder")
    files = open_model(folder)
    if files.config != SKETCH:
        raise ValueError(f"{folder} holds a model of other sizes than SKETCH; only one of the same can be gone on from")
    networks = files.load("cpu", Precision.FP32).networks
    flow = FlowNetworks()
    for mine, shipped in (
        (flow.transformer, networks.transformer), (flow.t5, networks.t5), (flow.clip, networks.clip)
    ):  # fmt: skip
        mine.load_state_dict(shipped.state_dict())
    keep_autoencoder(networks.autoencoder, work)
    begun_s = FEW_UNTIL * 60 * flow_minutes
    checkpoint = work / FLOW_CHECKPOINT
    Fit(checkpoint, {"flow": flow}, flow_optimizers(flow), flow_minutes, FLOW_SEED, elapsed_s=begun_s).save()


def keep_autoencoder(autoencoder: Autoencoder, work: Path) -> None:
    """Write a fitted autoencoder into the work folder, whole or not at all."""
    draft = work / "autoencoder.tmp"
    save_file({name: tensor.bfloat16().contiguous() for name, tensor in autoencoder.state_dict().items()}, draft)
    draft.replace(work / AUTOENCODER)


def export(folder: Path, flow: FlowNetworks, autoencoder: Autoencoder) -> None:
    """Write the fitted networks as a model folder."""
    with torch.device("meta"):
        networks = Networks(SKETCH)
    networks.transformer, networks.t5, networks.clip = flow.transformer, flow.t5, flow.clip
    networks.autoencoder = autoencoder
    save_model(folder, SKETCH_ID, SKETCH, networks, word_tokenizer(words()))


if __name__ == "__main__":
    main()
