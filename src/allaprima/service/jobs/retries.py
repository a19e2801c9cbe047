"""The times at which refused clients are expected to try again. They spread retries over time; they reserve nothing."""

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field

#: Largest number of expected retries of a key, and of keys, that are tracked.
MAX_PER_KEY, MAX_KEYS = 1_000, 10_000
#: Seconds after its Retry-After within which a request counts as the expected retry.
TOLERANCE_S = 0.1
#: Two retries that are closer than this share of a job's duration would compete for the same slot.
SLOT_TOLERANCE = 0.1


@dataclass(slots=True)
class _Key:
    #: Expected times, in seconds of the monotonic clock, in ascending order.
    times: list[float] = field(default_factory=list)
    #: Whether the key's last expected retry did not come. Such a key counts only for itself.
    is_absent: bool = False
    #: Whether the key has its share of the queue, so that the next slots are for others.
    is_over: bool = False


class ExpectedRetries:
    """The expected retries of each key. Times are in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._keys: dict[str, _Key] = {}

    def take(self, key_id: str, now: float) -> bool:
        """Remove the retry that is expected of a key now, if there is one, and return whether there was."""
        key = self._keys.get(key_id)
        if key is None:
            return False
        missed = bisect_left(key.times, now - TOLERANCE_S)
        if missed:
            key.is_absent = True
            del key.times[:missed]
        is_expected = bool(key.times) and key.times[0] <= now
        if is_expected:
            key.is_absent = False
            del key.times[0]
        if not key.times:
            del self._keys[key_id]
        return is_expected

    def others(self, key_id: str, now: float) -> int:
        """Return the number of other keys that wait for their share of the queue and keep their promises to return."""
        return sum(not key.is_over for key in self._present(key_id, now))

    def wait(
        self, key_id: str, now: float, next_slot_in: float, job_s: float, *, is_retry: bool, is_over: bool
    ) -> float:
        """Return the seconds until a slot frees for a key's request, and expect its retry then.

        Keys take turns: the n-th retry of a key comes after n retries of each other key, and the retries of a key that
        has its share of the queue come after the others. A request that was retried on time, but found the engine
        slower than estimated, gets the next slot without another retry of its key.

        next_slot_in: seconds until the next job leaves the queue. job_s: mean seconds of a job.
        """
        if key_id not in self._keys and len(self._keys) >= MAX_KEYS:
            return next_slot_in
        others = self._present(key_id, now)
        key = self._keys.setdefault(key_id, _Key())
        key.is_over = is_over
        if is_retry:
            slots = 0
            while key.times and self._is_expected(key, now + next_slot_in + slots * job_s, SLOT_TOLERANCE * job_s):
                slots += 1
        else:
            slots = len(key.times) - bisect_right(key.times, now)
            slots += sum(min(len(other.times), slots + 1) for other in others if is_over or not other.is_over)
        wait_s = next_slot_in + slots * job_s
        if len(key.times) < MAX_PER_KEY:
            insort(key.times, now + wait_s)
        return wait_s

    def _present(self, key_id: str, now: float) -> list[_Key]:
        """Return the other keys with expected retries, without those whose last retry did not come."""
        for other_id in [other_id for other_id, key in self._keys.items() if key.times[0] < now - TOLERANCE_S]:
            key = self._keys[other_id]
            key.is_absent = True
            del key.times[: bisect_left(key.times, now - TOLERANCE_S)]
            if not key.times:
                del self._keys[other_id]
        return [key for other_id, key in self._keys.items() if other_id != key_id and not key.is_absent]

    @staticmethod
    def _is_expected(key: _Key, at: float, within_s: float) -> bool:
        """Whether a retry of the key is expected less than `within_s` seconds before or after a time."""
        return bisect_right(key.times, at - within_s) < bisect_left(key.times, at + within_s)
