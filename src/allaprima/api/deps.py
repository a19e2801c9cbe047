"""Dependencies of the routes: the service, the settings, the caller's key.

They are coroutines, short as they are: FastAPI runs plain functions in threads.
"""

import re
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from allaprima.domain.accounts import ApiKey
from allaprima.errors import ManagementOnly, OrdinaryOnly, Unauthorized
from allaprima.service.app import Service
from allaprima.settings import ServerSettings

_CREDENTIAL = re.compile(r"(?P<scheme>bearer|key)\s+(?P<credential>\S+)\s*", re.IGNORECASE)


async def get_service(request: Request) -> Service:
    """The running service."""
    service: Service = request.app.state.service
    return service


async def get_settings(request: Request) -> ServerSettings:
    """The settings of the HTTP side."""
    settings: ServerSettings = request.app.state.settings
    return settings


#: Documents that a key is needed, and how; `get_key` reads the header itself.
_BEARER = HTTPBearer(auto_error=False, description="A key of this server.")


async def get_key(
    request: Request, service: Annotated[Service, Depends(get_service)], _documented: Annotated[Any, Security(_BEARER)]
) -> ApiKey:
    """The caller's key, from `Authorization: Bearer k`, `Key k` or `Key id:k` (the id is the client's own).

    Raises `Unauthorized`.
    """
    found = _CREDENTIAL.fullmatch(request.headers.get("authorization", ""))
    if found is None:
        raise Unauthorized
    credential = found["credential"]
    if found["scheme"].lower() == "key":
        credential = credential.rpartition(":")[2]
    return await service.keys.authenticate(credential)


async def get_management_key(key: Annotated[ApiKey, Depends(get_key)]) -> ApiKey:
    """The caller's key, a management key. Raises `ManagementOnly` for an ordinary one."""
    if not key.is_management:
        raise ManagementOnly
    return key


async def get_ordinary_key(key: Annotated[ApiKey, Depends(get_key)]) -> ApiKey:
    """The caller's key, an ordinary one. Raises `OrdinaryOnly` for a management key."""
    if key.is_management:
        raise OrdinaryOnly
    return key


async def get_image_key(key: Annotated[ApiKey, Depends(get_key)]) -> ApiKey:
    """The caller's key, with the scope `model:image`. Raises `ScopeMissing`, also for a management key."""
    key.require_image_scope()
    return key


ServiceDep = Annotated[Service, Depends(get_service)]
SettingsDep = Annotated[ServerSettings, Depends(get_settings)]
CallerKey = Annotated[ApiKey, Depends(get_key)]
ManagementKey = Annotated[ApiKey, Depends(get_management_key)]
OrdinaryKey = Annotated[ApiKey, Depends(get_ordinary_key)]
ImageKey = Annotated[ApiKey, Depends(get_image_key)]
