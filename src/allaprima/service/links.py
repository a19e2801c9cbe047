"""Links to pictures that need no key, can't be guessed or forged, and end with the picture.

`/files/<expires>-<signature>/<image id>.<suffix>`, where the signature is HMAC-SHA256 over the rest under a secret of
the data folder.
"""

import base64
import hashlib
import hmac

from allaprima.domain.jobs import StoredImage
from allaprima.errors import ImageNotFound


class Links:
    """Signs and reads links."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def path(self, image: StoredImage, until: float | None = None) -> str:
        """Return the link's path; it works until that time, or until the picture expires."""
        name = f"{image.id}.{image.object_name.rpartition('.')[2]}"
        expires = int(image.expires_at if until is None else until)
        return f"/files/{expires}-{self._sign(expires, name)}/{name}"

    def read(self, token: str, name: str, now: float) -> str:
        """Return the image id of a link's two last parts. Raises `ImageNotFound` for any that is not ours or over."""
        expires, _, signature = token.partition("-")
        if not (expires.isascii() and expires.isdigit() and len(expires) < 16 and signature.isascii()):
            raise ImageNotFound
        if not hmac.compare_digest(signature.encode(), self._sign(int(expires), name).encode()):
            raise ImageNotFound
        if int(expires) <= now:
            raise ImageNotFound
        return name.partition(".")[0]

    def _sign(self, expires: int, name: str) -> str:
        text = f"{expires}/{name}".encode("utf-8", "surrogatepass")
        digest = hmac.new(self._secret, text, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest[:24]).decode()
