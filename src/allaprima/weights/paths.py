"""Where pulled models lie: `<weights folder>/models/<model>/<layout>`, with a record once they are whole."""

from importlib.resources import files
from pathlib import Path

from platformdirs import user_cache_path

from allaprima.domain.models import SKETCH_ID, find
from allaprima.errors import WeightsMissing

#: Written when every file of a layout is there and has the right hash.
RECORD_FILE = "pulled.json"


def layout_folder(weights_dir: Path, model_id: str, layout: str) -> Path:
    """Return the folder of one layout of a model."""
    return weights_dir / "models" / model_id.replace("/", "-") / layout


def pulled_folders(weights_dir: Path, model_id: str) -> list[Path]:
    """Return the folders of a model's layouts that were pulled whole, the latest first."""
    records = layout_folder(weights_dir, model_id, "").glob(f"*/{RECORD_FILE}")
    return [record.parent for record in sorted(records, key=lambda record: -record.stat().st_mtime_ns)]


def default_folder() -> Path:
    """Return the folder of pulled models and packed weights where the settings name none."""
    return user_cache_path("allaprima")


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
