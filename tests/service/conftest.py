"""The key that the tests submit with."""

import pytest

from allaprima.domain.accounts import ApiKey
from allaprima.service.app import Service


@pytest.fixture
async def owner(service: Service, key: str) -> ApiKey:
    """The record of the first key."""
    return await service.keys.authenticate(key)
