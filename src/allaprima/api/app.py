"""The ASGI application: routes, middleware and error handlers."""

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from allaprima import __version__
from allaprima.api import prometheus
from allaprima.api.errors import add_error_handlers
from allaprima.api.http.drain import DrainMiddleware
from allaprima.api.http.head import HeadMiddleware
from allaprima.api.http.openapi import correct_document
from allaprima.api.http.request_id import EXPOSED_HEADERS, RequestIdMiddleware
from allaprima.api.http.slashes import SlashMiddleware
from allaprima.api.no_auth import NoAuthGuard
from allaprima.api.prometheus import AccessLogMiddleware
from allaprima.api.v1 import (
    billing,
    events,
    files,
    images,
    jobs,
    keys,
    models,
    sign_in,
    system,
    thumbnails,
    usage,
    webhooks,
)
from allaprima.api.web import routes as web
from allaprima.service.app import Service
from allaprima.settings import ServerSettings

DESCRIPTION = (
    "Text-to-image API, compatible with the hosted flux/schnell endpoint. Authenticate with the header "
    "`Authorization: Bearer <key>`."
)


class ApiCors(CORSMiddleware):
    """Allows web pages of other origins to call the API, but not to read the metrics."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        is_metrics = scope["type"] == "http" and scope["path"] == prometheus.PATH
        await (self.app if is_metrics else super().__call__)(scope, receive, send)


def create_app(settings: ServerSettings, service: Service) -> FastAPI:
    """Return the application that serves a running service."""
    app = FastAPI(
        title="allaprima",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Relative to the document, so that it is right below the path of a proxy.
        servers=[{"url": "."}],
    )
    app.state.settings = settings
    app.state.service = service
    parts = (
        images,
        jobs,
        events,
        files,
        thumbnails,
        keys,
        usage,
        billing,
        webhooks,
        models,
        sign_in,
        system,
        prometheus,
    )
    for part in parts:
        # `include_router` would analyse all routes again, at the first request of every application.
        app.router.routes.extend(part.router.routes)
    web.mount(app)
    correct_document(app, [name for model in service.models.served() for name in (model.id, *model.entry.aliases)])
    add_error_handlers(app)
    app.add_middleware(HeadMiddleware)
    if service.local_key is None:
        app.add_middleware(
            ApiCors,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
            # A page on the internet asks for this before it calls a server on a private network. Its origin decides.
            allow_private_network=True,
        )
    else:
        app.add_middleware(NoAuthGuard)
    app.add_middleware(RequestIdMiddleware)
    app.add_middleware(AccessLogMiddleware, metrics=service.metrics)
    app.add_middleware(DrainMiddleware)
    # The outermost, since the others decide by the path.
    app.add_middleware(SlashMiddleware)
    return app
