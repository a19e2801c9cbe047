"""Pretraining of the text encoders of `sketch`, on captions alone, before the fit of the flow.

FLUX uses a T5 and a CLIP that were trained on large corpora. The encoders of `sketch` are too small for that, but they
learn the meaning of captions in a few minutes. A small probe on the output of each encoder classifies questions about
the scene, and one matrix in it predicts the latents of the scene's objects (the appearance targets). An object's
latents are then a linear function of its encoding, so the flow, which is fitted next, need not learn words and
appearances at once. The output of CLIP is a single vector, so its probe predicts the first object only.

Which of two objects is left of the other depends on word order alone, and a T5 with random position biases does not
learn word order within the budget. So the biases of two heads are initialised to attend to the left and to the right
(`init_directional_heads`), and a third loss makes each token predict the subject that it describes.

Dimension key: B batch, T tokens, W width, Q questions, S subjects, P values of an appearance target.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from allaprima.flux import SKETCH, Autoencoder, CLIPTextEncoder, T5Encoder
from training.data.art import COLOUR_VARIANTS, Art
from training.data.backgrounds import BACKGROUNDS, OPEN
from training.data.caption_tokens import CaptionTokenizer
from training.data.latents import device_of, encode_pixels
from training.data.layout import BIG, USUAL
from training.data.objects import ACCESSORIES, OBJECTS
from training.data.scenes import MAX_OBJECTS, RELATIONS, SIZES, Scene, Subject, compose
from training.fit.loop import Fit
from training.fit.optimizers import Optimizers

BATCH = 128
RATE = 2e-3
#: Weight of the loss of the subject tags. A tag is the number of the subject that a token describes.
TAGGING_WEIGHT = 10.0
#: Penalties on the logits of a directional head: for keys in the other direction, and per bucket of distance.
BACKWARD_PENALTY, DISTANCE_PENALTY = 4.0, 0.3
_BACKGROUNDS = (*BACKGROUNDS, OPEN)
_ICONS = (None, *(obj.icon for obj in OBJECTS))
_VARIANTS = (None, *COLOUR_VARIANTS)
_SIZES = (None, "small", "big")
_ACCESSORIES = (None, *(accessory.icon for accessory in ACCESSORIES))
_RELATIONS = (None, *RELATIONS)
#: Number of classes of each question about the scene, and of each about one subject.
SCENE_CLASSES = (len(_BACKGROUNDS), len(_RELATIONS))
SUBJECT_CLASSES = (len(_ICONS), MAX_OBJECTS, len(_VARIANTS), len(_SIZES), len(_ACCESSORIES))
#: Sides in cells of the two drawings of an object in its appearance target, and the number of values of the target.
APPEARANCE_CELLS = (USUAL, BIG)
APPEARANCE_VALUES = sum(cells**2 for cells in APPEARANCE_CELLS) * SKETCH.transformer.in_channels
#: Weight of the loss of the appearance targets. At the start the weighted loss is about as large as that of 20
#: questions.
APPEARANCE_WEIGHT = 20.0


def init_directional_heads(t5: T5Encoder) -> None:
    """Change the position biases of a new T5 so that its first head attends to the left and its second to the right.

    Both attend more to near tokens than to far ones. The biases of the other heads do not change.
    """
    table = t5.get_submodule("encoder.block.0.layer.0.SelfAttention.relative_attention_bias")
    assert isinstance(table, nn.Embedding)
    # The table is (buckets, heads). The first half of the buckets is for keys at and to the left of a token, by
    # distance.
    left, right = table.weight.detach().chunk(2)
    distance = DISTANCE_PENALTY * torch.arange(len(left))
    for ahead, behind, head in ((left, right, 0), (right, left, 1)):
        ahead[:, head] -= distance
        behind[:, head] -= BACKWARD_PENALTY + distance
    left[0, :2] -= BACKWARD_PENALTY


class CaptionProbe(nn.Module):
    """Classifies each question, and predicts the appearance of each subject, from attention-pooled encoder tokens.

    The attribute names are part of the format of `reading.ckpt`.
    """

    def __init__(self, width: int, classes: tuple[int, ...], subjects: int) -> None:
        """classes: number of classes of each question. subjects: number of subjects whose appearance is predicted."""
        super().__init__()
        self.attention = nn.Linear(width, len(classes) + subjects)
        self.answer = nn.ModuleList(nn.Linear(width, count) for count in classes)
        self.draw = nn.Linear(width, APPEARANCE_VALUES)

    def forward(self, tokens: Tensor) -> tuple[list[Tensor], Tensor]:
        """Encoder tokens (B, T, W) -> logits of Q questions, (B, classes) each, and appearances (B, S, P)."""
        weights = self.attention(tokens).softmax(dim=1)  # (B, T, Q + S)
        pooled = weights.transpose(1, 2) @ tokens  # (B, Q + S, W)
        count = len(self.answer)
        return [answer(pooled[:, i]) for i, answer in enumerate(self.answer)], self.draw(pooled[:, count:])


class AppearanceTargets:
    """Computes the appearance targets of subjects: an object's latents on grey minus those of the grey background."""

    def __init__(self, art: Art, autoencoder: Autoencoder) -> None:
        self._art, self._autoencoder = art, autoencoder
        self._device = device_of(autoencoder)

    def targets(self, scenes: list[Scene]) -> Tensor:
        """Return the targets of each scene's subjects, zero for missing subjects: (B, S, P), float32."""
        targets = torch.zeros(len(scenes), MAX_OBJECTS, APPEARANCE_VALUES, device=self._device)
        for i, scene in enumerate(scenes):
            for j, subject in enumerate(scene.subjects):
                targets[i, j] = self._target(subject.icon, subject.variant)
        return targets

    @cache  # noqa: B019 - the cache is needed until the fit ends
    def _target(self, icon: str, variant: str | None) -> Tensor:
        parts = []
        for cells in APPEARANCE_CELLS:
            sprite = torch.from_numpy(self._art.sprite(icon, cells * SKETCH.token_px, variant)).permute(2, 0, 1)
            pixels = 255 * torch.stack((sprite[:3] + 0.5 * (1 - sprite[3:]), torch.full_like(sprite[:3], 0.5)))
            shown, background = encode_pixels(self._autoencoder, pixels.round().to(self._device)).float()
            parts.append((shown - background).flatten())
        return torch.cat(parts)


