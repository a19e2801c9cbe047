"""The operator's bound on the bytes of all stored images."""

from allaprima.domain.clock import Clock
from allaprima.errors import ImageLimitReached
from allaprima.store.images import ImageRepository

#: Share of the bound from which the operator is warned.
WARNING_SHARE = 0.9


class ImageSpace:
    """Refuses requests while the images fill their space."""

    def __init__(self, images: ImageRepository, clock: Clock, max_bytes: int | None) -> None:
        """max_bytes: most bytes of all images; None: unlimited."""
        self._images = images
        self._clock = clock
        self._max_bytes = max_bytes

    async def check(self) -> None:
        """Raise `ImageLimitReached` if the images fill their space after the expired ones are removed.

        Jobs that were accepted before are still generated and stored.
        """
        if self._max_bytes is None or await self._images.total_bytes() < self._max_bytes:
            return
        await self._images.remove_expired(self._clock())
        if await self._images.total_bytes() >= self._max_bytes:
            raise ImageLimitReached

    async def warning(self) -> str | None:
        """Return a sentence for the operator if the images fill most of their space; else None."""
        if self._max_bytes is None:
            return None
        share = await self._images.total_bytes() / self._max_bytes
        return space_warning(share) if share >= WARNING_SHARE else None


def space_warning(share: float) -> str:
    """Return the sentence that warns the operator. share: of the bound, 1.0 for all of it."""
    effect = "new requests are refused" if share >= 1 else "at 100% new requests will be refused"
    filled = f"the stored images fill {int(share * 100)}% of ALLAPRIMA_STORE__MAX_IMAGE_BYTES"
    return f"{filled}; {effect}, so delete images or raise the setting"
