"""The rows of images, for all repositories that read, insert or remove them.

`accounts.image_bytes` is changed in the same transactions, so that it is always the sum of an account's images.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, bindparam, delete, insert, literal_column, or_, update

from allaprima.domain.jobs import Job, StoredImage
from allaprima.store.rows import image_values
from allaprima.store.schema import accounts, images

# Statements that run for every job are built once. Parameters that are not columns start with an underscore.
_INSERT = insert(images)
_ADD_BYTES = (
    update(accounts)
    .where(accounts.c.id == bindparam("_id"))
    .values(image_bytes=accounts.c.image_bytes + bindparam("_bytes"))
)
#: Without a parameter, so that SQLite can use the partial index of starred images.
IS_STARRED = images.c.is_starred == literal_column("1")


def is_alive(now: float) -> ColumnElement[bool]:
    """Return the condition of images that have not expired."""
    return or_(IS_STARRED, images.c.expires_at > now)


def searchable(text: str) -> str:
    """Return a text in the form in which prompts are searched: without differences of letter case and width."""
    return unicodedata.normalize("NFKC", text).casefold()


def insert_images(connection: Connection, job: Job, stored: Sequence[StoredImage]) -> None:
    """Insert the images of a job."""
    if not stored:
        return
    owner = {
        "account_id": job.account_id,
        "key_id": job.key_id,
        "search_text": searchable(job.request.prompt),
    }
    connection.execute(_INSERT, [image_values(image) | owner for image in stored])
    connection.execute(_ADD_BYTES, {"_id": job.account_id, "_bytes": sum(image.size_bytes for image in stored)})


def remove_images(connection: Connection, which: ColumnElement[bool]) -> list[str]:
    """Remove the images that match a condition; return the names of their files, which the caller removes."""
    columns = images.c.object_name, images.c.account_id, images.c.size_bytes
    removed = connection.execute(delete(images).where(which).returning(*columns)).all()
    freed = Counter[str]()
    for _, account_id, size in removed:
        # SQLite stores any value in any column.
        freed[account_id] += size if isinstance(size, int) else 0
    # In the order of their ids, so that two transactions do not wait for each other.
    for account_id, size in sorted(freed.items()):
        connection.execute(_ADD_BYTES, {"_id": account_id, "_bytes": -size})
    return [row.object_name for row in removed]
