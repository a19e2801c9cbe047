"""CLIP's byte-level BPE tokenizer, which lower-cases its input.

Source: Radford et al. 2021 (2103.00020), section 2.4; huggingface/transformers `convert_slow_tokenizer.py`.
"""

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
#: Ends the last piece of every word.
END_OF_WORD = "</w>"


def read_clip_tokenizer(vocabulary: Path, merges: Path) -> Tokenizer:
    """Read CLIP's tokenizer from the two files of OpenAI's release. Raises `Exception` for files that can't be read."""
    model = models.BPE.from_file(str(vocabulary), str(merges), unk_token=END, end_of_word_suffix=END_OF_WORD)
    return clip_tokenizer(model)


def clip_tokenizer(model: models.BPE) -> Tokenizer:
    """Return CLIP's tokenizer with these tokens and merges."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pieces = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    # A vocabulary without these tokens is refused later; to add them here would give them new ids.
    special = [token for token in (BEGIN, END) if tokenizer.token_to_id(token) is not None]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return tokenizer
