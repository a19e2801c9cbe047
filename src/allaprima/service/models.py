"""The names that requests can use, and the loaded model that serves each of them."""

from dataclasses import dataclass

from allaprima.domain.models import CATALOG, SKETCH_ID, CatalogEntry, ModelInfo, find
from allaprima.domain.ports import Roster


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that requests can name, and the loaded model that generates its images."""

    entry: CatalogEntry
    served_by: ModelInfo

    @property
    def id(self) -> str:
        """The id that requests name."""
        return self.entry.id

    @property
    def is_fallback(self) -> bool:
        """Whether another model generates the images."""
        return self.id != self.served_by.id


class Models:
    """Resolves names of models. The built-in model is the fallback for known models that are not loaded."""

    def __init__(self, roster: Roster, *, has_fallback: bool) -> None:
        self._roster = roster
        self._has_fallback = has_fallback

    def served(self) -> list[ServedModel]:
        """Return all served models: first those of the catalog, in its order, then the others."""
        loaded = {info.id: info for info in self._roster.models}
        fallback = loaded.get(SKETCH_ID) if self._has_fallback else None
        served = []
        for entry in CATALOG:
            if info := loaded.pop(entry.id, None) or fallback:
                served.append(ServedModel(entry, info))
        for info in loaded.values():
            served.append(ServedModel(_entry(info), info))
        return served

    def find(self, name: str) -> ServedModel | None:
        """Return the served model with an id or alias, or None. The case of catalog names is ignored."""
        entry = find(name)
        wanted = entry.id if entry else name
        return next((model for model in self.served() if model.id == wanted), None)


def _entry(info: ModelInfo) -> CatalogEntry:
    """Return the entry of a model outside the catalog. A model that the operator named has its catalog's developer."""
    known = find(info.own_id)
    return CatalogEntry(info.id, (), info.name, info.description, "local", known.developer if known else "", 0)
