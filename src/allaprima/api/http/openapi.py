"""Completes the OpenAPI document: adds the bodies that routes parse themselves, and removes wrong responses."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from allaprima.api.dialects.aiml.requests import body_schema

_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")


#: The responses to requests that are refused before their route is looked for.
_OF_EVERY_ROUTE = {
    status: {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}},
    }
    for status, description in (("414", "The URL is too long."), ("431", "The request has too many headers."))
}


def request_body() -> dict[str, Any]:
    """Return the body of a generation request for the OpenAPI document."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": body_schema()}}}}


def body_of(model: type[BaseModel], *, is_required: bool) -> dict[str, Any]:
    """Return a body that a route parses itself for the OpenAPI document, with references resolved."""
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
    """Remove the 422 that FastAPI documents but the server never sends, and list the models. models: their names."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _correct(generate(), models)
        return generate()

    # FastAPI documents this assignment as the way to change the document.
    app.openapi = openapi  # type: ignore[method-assign]


def _correct(document: dict[str, Any], models: list[str]) -> None:
    for path in ("/v1/images/generations", "/v1/jobs"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        body["properties"]["model"]["enum"] = models
    for methods in document["paths"].values():
        for operation in methods.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
            operation["responses"] |= _OF_EVERY_ROUTE
    schemas = document.get("components", {}).get("schemas", {})
    for name in _FRAMEWORKS_OWN:
        schemas.pop(name, None)
