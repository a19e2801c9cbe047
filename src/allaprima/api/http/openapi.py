"""The OpenAPI document: bodies that routes read themselves, and corrections of what the framework writes."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from allaprima.api.dialects.aiml.requests import body_schema

_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")


def request_body() -> dict[str, Any]:
    """Return how the document shows the body of a generation request."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": body_schema()}}}}


def body_of(model: type[BaseModel], *, is_required: bool) -> dict[str, Any]:
    """Return how the document shows a body that a route reads itself, without references."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    content = {"application/json": {"schema": _inlined(schema, definitions)}}
    return {"requestBody": {"required": is_required, "content": content}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _inlined(value, definitions) for name, value in schema.items()}


def correct_document(app: FastAPI, models: list[str]) -> None:
    """Remove the 422 that the framework documents for every parameter, which is never answered, and name the models."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _correct(generate(), models)
        return generate()

    # The framework's documented way.
    app.openapi = openapi  # type: ignore[method-assign]


def _correct(document: dict[str, Any], models: list[str]) -> None:
    for path in ("/v1/images/generations", "/v1/jobs"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        body["properties"]["model"]["enum"] = models
    for methods in document["paths"].values():
        for operation in methods.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    schemas = document.get("components", {}).get("schemas", {})
    for name in _FRAMEWORKS_OWN:
        schemas.pop(name, None)
