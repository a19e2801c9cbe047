"""Teach the two text encoders of `sketch` to read, before anything is painted.

FLUX's T5 and CLIP come to it trained on text. Ours are too small for that, but they can learn what captions mean from
captions alone, in a few minutes: from what each encoder makes of a sentence, a small reader has to answer questions
about the scene, and to draw its things, as latents, by a matrix. The flow that is fitted next then never has to find
out at once what a word means and what the thing looks like: what it is told of a thing is a code from which all of
the thing's latents can be read off. CLIP, whose one vector is to say what a picture is about, is asked about the first
thing only.

Which of two things stands left follows from the order of words alone, and a T5 whose position biases are random does
not find that out in any time that we have: its words stay a heap. So one head begins by looking to the left and one to
the right (`look_both_ways`), and every token is asked of which thing it tells.

Dimension key: B batch, T tokens, W width, Q questions, S subjects, P values of a likeness.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional as F

from allaprima.flux import SKETCH, Autoencoder, CLIPTextEncoder, T5Encoder
from allaprima.weights.tokenizers import PromptTokenizer, word_tokenizer, word_tokenizers
from training.art import DYES, Art
from training.buckets import encoded
from training.captions import MARKS, caption, marked_caption, words
from training.fit import Fit, device_of
from training.layout import BIG, USUAL
from training.optimizers import Optimizers
from training.places import BACKGROUNDS, OPEN
from training.scenes import MOST, RELATIONS, SIZES, Scene, Subject, compose
from training.things import ACCESSORIES, THINGS

BATCH = 128
RATE = 2e-3
#: How much the error of the one question counts that each token is asked, of which subject it tells.
WHOSE_WEIGHT = 10.0
#: Logits by which a head that looks one way hears what is behind it less, and what is a bucket farther away.
AWAY, FARTHER = 4.0, 0.3
_GROUNDS = (*BACKGROUNDS, OPEN)
_ICONS = (None, *(thing.icon for thing in THINGS))
_DYES = (None, *DYES)
_SIZES = (None, "small", "big")
_ACCESSORIES = (None, *(accessory.icon for accessory in ACCESSORIES))
_RELATIONS = (None, *RELATIONS)
#: Number of answers to each question about the scene, and to each about one subject.
SCENE_ANSWERS = (len(_GROUNDS), len(_RELATIONS))
SUBJECT_ANSWERS = (len(_ICONS), MOST, len(_DYES), len(_SIZES), len(_ACCESSORIES))
#: Sides of a thing's likenesses, in cells.
LIKENESS_CELLS = (USUAL, BIG)
#: Values of a thing's likenesses, and how much their error counts: as much as so many questions at first.
LIKENESS_VALUES, LIKENESS_WEIGHT = sum(cells**2 for cells in LIKENESS_CELLS) * SKETCH.transformer.in_channels, 20.0


def tokenizers() -> tuple[PromptTokenizer, PromptTokenizer]:
    """Return the T5 and CLIP tokenizers over the captions' words."""
    return word_tokenizers(word_tokenizer(words()), SKETCH)


def look_both_ways(t5: T5Encoder) -> None:
    """Set a new T5's position biases so that its first head looks to the left, nearest words first, and its second to
    the right; the others stay as they are.
    """
    table = t5.get_submodule("encoder.block.0.layer.0.SelfAttention.relative_attention_bias")
    assert isinstance(table, nn.Embedding)
    # (buckets, heads); the first half are keys from the token's own place to the left, farther and farther.
    left, right = table.weight.detach().chunk(2)
    farther = FARTHER * torch.arange(len(left))
    for ahead, behind, head in ((left, right, 0), (right, left, 1)):
        ahead[:, head] -= farther
        behind[:, head] -= AWAY + farther
    left[0, :2] -= AWAY


