"""`python -m allaprima.train`: from nothing to the shipped model, in four fits that can each be stopped and resumed.

Every fit is given minutes and keeps its state in the work folder, so the same command goes on where the last run
stopped. Documented in `docs/training.md`.
"""

import argparse
from pathlib import Path

import torch

from allaprima.flux import SKETCH, Autoencoder
from allaprima.train.art import Art
from allaprima.train.autoencoder import fit_autoencoder
from allaprima.train.buckets import make_buckets
from allaprima.train.captions import words
from allaprima.train.fit import Fit
from allaprima.train.flow import FLOW_CHECKPOINT, FlowNetworks, fit_flow, flow_optimizers
from allaprima.train.polish import polish_decoder
from allaprima.train.reading import Likenesses, teach_reading
from allaprima.train.snapshots import look
from allaprima.weights.catalog import SKETCH_ID, sketch_folder
from allaprima.weights.folder import save_model
from allaprima.weights.model import open_model
from allaprima.weights.networks import Networks
from allaprima.weights.tokenizer import word_tokenizer


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
    parser.add_argument("--compile", action="store_true", help="compile the transformer: pays after half an hour")
    parser.add_argument("--warm-start", type=Path, help="model folder to begin from where the work folder is empty")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.warm_start:
        warm_start(options.work, options.warm_start)
    art = Art(options.art)
    few = -(-options.scenes // 16)
    autoencoder = _fitted_autoencoder(options.work, art, options.autoencoder_minutes, few)
    flow = FlowNetworks()
    if not (options.work / FLOW_CHECKPOINT).exists():
        likenesses = Likenesses(art, autoencoder)
        teach_reading(options.work, likenesses, flow.t5, flow.clip, options.reading_minutes, options.scenes)
    buckets = make_buckets(autoencoder, art, options.scenes, options.work)

    def seen(step: int) -> None:
        look(lambda folder: export(folder, flow, autoencoder), options.work, step)

    fit_flow(options.work, flow, buckets, options.flow_minutes, seen, compiled=options.compile)
    polish_decoder(options.work, autoencoder, art, options.polish_minutes, few)
    export(options.out, flow, autoencoder)


def _fitted_autoencoder(work: Path, art: Art, minutes: float, scenes: int) -> Autoencoder:
    """Return the autoencoder of the work folder, fitting it first if need be."""
    kept = work / "autoencoder.pt"
    if not kept.exists():
        torch.save(fit_autoencoder(work, art, minutes, scenes).state_dict(), kept)
    autoencoder = Autoencoder(SKETCH.autoencoder)
    autoencoder.load_state_dict(torch.load(kept, weights_only=True))
    return autoencoder.eval()


def warm_start(work: Path, folder: Path) -> None:
    """Begin from a model folder's weights: its autoencoder as it is, its other networks as the flow's first state.

    Raises ValueError if the model is of other sizes than `SKETCH`; nothing is written then.
    """
    files = open_model(folder)
    if files.config != SKETCH:
        raise ValueError(f"{folder} holds a model of other sizes than SKETCH; only one of the same can be gone on from")
    networks = files.load().networks
    if not (work / "autoencoder.pt").exists():
        torch.save(networks.autoencoder.state_dict(), work / "autoencoder.pt")
    if not (work / FLOW_CHECKPOINT).exists():
        flow = FlowNetworks()
        flow.transformer, flow.t5, flow.clip = networks.transformer, networks.t5, networks.clip
        flow.requires_grad_()
        Fit(work / FLOW_CHECKPOINT, {"flow": flow}, flow_optimizers(flow), minutes=1.0, seed=0).save()


def export(folder: Path, flow: FlowNetworks, autoencoder: Autoencoder) -> None:
    """Write the fitted networks as a model folder."""
    with torch.device("meta"):
        networks = Networks(SKETCH)
    networks.transformer, networks.t5, networks.clip = flow.transformer, flow.t5, flow.clip
    networks.autoencoder = autoencoder
    save_model(folder, SKETCH_ID, SKETCH, networks, word_tokenizer(words()))


if __name__ == "__main__":
    main()
