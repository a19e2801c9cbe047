"""`python -m allaprima.train`: from nothing to the shipped model, in four fits that can each be stopped and resumed.

Every fit is given minutes and keeps its state in the work folder, so the same command goes on where the last run
stopped. Documented in `docs/training.md`.
"""

import argparse
from pathlib import Path

import torch

from allaprima.flux import SKETCH, Autoencoder
from allaprima.request import Precision
from allaprima.train.art import Art
from allaprima.train.autoencoder import fit_autoencoder
from allaprima.train.buckets import make_buckets
from allaprima.train.captions import words
from allaprima.train.fit import Fit, write_whole
from allaprima.train.flow import BATCH, FLOW_CHECKPOINT, QUIET_FROM, FlowNetworks, fit_flow, flow_optimizers
from allaprima.train.painters import Painters
from allaprima.train.polish import polish_decoder
from allaprima.train.reading import Likenesses, teach_reading
from allaprima.train.snapshots import take_snapshot
from allaprima.weights.catalog import SKETCH_ID, sketch_folder
from allaprima.weights.folder import save_model
from allaprima.weights.model import open_model
from allaprima.weights.networks import Networks
from allaprima.weights.tokenizer import word_tokenizer

#: The fitted autoencoder in the work folder, before its decoder is polished.
AUTOENCODER = "autoencoder.pt"


def main() -> None:
    """Fit what the arguments ask for and write the model."""
    parser = argparse.ArgumentParser(prog="python -m allaprima.train", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/train"), help="folder of checkpoints")
    parser.add_argument("--art", type=Path, default=Path("build/art"), help="folder of the art package")
    parser.add_argument("--out", type=Path, default=sketch_folder(), help="folder of the model to write")
    parser.add_argument("--autoencoder-minutes", type=float, default=40)
    parser.add_argument("--reading-minutes", type=float, default=10)
    parser.add_argument("--flow-minutes", type=float, default=600)
    parser.add_argument("--polish-minutes", type=float, default=20)
    parser.add_argument(
        "--scenes", type=int, default=32000, help="scenes that the flow is fitted to; the autoencoder sees a 16th"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the fits run")
    parser.add_argument("--batch", type=int, default=BATCH, help="scenes in a step of the flow; a GPU wants 256")
    parser.add_argument("--compile", action="store_true", help="compile the transformer: pays after half an hour")
    parser.add_argument("--warm-start", type=Path, help="model folder to begin from where the work folder is empty")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.warm_start:
        warm_start(options.work, options.warm_start, options.flow_minutes)
    art = Art(options.art)
    with Painters(art) as painters:
        _train(options, art, painters)


def _train(options: argparse.Namespace, art: Art, painters: Painters) -> None:
    work, device, few = options.work, torch.device(options.device), -(-options.scenes // 16)
    # cuDNN's attention fails in the backward pass of a bias that is learned, T5's (torch 2.11, H200).
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    if not (work / AUTOENCODER).exists():
        fitted = fit_autoencoder(work, art, painters, options.autoencoder_minutes, few, device)
        write_whole(fitted.state_dict(), work / AUTOENCODER)
    autoencoder = Autoencoder(SKETCH.autoencoder).to(device).eval()
    autoencoder.load_state_dict(torch.load(work / AUTOENCODER, map_location="cpu", weights_only=True))
    flow = FlowNetworks().to(device)
    if not (work / FLOW_CHECKPOINT).exists():
        likenesses = Likenesses(art, autoencoder)
        teach_reading(work, likenesses, flow.t5, flow.clip, options.reading_minutes, options.scenes)
    buckets = make_buckets(autoencoder, painters, options.scenes, work)

    def snap(step: int) -> None:
        take_snapshot(lambda folder: export(folder, flow, autoencoder), work, step, options.device)

    fit_flow(work, flow, buckets, options.flow_minutes, snap, batch=options.batch, compiled=options.compile)
    polish_decoder(work, autoencoder, art, painters, options.polish_minutes, few)
    export(options.out, flow, autoencoder)


def warm_start(work: Path, folder: Path, flow_minutes: float) -> None:
    """Begin from a model folder's weights: its autoencoder as it is, its other networks as the flow's first state, at
    the share of its minutes from which on noise is as loud as any other.

    Raises ValueError if the model is of other sizes than `SKETCH`; nothing is written then.
    """
    files = open_model(folder)
    if files.config != SKETCH:
        raise ValueError(f"{folder} holds a model of other sizes than SKETCH; only one of the same can be gone on from")
    networks = files.load("cpu", Precision.FP32).networks
    if not (work / AUTOENCODER).exists():
        write_whole(networks.autoencoder.state_dict(), work / AUTOENCODER)
    if not (work / FLOW_CHECKPOINT).exists():
        flow = FlowNetworks()
        flow.transformer, flow.t5, flow.clip = networks.transformer, networks.t5, networks.clip
        flow.requires_grad_()
        fit = Fit(work / FLOW_CHECKPOINT, {"flow": flow}, flow_optimizers(flow), flow_minutes, seed=0)
        fit.elapsed_s = QUIET_FROM * 60 * flow_minutes
        fit.save()


def export(folder: Path, flow: FlowNetworks, autoencoder: Autoencoder) -> None:
    """Write the fitted networks as a model folder."""
    with torch.device("meta"):
        networks = Networks(SKETCH)
    networks.transformer, networks.t5, networks.clip = flow.transformer, flow.t5, flow.clip
    networks.autoencoder = autoencoder
    save_model(folder, SKETCH_ID, SKETCH, networks, word_tokenizer(words()))


if __name__ == "__main__":
    main()
