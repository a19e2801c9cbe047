"""Which loaded model serves which name."""

from dataclasses import dataclass

from allaprima.domain.models import CATALOG, SKETCH_ID, CatalogEntry, ModelInfo, find
from allaprima.domain.ports import Roster


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A name that requests may use, and the model that generates for it."""

    entry: CatalogEntry
    served_by: ModelInfo

    @property
    def id(self) -> str:
        """The model's id."""
        return self.entry.id

    @property
    def is_fallback(self) -> bool:
        """Whether another model generates for this name."""
        return self.id != self.served_by.id


class Models:
    """Names to models; the built-in model is the fallback for known models whose weights are not on this machine."""

    def __init__(self, roster: Roster, *, has_fallback: bool) -> None:
        self._roster = roster
        self._has_fallback = has_fallback

    def served(self) -> list[ServedModel]:
        """Return every name that can be asked for, in the catalog's order, then models outside the catalog."""
        loaded = {info.id: info for info in self._roster.models}
        fallback = loaded.get(SKETCH_ID) if self._has_fallback else None
        served = []
        for entry in CATALOG:
            if info := loaded.pop(entry.id, None) or fallback:
                served.append(ServedModel(entry, info))
        for info in loaded.values():
            served.append(ServedModel(CatalogEntry(info.id, (), info.name, info.description, "local", "", 0), info))
        return served

    def find(self, name: str) -> ServedModel | None:
        """Return what serves a name: an id or an alias, in any letter case."""
        entry = find(name)
        wanted = entry.id if entry else name
        return next((model for model in self.served() if model.id == wanted), None)