def scene_labels(scene: Scene) -> tuple[int, ...]:
    """Return the classes of the questions about a scene, then those about each of `MAX_OBJECTS` subjects.

    For missing subjects the classes are 0.
    """
    labels = [_BACKGROUNDS.index(scene.background), _RELATIONS.index(scene.relation)]
    for i in range(MAX_OBJECTS):
        subject = scene.subjects[i] if i < len(scene.subjects) else None
        labels += (0,) * len(SUBJECT_CLASSES) if subject is None else _subject_labels(subject)
    return tuple(labels)


def _subject_labels(subject: Subject) -> tuple[int, ...]:
    return (
        _ICONS.index(subject.icon),
        subject.count - 1,
        _VARIANTS.index(subject.variant),
        _SIZES.index(subject.size),
        _ACCESSORIES.index(subject.accessory),
    )


def pretrain_text_encoders(
    folder: Path,
    appearance_targets: AppearanceTargets,
    t5: T5Encoder,
    clip: CLIPTextEncoder,
    minutes: float,
    scenes: int,
) -> None:
    """Fit both encoders in place for `minutes`, summed over all runs. folder: of the checkpoints.

    scenes: number of scenes in the training data; each use of a scene has a new caption.
    """
    torch.manual_seed(4)
    device = device_of(t5)
    t5_probe = CaptionProbe(SKETCH.t5.d_model, SCENE_CLASSES + MAX_OBJECTS * SUBJECT_CLASSES, MAX_OBJECTS).to(device)
    clip_probe = CaptionProbe(SKETCH.clip.hidden_size, SCENE_CLASSES + SUBJECT_CLASSES, 1).to(device)
    tagger = nn.Linear(SKETCH.t5.d_model, 1 + MAX_OBJECTS).to(device)
    # The names are part of the format of reading.ckpt.
    networks: dict[str, nn.Module] = {
        "t5": t5, "clip": clip, "of_t5": t5_probe, "of_clip": clip_probe, "whose": tagger,
    }  # fmt: skip
    parameters = [parameter for network in networks.values() for parameter in network.parameters()]
    optimizers: Optimizers = [torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)]
    fit = Fit(folder / "reading.ckpt", networks, optimizers, minutes, seed=4)
    sizes = list(SIZES)
    pool = [compose(seed, *sizes[seed % len(sizes)]) for seed in range(scenes)] if fit.progress < 1 else []
    tokenizer = CaptionTokenizer()
    loss = None
    for step in fit.steps():
        rng = np.random.default_rng((4, step))
        batch = [pool[i] for i in rng.integers(scenes, size=BATCH)]
        t5_ids, clip_ids, tags = (ids.to(device) for ids in tokenizer.tokenize_with_subjects(batch, rng))
        labels = torch.tensor([scene_labels(scene) for scene in batch], device=device)
        appearances = appearance_targets.targets(batch)
        tokens = t5(t5_ids)
        predictions = t5_probe(tokens), clip_probe(clip(clip_ids)[:, None])
        tag_logits = tagger(tokens).flatten(0, 1)
        errors = [_appearance_error(predicted, appearances) for _, predicted in predictions]
        loss = torch.stack([_cross_entropy(logits, labels) for logits, _ in predictions]).sum()
        loss = loss + APPEARANCE_WEIGHT * torch.stack(errors).sum()
        loss = loss + TAGGING_WEIGHT * F.cross_entropy(tag_logits, tags.flatten())
        fit.descend(loss)
        if step % 100 == 0:
            accuracies = " ".join(f"{_accuracy(logits, labels):.1%}" for logits, _ in predictions)
            explained = " ".join(f"{1 - error.item():.1%}" for error in errors)
            tagged = f"{_tagging_accuracy(tag_logits, tags.flatten()):.1%}"
            figures = f"accuracy {accuracies} appearance {explained} tags {tagged}"
            print(f"text encoders {fit.progress:6.1%} step {step} loss {loss.item():.4f} {figures}", flush=True)
    print("text encoders done" + ("" if loss is None else f": loss {loss.item():.4f}"), flush=True)


def _cross_entropy(logits: list[Tensor], labels: Tensor) -> Tensor:
    """Return the sum of the cross-entropies of the first len(logits) questions. labels: (B, all questions)."""
    answered = labels[:, : len(logits)].unbind(1)
    return torch.stack([F.cross_entropy(*pair) for pair in zip(logits, answered, strict=True)]).sum()


def _appearance_error(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error divided by the mean square of the targets, which is 1 for a prediction of zeros.

    predicted: (B, number of predicted subjects, P). targets: (B, S, P).
    """
    targets = targets[:, : predicted.shape[1]]
    return (predicted - targets).square().mean() / targets.square().mean()


def _accuracy(logits: list[Tensor], labels: Tensor) -> float:
    """Return the share of captions for which all questions are classified correctly."""
    predicted = torch.stack([one.argmax(1) for one in logits], dim=1)
    return (predicted == labels[:, : len(logits)]).all(1).float().mean().item()


def _tagging_accuracy(logits: Tensor, tags: Tensor) -> float:
    """Return the share of the tokens with a subject that are tagged correctly.

    logits: (B * T, 1 + S); tags: (B * T,).
    """
    return (logits.argmax(1) == tags)[tags > 0].float().mean().item()
