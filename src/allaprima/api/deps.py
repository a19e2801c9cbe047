"""Dependencies of the routes: the service, the settings and the caller's API key.

All are coroutines, because FastAPI runs plain functions in a thread pool.
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
    """Return the running service."""
    service: Service = request.app.state.service
    return service


async def get_settings(request: Request) -> ServerSettings:
    """Return the settings of the HTTP server."""
    settings: ServerSettings = request.app.state.settings
    return settings


#: Describes the authentication in the OpenAPI document. `get_key` itself reads the header.
_BEARER = HTTPBearer(auto_error=False, description="An API key of this server.")


async def get_key(
    request: Request, service: Annotated[Service, Depends(get_service)], _documented: Annotated[Any, Security(_BEARER)]
) -> ApiKey:
    """Return the caller's key. Raises `Unauthorized`."""
    return await authenticated(request, service)


async def authenticated(request: Request, service: Service) -> ApiKey:
    """Return the caller's key, sent in `Authorization` as `Bearer k`, `Key k` or `Key id:k` (the id is ignored).

    A request without a key acts as the local key of a server that runs without authentication. Raises `Unauthorized`
    for a missing or invalid key.
    """
    if service.local_key is not None and "authorization" not in request.headers:
        return await service.keys.authenticate(service.local_key)
    found = _CREDENTIAL.fullmatch(request.headers.get("authorization", ""))
    if found is None:
        raise Unauthorized
    credential = found["credential"]
    if found["scheme"].lower() == "key":
        credential = credential.rpartition(":")[2]
    return await service.keys.authenticate(credential)


async def get_management_key(key: Annotated[ApiKey, Depends(get_key)]) -> ApiKey:
    """Return the caller's key if it is a management key. Raises `ManagementOnly` for an ordinary key."""
    if not key.is_management:
        raise ManagementOnly
    return key


async def get_ordinary_key(key: Annotated[ApiKey, Depends(get_key)]) -> ApiKey:
    """Return the caller's key if it is an ordinary key. Raises `OrdinaryOnly` for a management key."""
    if key.is_management:
        raise OrdinaryOnly
    return key


async def get_image_key(key: Annotated[ApiKey, Depends(get_key)]) -> ApiKey:
    """Return the caller's key if it has the scope `model:image`. Raises `ScopeMissing`, also for a management key."""
    key.require_image_scope()
    return key


ServiceDep = Annotated[Service, Depends(get_service)]
SettingsDep = Annotated[ServerSettings, Depends(get_settings)]
CallerKey = Annotated[ApiKey, Depends(get_key)]
ManagementKey = Annotated[ApiKey, Depends(get_management_key)]
OrdinaryKey = Annotated[ApiKey, Depends(get_ordinary_key)]
ImageKey = Annotated[ApiKey, Depends(get_image_key)]