class Captions:
    """Words scenes and turns the sentences into token ids."""

    def __init__(self) -> None:
        self._t5, self._clip = tokenizers()

    def ids(self, scenes: list[Scene], rng: Generator) -> tuple[Tensor, Tensor]:
        """Return the T5 and the CLIP ids of one new caption a scene: (B, T) each, int64."""
        return self._encoded([caption(scene, rng) for scene in scenes])

    def told(self, scenes: list[Scene], rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `ids` would, and of which subject each T5 token tells, from 1, or 0 of none: (B, T), int64."""
        prompts = [marked_caption(scene, rng) for scene in scenes]
        t5, clip = self._encoded(prompts)
        whose = torch.zeros_like(t5)
        for row, prompt in zip(whose, prompts, strict=True):
            told = self._whose(prompt)[: self._t5.max_tokens]
            row[: len(told)] = torch.tensor(told)
        return t5, clip, whose

    def _encoded(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        t5 = torch.tensor([self._t5.encode(prompt).ids for prompt in prompts])
        return t5, torch.tensor([self._clip.encode(prompt).ids for prompt in prompts])

    def _whose(self, marked: str) -> list[int]:
        """Return of which subject each token of a marked caption tells."""
        encoding = self._t5.tokenizer.encode(marked, add_special_tokens=False)
        told = []
        for token, (start, _) in zip(encoding.ids, encoding.offsets, strict=True):
            # The mark stands at the end of a word, which may be several tokens ("T-Rex").
            word = marked[start:].split(maxsplit=1)[0]
            if token != self._t5.drop_id:
                told.append(1 + max(MARKS.find(character) for character in word))
        return told


class Reader(nn.Module):
    """Answers every question, and draws every subject, from one weighted mean of an encoder's tokens each."""

    def __init__(self, width: int, answers: tuple[int, ...], subjects: int) -> None:
        super().__init__()
        self.attention = nn.Linear(width, len(answers) + subjects)
        self.answer = nn.ModuleList(nn.Linear(width, count) for count in answers)
        self.draw = nn.Linear(width, LIKENESS_VALUES)

    def forward(self, tokens: Tensor) -> tuple[list[Tensor], Tensor]:
        """(B, T, W) -> Q logits, (B, answers) each, and likenesses (B, S, P)."""
        weights = self.attention(tokens).softmax(dim=1)  # (B, T, Q + S)
        means = weights.transpose(1, 2) @ tokens  # (B, Q + S, W)
        count = len(self.answer)
        return [answer(means[:, i]) for i, answer in enumerate(self.answer)], self.draw(means[:, count:])


class Likenesses:
    """What subjects look like: their latents on a grey ground, of usual size and big, less the ground's."""

    def __init__(self, art: Art, autoencoder: Autoencoder) -> None:
        self._art, self._autoencoder = art, autoencoder
        self._device = device_of(autoencoder)

    def of(self, scenes: list[Scene]) -> Tensor:
        """Return the likenesses of each scene's subjects, zeros where there is none: (B, S, P), float32."""
        drawn = torch.zeros(len(scenes), MOST, LIKENESS_VALUES, device=self._device)
        for i, scene in enumerate(scenes):
            for j, subject in enumerate(scene.subjects):
                drawn[i, j] = self._drawn(subject.icon, subject.dye)
        return drawn

    @cache  # noqa: B019 - lives as long as the fit
    def _drawn(self, icon: str, dye: str | None) -> Tensor:
        parts = []
        for cells in LIKENESS_CELLS:
            sprite = torch.from_numpy(self._art.sprite(icon, cells * SKETCH.token_px, dye)).permute(2, 0, 1)
            pixels = 255 * torch.stack((sprite[:3] + 0.5 * (1 - sprite[3:]), torch.full_like(sprite[:3], 0.5)))
            shown, ground = encoded(self._autoencoder, pixels.round().to(self._device)).float()
            parts.append((shown - ground).flatten())
        return torch.cat(parts)


def answers(scene: Scene) -> tuple[int, ...]:
    """Return what is right about a scene: of the scene, then of each of its `MOST` subjects or none."""
    right = [_GROUNDS.index(scene.background), _RELATIONS.index(scene.relation)]
    for i in range(MOST):
        subject = scene.subjects[i] if i < len(scene.subjects) else None
        right += (0,) * len(SUBJECT_ANSWERS) if subject is None else _about(subject)
    return tuple(right)


def _about(subject: Subject) -> tuple[int, ...]:
    return (
        _ICONS.index(subject.icon),
        subject.count - 1,
        _DYES.index(subject.dye),
        _SIZES.index(subject.size),
        _ACCESSORIES.index(subject.accessory),
    )


def teach_reading(
    folder: Path, likenesses: Likenesses, t5: T5Encoder, clip: CLIPTextEncoder, minutes: float, scenes: int
) -> None:
    """Fit both encoders in place for that many minutes (over all runs), with checkpoints in `folder`.

    scenes: how many have their captions read; each is worded anew at every visit.
    """
    torch.manual_seed(4)
    device = device_of(t5)
    of_t5 = Reader(SKETCH.t5.d_model, SCENE_ANSWERS + MOST * SUBJECT_ANSWERS, MOST).to(device)
    of_clip = Reader(SKETCH.clip.hidden_size, SCENE_ANSWERS + SUBJECT_ANSWERS, 1).to(device)
    whose = nn.Linear(SKETCH.t5.d_model, 1 + MOST).to(device)
    networks: dict[str, nn.Module] = {"t5": t5, "clip": clip, "of_t5": of_t5, "of_clip": of_clip, "whose": whose}
    parameters = [parameter for network in networks.values() for parameter in network.parameters()]
    optimizers: Optimizers = [torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)]
    fit = Fit(folder / "reading.ckpt", networks, optimizers, minutes, seed=4)
    sizes = list(SIZES)
    pool = [compose(seed, *sizes[seed % len(sizes)]) for seed in range(scenes)] if fit.share < 1 else []
    captions = Captions()
    loss = None
    for step in fit.steps():
        rng = np.random.default_rng((4, step))
        asked = [pool[i] for i in rng.integers(scenes, size=BATCH)]
        t5_ids, clip_ids, tells = (ids.to(device) for ids in captions.told(asked, rng))
        wanted = torch.tensor([answers(scene) for scene in asked], device=device)
        shown = likenesses.of(asked)
        tokens = t5(t5_ids)
        read = of_t5(tokens), of_clip(clip(clip_ids)[:, None])
        told = whose(tokens).flatten(0, 1)
        gaps = [_gap(drawn, shown) for _, drawn in read]
        loss = torch.stack([_cross_entropy(logits, wanted) for logits, _ in read]).sum()
        loss = loss + LIKENESS_WEIGHT * torch.stack(gaps).sum()
        loss = loss + WHOSE_WEIGHT * F.cross_entropy(told, tells.flatten())
        fit.descend(loss)
        if step % 100 == 0:
            right = " ".join(f"{_right(logits, wanted):.1%}" for logits, _ in read)
            seen = " ".join(f"{1 - gap.item():.1%}" for gap in gaps)
            marks = f"read right {right} seen {seen} whose {_found(told, tells.flatten()):.1%}"
            print(f"reading {fit.share:6.1%} step {step} loss {loss.item():.4f} {marks}", flush=True)
    print("reading done" + ("" if loss is None else f": loss {loss.item():.4f}"), flush=True)


def _cross_entropy(logits: list[Tensor], wanted: Tensor) -> Tensor:
    """Return the summed loss of the answers given, the first ones. wanted: (B, all questions)."""
    answered = wanted[:, : len(logits)].unbind(1)
    return torch.stack([F.cross_entropy(*pair) for pair in zip(logits, answered, strict=True)]).sum()


def _gap(drawn: Tensor, shown: Tensor) -> Tensor:
    """Return the squared error of likenesses, of their own size: 1 for empty ones. shown: (B, all subjects, P)."""
    shown = shown[:, : drawn.shape[1]]
    return (drawn - shown).square().mean() / shown.square().mean()


def _right(logits: list[Tensor], wanted: Tensor) -> float:
    """Return the share of sentences of which every answer is right."""
    told = torch.stack([given.argmax(1) for given in logits], dim=1)
    return (told == wanted[:, : len(logits)]).all(1).float().mean().item()


def _found(told: Tensor, tells: Tensor) -> float:
    """Return the share of the subjects' words that are known to be theirs. told: (B * T, 1 + S); tells: (B * T,)."""
    return (told.argmax(1) == tells)[tells > 0].float().mean().item()
