"""What a request may say about the safety checker, within what the operator and its key allow."""

from dataclasses import dataclass

from allaprima.errors import FieldProblem, InvalidRequest


@dataclass(frozen=True, slots=True)
class SafetyPolicy:
    """The operator's bounds. A picture is withheld from its threshold on, so a lower one is stricter."""

    #: Where neither key nor request says anything.
    default: float
    lowest: float
    highest: float
    #: Whether a request may have its pictures go unlooked at.
    is_optional: bool

    def threshold(self, of_key: float | None, of_request: float | None) -> float:
        """Return the score from which a request's pictures are withheld.

        Raises `InvalidRequest` for one outside the operator's bounds, or laxer than the key's own.
        """
        highest = self.highest if of_key is None else min(self.highest, of_key)
        if of_request is None:
            return min(highest, max(self.lowest, self.default if of_key is None else of_key))
        if not self.lowest <= of_request <= highest:
            problem = f"must be from {min(self.lowest, highest)} to {highest} on this server with this key"
            raise InvalidRequest(FieldProblem("safety_threshold", problem))
        return of_request

    def check_wanted(self, of_key: float | None, *, wanted: bool) -> bool:
        """Return whether a request's pictures are looked at. Raises `InvalidRequest` where they must be."""
        if not wanted and not (self.is_optional and of_key is None):
            raise InvalidRequest(FieldProblem("enable_safety_checker", "can't be switched off here with this key"))
        return wanted
