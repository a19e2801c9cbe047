"""Captions as token ids, with the subject of each token."""

import numpy as np
import torch

from allaprima.flux import SKETCH
from training.data.caption_tokens import CaptionTokenizer, tokenizers
from training.data.captions import caption
from training.data.scenes import FREE_FACTORS, SIZES, Scene, Subject, compose

STILL = (0.0,) * FREE_FACTORS
BEACH = Scene("beach", (Subject("t-rex", accessory="sunglasses"),), None, 512, 512, STILL)


def test_captions_are_tokenized_for_each_encoder():
    tokenizer, rng = CaptionTokenizer(), np.random.default_rng(0)

    t5, clip = tokenizer.tokenize([BEACH] * 20, rng)

    assert t5.shape == (20, SKETCH.t5.length)
    assert clip.shape == (20, SKETCH.clip.length)
    assert len({tuple(row) for row in t5.tolist()}) > 10


def test_tokens_are_tagged_with_their_subject():
    tokenizer, rng = CaptionTokenizer(), np.random.default_rng(0)
    scene = Scene("beach", (Subject("t-rex"), Subject("automobile", variant="blue")), "left", 512, 512, STILL)
    t5_tokenizer, _ = tokenizers()

    t5, clip, tags = tokenizer.tokenize_with_subjects([scene] * 60, rng)

    assert t5.shape == tags.shape
    firsts = set()
    for ids, subjects in zip(t5.tolist(), tags.tolist(), strict=True):
        words = [t5_tokenizer.tokenizer.id_to_token(token) for token in ids]
        tagged = {word: subject for word, subject in zip(words, subjects, strict=True) if subject}
        assert tagged.get("blue") == 2
        assert all(tagged[word] == 1 for word in ("t", "rex", "dinosaur", "tyrannosaurus") if word in tagged)
        assert not {"left", "right", "beach", "sand", "</s>", "<pad>"} & tagged.keys()
        firsts.add(next(subject for subject in subjects if subject))
    assert firsts == {1, 2}
    assert clip.shape == (60, SKETCH.clip.length)


def test_subject_tags_do_not_change_token_ids():
    tokenizer = CaptionTokenizer()
    scenes = [compose(seed, 512, 512) for seed in range(50)]

    plain = tokenizer.tokenize(scenes, np.random.default_rng(1))
    *marked, _ = tokenizer.tokenize_with_subjects(scenes, np.random.default_rng(1))

    assert all(torch.equal(one, other) for one, other in zip(plain, marked, strict=True))


def test_captions_fit_length_of_encoders():
    rng = np.random.default_rng(1)
    sizes = list(SIZES)
    captions = [caption(compose(seed, *sizes[seed % len(sizes)]), rng) for seed in range(3000)]

    for tokenizer in tokenizers():
        assert not any(tokenizer.encode(text).over for text in captions)
