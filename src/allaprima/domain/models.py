"""Models by name: what allaprima knows, what is loaded, and what a model says of a prompt."""

from dataclasses import dataclass
from enum import StrEnum


class Precision(StrEnum):
    """Number format of a model's weights. Below 16 bits only the blocks' linears are quantized, nearly all of FLUX."""

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
    """Length of a prompt for a model."""

    used: int
    #: Most tokens that the model reads.
    limit: int

    @property
    def over(self) -> int:
        """Tokens that are not read."""
        return max(0, self.used - self.limit)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that is loaded or loading."""

    id: str
    #: Hash of its weights. Empty while it loads.
    revision: str
    #: Shown to people.
    name: str
    description: str
    #: None while it loads.
    precision: Precision | None = None
    #: Kernel library and version: images of two kernel libraries may differ by a bit.
    kernels: str = ""


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model that allaprima knows by name, whether or not its weights are on this machine."""

    id: str
    aliases: tuple[str, ...]
    name: str
    description: str
    owned_by: str
    #: Shown to people.
    developer: str
    #: Release date of the model, unix seconds.
    created: int


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
        "The built-in model: small, offline, generates simple scenes of flat art in a second on a CPU.",
        "allaprima",
        "allaprima",
        1795305600,
    ),
)


def find(name: str) -> CatalogEntry | None:
    """Return the catalog entry whose id or alias is `name`, in any letter case."""
    wanted = name.lower()
    for entry in CATALOG:
        if wanted in (entry.id.lower(), *map(str.lower, entry.aliases)):
            return entry
    return None
