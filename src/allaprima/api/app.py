"""The application: routes, middleware, errors, in one readable place."""

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from allaprima import __version__
from allaprima.api import prometheus
from allaprima.api.errors import add_error_handlers
from allaprima.api.http.request_id import EXPOSED_HEADERS, RequestIdMiddleware
from allaprima.api.openapi import correct_document
from allaprima.api.prometheus import AccessLogMiddleware
from allaprima.api.v1 import billing, events, files, groups, images, jobs, keys, models, usage, webhooks
from allaprima.api.web import routes
from allaprima.service.app import Service
from allaprima.settings import ServerSettings

DOCS_FOLDER = Path(__file__).parent / "docs"
DESCRIPTION = (
    "Text to image in the manner of the hosted flux/schnell endpoint. Send the key as `Authorization: Bearer`."
)


def create_app(settings: ServerSettings, service: Service) -> FastAPI:
    """Return the application over a running service."""
    app = FastAPI(
        title="allaprima",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.service = service
    app.state.metrics = service.metrics
    for part in (images, jobs, events, groups, files, keys, usage, billing, webhooks, models, prometheus):
        app.include_router(part.router)
    app.add_route("/docs", _docs, include_in_schema=False)
    app.mount("/docs/assets", StaticFiles(directory=DOCS_FOLDER), name="docs-assets")
    app.include_router(routes.router)
    app.mount("/playground", routes.Assets(), name="playground")
    correct_document(app, [name for model in service.models.served() for name in (model.id, *model.aliases)])
    add_error_handlers(app)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=EXPOSED_HEADERS,
    )
    app.add_middleware(RequestIdMiddleware)
    app.add_middleware(AccessLogMiddleware, prometheus=service.metrics)
    return app


async def _docs(_request: Request) -> HTMLResponse:
    """The API's reference, with assets of our own."""
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="allaprima API",
        swagger_js_url="/docs/assets/swagger-ui-bundle.js",
        swagger_css_url="/docs/assets/swagger-ui.css",
        swagger_favicon_url="/docs/assets/favicon.svg",
    )
