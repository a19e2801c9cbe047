"""The response to a deletion."""

from pydantic import BaseModel


class Deleted(BaseModel):
    """A deleted resource."""

    id: str
    object: str
    deleted: bool
