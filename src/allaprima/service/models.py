"""Which loaded model answers to which name."""

from dataclasses import dataclass

from allaprima.domain.models import CATALOG, SKETCH_ID, CatalogEntry, ModelInfo, find
from allaprima.domain.ports import Engine


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A name that requests may use, and the model that paints for it."""

    id: str
    aliases: tuple[str, ...]
    name: str
    description: str
    owned_by: str
    developer: str
    created: int
    painted_by: ModelInfo

    @property
    def is_stand_in(self) -> bool:
        """Whether another model paints for this name."""
        return self.id != self.painted_by.id


class Models:
    """Names to models, with the built-in model standing in for known models whose weights are not here."""

    def __init__(self, engine: Engine, *, has_stand_in: bool) -> None:
        self._engine = engine
        self._has_stand_in = has_stand_in

    def served(self) -> list[ServedModel]:
        """Return every name that can be asked for, the catalog's order first."""
        loaded = {info.id: info for info in self._engine.models}
        served = []
        for entry in CATALOG:
            info = loaded.pop(entry.id, None) or (self._stand_in() if self._has_stand_in else None)
            if info is not None:
                served.append(_served(entry, info))
        served += [ServedModel(i.id, (), i.name, i.description, "local", "", 0, i) for i in loaded.values()]
        return served

    def find(self, name: str) -> ServedModel | None:
        """Return what serves a name (an id or an alias, in any letter case)."""
        entry = find(name)
        wanted = entry.id if entry else name
        return next((model for model in self.served() if model.id == wanted), None)

    def _stand_in(self) -> ModelInfo | None:
        return next((info for info in self._engine.models if info.id == SKETCH_ID), None)


def _served(entry: CatalogEntry, info: ModelInfo) -> ServedModel:
    return ServedModel(
        entry.id,
        entry.aliases,
        entry.name,
        entry.description,
        entry.owned_by,
        entry.developer,
        entry.created,
        painted_by=info,
    )
