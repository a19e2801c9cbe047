"""The models that allaprima knows by name, whether or not their weights are here."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from allaprima.errors import WeightsMissing
from allaprima.weights.pulled import pulled_folders

SKETCH_ID = "allaprima/sketch"
SCHNELL_ID = "flux/schnell"


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model by its id, and what people call it."""

    id: str
    aliases: tuple[str, ...]
    name: str
    description: str
    owned_by: str
    #: Who made it, as people write it.
    developer: str
    #: When the model came out, unix seconds.
    created: int


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
        "The built-in model: small, offline, paints simple scenes of flat art in a second on a CPU.",
        "allaprima",
        "allaprima",
        1795305600,
    ),
)


def find(name: str) -> CatalogEntry | None:
    """Return the entry whose id or alias is `name`, in any letter case."""
    wanted = name.lower()
    for entry in CATALOG:
        if wanted in (entry.id.lower(), *map(str.lower, entry.aliases)):
            return entry
    return None


def sketch_folder() -> Path:
    """Return the folder of the built-in model's files inside the package."""
    return Path(str(files("allaprima.weights") / "sketch"))


def find_path(model: str, weights_dir: Path) -> Path:
    """Return where a model lies, given by path or by name: then it is the built-in one, or what was pulled last.

    Raises `WeightsMissing` for a name without weights.
    """
    entry = find(model)
    if entry is None or Path(model).exists():
        return Path(model)
    if entry.id == SKETCH_ID:
        return sketch_folder()
    if pulled := pulled_folders(weights_dir, entry.id):
        return pulled[0]
    raise WeightsMissing(
        f"{entry.id} has no weights here; fetch them with `allaprima pull {entry.id}`, or name the folder or file that "
        "has them with --model"
    )
