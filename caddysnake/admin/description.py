"""The OpenAPI description of the API, from the table of endpoints and its models."""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .. import __version__
from .endpoints import ENDPOINTS, Endpoint
from .errors import CODES
from .models import ErrorModel

_REF = "#/components/schemas/{model}"
_JSON = "application/json"
_ALWAYS = ("bad-request", "forbidden-host", "internal")


@cache
def describe() -> dict[str, Any]:
    """The description in OpenAPI 3.1, ready for JSON. Made once; not to be changed."""
    models = {endpoint.model for endpoint in ENDPOINTS if endpoint.model is not None} | {ErrorModel}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema([(model, "serialization") for model in ordered], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    about = "What the daemon of caddysnake tells, and does, for its operator."
    return {
        "openapi": "3.1.0",
        "info": {"title": "caddysnake admin API", "version": __version__, "description": about},
        "paths": paths,
        "components": {"schemas": schemas.get("$defs", {})},
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    responses = {"200": _response("done", endpoint.model, endpoint.gives)}
    by_status: dict[int, list[str]] = {}
    for code in (*_ALWAYS, *endpoint.fails):
        by_status.setdefault(CODES[code].status, []).append(code)
    for status, codes in sorted(by_status.items()):
        responses[str(status)] = _response(f"{HTTPStatus(status).phrase}: {', '.join(codes)}", ErrorModel)
    if endpoint.unhealthy:
        responses["503"] = _response("not so", endpoint.model)
    found: dict[str, Any] = {
        "operationId": endpoint.handler.__name__,
        "summary": endpoint.about,
        "responses": responses,
    }
    if endpoint.parameters:
        found["parameters"] = [
            {
                "name": each.name,
                "in": each.place,
                "description": each.about,
                "required": each.place == "path",
                "schema": each.schema,
            }
            for each in endpoint.parameters
        ]
    if endpoint.takes:
        found["requestBody"] = {"required": False, "content": {endpoint.takes: {"schema": {"type": "string"}}}}
    return found


def _response(about: str, model: type[BaseModel] | None, gives: str = _JSON) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object" if gives == _JSON else "string"}
    if model is not None:
        schema = {"$ref": _REF.format(model=model.__name__)}
    return {"description": about, "content": {gives: {"schema": schema}}}
