"""Results of jobs with `store=false`, in the memory of one process."""

from collections import OrderedDict

from allaprima.domain.generation import GenerationResult
from allaprima.domain.ports import EphemeralResults

#: Largest number of undelivered results; the oldest is dropped first.
MAX_RESULTS = 64


class MemoryEphemeralResults(EphemeralResults):
    """The latest undelivered results."""

    def __init__(self) -> None:
        self._results: OrderedDict[str, GenerationResult] = OrderedDict()

    def put(self, job_id: str, result: GenerationResult) -> None:
        """See `EphemeralResults`."""
        self._results[job_id] = result
        while len(self._results) > MAX_RESULTS:
            self._results.popitem(last=False)

    def take(self, job_id: str) -> GenerationResult | None:
        """See `EphemeralResults`."""
        return self._results.pop(job_id, None)
