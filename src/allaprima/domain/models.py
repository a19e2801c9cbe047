"""Known and loaded models, their precisions, and the length of prompts in tokens."""

import re
from dataclasses import dataclass
from enum import StrEnum


class Precision(StrEnum):
    """Number format of a model's weights. Below 16 bits only the linear layers of the blocks are quantized."""

    FP32 = "fp32"
    BF16 = "bf16"
    #: float8 weights and activations, on GPUs with float8 matrix products.
    FP8 = "fp8"
    #: int8 weights and activations.
    INT8 = "int8"
    #: int8 weights.
    INT8WO = "int8wo"
    #: Four-bit weights.
    INT4WO = "int4wo"


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Length of a prompt in the tokens of a model."""

    used: int
    #: Largest number of tokens that the model reads.
    limit: int

    @property
    def over(self) -> int:
        """Number of tokens that the model ignores."""
        return max(0, self.used - self.limit)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that is loaded or loading."""

    id: str
    #: Hash of the weights; empty while the model loads.
    revision: str
    #: Display name.
    name: str
    description: str
    #: None while the model loads.
    precision: Precision | None = None
    #: Name and version of the kernel library, since the images of two libraries may differ slightly.
    kernels: str = ""
    #: The id that the model's files have. It differs from `id` if the operator named the model.
    own_id: str = ""


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A known model. Its weights need not be on this machine."""

    id: str
    aliases: tuple[str, ...]
    name: str
    description: str
    owned_by: str
    #: Display name of the developer.
    developer: str
    #: Release date of the model in unix seconds.
    created: int


#: Longest id of a model, in characters.
MAX_ID = 64
_ID_PART = r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?"
_ID = re.compile(rf"{_ID_PART}(?:/{_ID_PART})?")

SKETCH_ID = "allaprima/sketch"
SCHNELL_ID = "flux/schnell"

CATALOG: tuple[CatalogEntry, ...] = (
    CatalogEntry(
        SCHNELL_ID,
        ("flux-schnell", "flux.1-schnell", "black-forest-labs/FLUX.1-schnell"),
        "FLUX.1 [schnell]",
        "Text to image in four steps, 12 billion parameters, by Black Forest Labs.",
        "black-forest-labs",
        "Black Forest Labs",
        1722470400,
    ),
    CatalogEntry(
        SKETCH_ID,
        ("sketch",),
        "sketch",
        "The built-in model: small and offline; generates simple flat-art scenes on a CPU in a second.",
        "allaprima",
        "allaprima",
        1795305600,
    ),
)


def find(name: str) -> CatalogEntry | None:
    """Return the catalog entry with an id or alias, or None; case is ignored."""
    wanted = name.lower()
    for entry in CATALOG:
        if wanted in (entry.id.lower(), *map(str.lower, entry.aliases)):
            return entry
    return None


def loading_info(model_id: str, own_id: str, file_name: str) -> ModelInfo:
    """Return the information about a model that is not loaded yet.

    own_id: the id that the model's files have. file_name: name of its file or folder, without the path, which is in the
    description of a model that the operator named.
    """
    entry = find(own_id)
    name, description = (entry.name, entry.description) if entry else (own_id, "")
    if model_id != own_id:
        # A file name may have bytes that are not UTF-8, which no JSON can contain.
        shown = file_name.encode(errors="backslashreplace").decode()
        name, description = model_id, f"{name} from {shown}"
    return ModelInfo(model_id, "", name, description, own_id=own_id)


def id_problem(model_id: str) -> str | None:
    """Return the clause that says why a text is no id of a model, or None for an id, which every route can address."""
    if len(model_id) <= MAX_ID and _ID.fullmatch(model_id):
        return None
    shown = f"{model_id[:MAX_ID]!a}{'...' if len(model_id) > MAX_ID else ''}"
    return (
        f"must be a name or owner/name of at most {MAX_ID} lower-case letters, digits, dots, hyphens and underscores, "
        f"such as flux/mine, with a letter or digit at both ends of each part; it is {shown}"
    )
