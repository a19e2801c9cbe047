"""Removes from a prompt what other programs' prompts have: weights, tags, options, parameters and quoted text.

Sources: the prompt syntax of AUTOMATIC1111's web UI, ComfyUI, InvokeAI and Midjourney.
"""

import re
from dataclasses import dataclass

#: A tag such as `<lora:name:0.8>`, or `embedding:name`.
_TAG = re.compile(r"<[^<>]{1,200}>|\bembedding:[\w.-]+")
#: Everything after these is no description of the image.
_TAIL = re.compile(r"(?:^|[\s,.;])negative prompt:.*|\bsteps: ?\d+, .*", re.IGNORECASE | re.DOTALL)
#: An option of Midjourney with its value; `--no` takes all words up to the next option.
_OPTION = re.compile(r"(?<!\S)--no [^-]*|(?<!\S)(?:--|—)[a-z]+(?: [\d.:]+(?!\w))?(?!\w)", re.IGNORECASE)
#: A quality tag of Pony and similar models.
_SCORE = re.compile(r"\b(?:score|rating|source)_\w+", re.IGNORECASE)
#: The weight of a word or of a part: "(cat:1.2)", "[cat:dog:0.5]", "cat::2".
_WEIGHT = re.compile(r"::?\s*-?\d*\.?\d+(?=[\s)\]},]|$)|:{2}")
_PART = re.compile(r"::\s*-?\d*\.?\d*")
_SCHEDULE = re.compile(r"\[([^\[\]:|]*)[:|][^\[\]]*\]")
_CHOICE = re.compile(r"\{([^{}|]*)(?:\|[^{}]*)?\}")
_WILDCARD = re.compile(r"__[\w/-]+__")
_KEYWORD = re.compile(r"\b(?:BREAK|AND)\b")
#: A number that counts nothing: a ratio, a fraction, an aperture, a size, a range.
_NUMBER = re.compile(r"\b(?:f/)?\d+(?:[.:/x\u00d7]\d+)+\w*|\bf/\d+\w*|#\w+", re.IGNORECASE)
_QUOTED = re.compile(r"[\"“”«»„]([^\"“”«»„]*)[\"“”«»„]")


@dataclass(frozen=True, slots=True)
class Plain:
    """A prompt without the syntax of other programs."""

    text: str
    #: The tags and options that were removed, as written.
    ignored: tuple[str, ...]
    #: Quoted text inside the prompt, which an image would have to show as writing.
    quoted: tuple[str, ...]


def plain(prompt: str) -> Plain:
    """Remove the syntax of other programs from a prompt. Weighted words stay, their weights go."""
    ignored = [match.strip() for pattern in (_TAG, _OPTION, _SCORE, _WILDCARD) for match in pattern.findall(prompt)]
    text = _TAIL.sub("", prompt)
    for pattern in (_TAG, _OPTION, _SCORE, _WILDCARD):
        text = pattern.sub(" ", text)
    text = text.replace("\\(", "(").replace("\\)", ")")
    text = _SCHEDULE.sub(r"\1", _CHOICE.sub(r"\1", text))
    text = _KEYWORD.sub(",", _WEIGHT.sub(" ", _NUMBER.sub(" ", _PART.sub(" , ", text))))
    quoted = []
    if not _is_quotation(text):
        quoted = [match for match in _QUOTED.findall(text) if match.strip()]
        text = _QUOTED.sub(" , ", text)
    text = re.sub(r"[()\[\]{}+*~^=_\\\"“”«»„]", " ", text)
    return Plain(text, tuple(ignored), tuple(quoted))


def _is_quotation(text: str) -> bool:
    """Whether a whole prompt stands in quotation marks."""
    return _QUOTED.fullmatch(text.strip().rstrip(".,!")) is not None
