"""The result of one check of `allaprima doctor`."""

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    message: str
    is_ok: bool = True
    #: Whether allaprima can't generate images if the check fails.
    is_required: bool = False
    #: What a failed check means: that something is missing, or a warning.
    failure: Literal["missing", "warning"] = "missing"

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        values = asdict(self)
        del values["failure"]
        return values
