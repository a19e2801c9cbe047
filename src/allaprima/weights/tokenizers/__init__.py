"""Tokenizers of prompts, without torch: those of the built-in model and of FLUX.1 [schnell]."""

from allaprima.weights.tokenizers.prompt import (
    END,
    PAD,
    SPECIAL_TOKENS,
    UNKNOWN,
    PromptTokenizer,
    Tokens,
    read_word_list,
    word_t5_tokenizer,
    word_tokenizer,
    word_tokenizers,
)
from allaprima.weights.tokenizers.sources import PUBLISHED_T5_LENGTH, TokenizerSources, find_tokenizers

__all__ = [
    "END",
    "PAD",
    "PUBLISHED_T5_LENGTH",
    "SPECIAL_TOKENS",
    "UNKNOWN",
    "PromptTokenizer",
    "TokenizerSources",
    "Tokens",
    "find_tokenizers",
    "read_word_list",
    "word_t5_tokenizer",
    "word_tokenizer",
    "word_tokenizers",
]
