"""The key that the tests submit with. The tests run on both databases."""

import pytest

from allaprima.domain.accounts import ApiKey
from allaprima.service.app import Service
from tests.both_databases import backend, tmp_path

__all__ = ["backend", "tmp_path"]


@pytest.fixture
async def owner(service: Service, key: str) -> ApiKey:
    """The record of the first key."""
    return await service.keys.authenticate(key)
