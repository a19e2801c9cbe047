"""Where pulled models lie: `<weights folder>/models/<model>/<layout>`, with a record once they are whole."""

from pathlib import Path

from platformdirs import user_cache_path

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
    """Return the folder of pulled models and of shelves where the settings name none."""
    return user_cache_path("allaprima")
