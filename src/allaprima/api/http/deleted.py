"""The answer to a removal."""

from pydantic import BaseModel


class Deleted(BaseModel):
    """A resource that was removed."""

    id: str
    object: str
    deleted: bool
