"""Teach the two text encoders of `sketch` to read, before anything is painted.

FLUX's T5 and CLIP come to it trained on text. Ours are too small for that, but they can learn what captions mean from
captions alone, in a minute or two: from what each encoder makes of a sentence, a linear layer has to tell the
background, the thing or the two things in their order, and whether sunglasses are worn. The flow that is fitted next
then never has to find out at once what a word means and what the thing looks like.

Dimension key: B batch, T tokens.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional as F

from allaprima.flux import SKETCH, CLIPTextEncoder, T5Encoder
from allaprima.train.art import THINGS
from allaprima.train.progress import Progress
from allaprima.train.scenes import BACKGROUNDS, SIZES, Scene, caption, compose, words
from allaprima.weights.tokenizer import PromptTokenizer, word_tokenizer, word_tokenizers

BATCH = 128
RATE = 2e-3
#: Scenes whose captions are read; each is worded anew at every visit.
SCENES = 6000
#: Answers of a reader: background, first thing, second thing or none, sunglasses worn or not.
ANSWERS = (len(BACKGROUNDS), len(THINGS), len(THINGS) + 1, 2)

_NUMBER = {thing.icon: i for i, thing in enumerate(THINGS)}


def tokenizers() -> tuple[PromptTokenizer, PromptTokenizer]:
    """Return the T5 and CLIP tokenizers over the captions' words."""
    return word_tokenizers(word_tokenizer(words()), SKETCH)


class Captions:
    """Words scenes and turns the sentences into token ids."""

    def __init__(self) -> None:
        self._t5, self._clip = tokenizers()

    def ids(self, scenes: list[Scene], rng: Generator) -> tuple[Tensor, Tensor]:
        """Return the T5 and the CLIP ids of one new caption a scene: (B, T) each, int64."""
        prompts = [caption(scene, rng) for scene in scenes]
        t5 = torch.tensor([self._t5.encode(prompt).ids for prompt in prompts])
        return t5, torch.tensor([self._clip.encode(prompt).ids for prompt in prompts])


def answers(scene: Scene) -> tuple[int, ...]:
    """Return what a reader has to tell about a scene's caption, a number below each of `ANSWERS`."""
    first, *rest = scene.things
    second = _NUMBER[rest[0].icon] if rest else len(THINGS)
    return BACKGROUNDS.index(scene.background), _NUMBER[first.icon], second, int(first.wears_sunglasses)


def teach_reading(folder: Path, t5: T5Encoder, clip: CLIPTextEncoder, minutes: float) -> None:
    """Fit both encoders in place for that many minutes (over all runs), with checkpoints in `folder`."""
    torch.manual_seed(4)
    readers = nn.ModuleList(nn.Linear(width, sum(ANSWERS)) for width in (SKETCH.t5.d_model, SKETCH.clip.hidden_size))
    networks: dict[str, nn.Module] = {"t5": t5, "clip": clip, "readers": readers}
    parameters = [parameter for network in networks.values() for parameter in network.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    progress = Progress(minutes)
    checkpoint = folder / "reading.ckpt"
    progress.resume(checkpoint, networks, [optimizer])
    rng = np.random.default_rng((4, progress.step))
    sizes = list(SIZES)
    scenes = [compose(seed, *sizes[seed % len(sizes)]) for seed in range(SCENES)]
    captions = Captions()
    for step in progress.steps():
        for group in optimizer.param_groups:
            group["lr"] = RATE * progress.rate
        asked = [scenes[i] for i in rng.integers(SCENES, size=BATCH)]
        t5_ids, clip_ids = captions.ids(asked, rng)
        wanted = torch.tensor([answers(scene) for scene in asked])
        read = readers[0](t5(t5_ids).mean(1)), readers[1](clip(clip_ids))
        loss = torch.stack([_cross_entropy(logits, wanted) for logits in read]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 0:
            right = " ".join(f"{_right(logits, wanted):.1%}" for logits in read)
            print(f"reading {progress.share:6.1%} step {step} loss {loss.item():.4f} read right {right}", flush=True)
        if progress.is_checkpoint_due():
            progress.save(checkpoint, networks, [optimizer])
    progress.save(checkpoint, networks, [optimizer])


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the summed loss of all answers. logits: (B, sum of ANSWERS); wanted: (B, number of answers)."""
    parts = zip(logits.split(ANSWERS, dim=1), wanted.unbind(1), strict=True)
    return torch.stack([F.cross_entropy(part, answer) for part, answer in parts]).sum()


def _right(logits: Tensor, wanted: Tensor) -> float:
    """Return the share of sentences of which every answer is right."""
    told = torch.stack([part.argmax(1) for part in logits.split(ANSWERS, dim=1)], dim=1)
    return (told == wanted).all(1).float().mean().item()
