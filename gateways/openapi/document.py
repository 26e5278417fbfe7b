"""OpenAPI 3.1 out of the route table and the msgspec types. Pure.

What validates a body and what renders an answer are the types in the document, so it can't drift
from the code; every problem code of `problems.KINDS` is listed with the problem's schema.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateways.auth import SCOPES
from gateways.http.routing import Answer, Parameter, Route
from gateways.problems import KINDS, Problem

VERSION: Final = "1.0.0"
_REF: Final = "#/components/schemas/{name}"
_PROBLEMS: Final = {
    400: "Malformed: the JSON, the query or the Idempotency-Key",
    401: "No valid API key",
    403: "The API key lacks the scope",
    404: "No such resource",
    411: "No Content-Length",
    413: "The body is too large",
    415: "The body's media type is not supported",
    422: "A rule is broken, or the idempotency key was used with another request",
    429: "The API key sends too many requests: see Retry-After and RateLimit",
    503: "Retry later, with the same Idempotency-Key",
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the whole document."""
    types = _types(routes)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "headrace",
            "version": VERSION,
            "summary": "A streaming payments backend",
            "description": "Amounts are integers in minor units. Every answer carries Request-Id. "
            "A 202 means that the request is durable. Retry with the same Idempotency-Key.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": f"An API key; scopes: {', '.join(SCOPES)}",
                }
            },
            "responses": {
                f"Problem{status}": _problem(status, text) for status, text in _PROBLEMS.items()
            },
        },
    }


def _types(routes: Sequence[Route]) -> list[Any]:
    found: dict[Any, None] = {Problem: None}
    for route in routes:
        if route.request is not None:
            found[route.request] = None
        for answer in route.answers:
            if answer.body is not None:
                found[answer.body] = None
    return list(found)


def _operation(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", route.path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    parameters += [_parameter(parameter) for parameter in route.parameters]
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "responses": _responses(route, schemas),
    }
    if parameters:
        operation["parameters"] = parameters
    if route.scope is not None:
        operation["security"] = [{"key": []}]
        operation["description"] = f"Needs the scope `{route.scope}`."
    if route.takes_body:
        media_type = (route.media_type or b"application/octet-stream").decode()
        schema = schemas[route.request] if route.request is not None else {}
        content = {media_type: {"schema": schema}}
        operation["requestBody"] = {"required": not route.body_optional, "content": content}
    return operation


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "required": parameter.required,
        "schema": parameter.schema,
    }


def _responses(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    responses = {str(answer.status): _response(answer, schemas) for answer in route.answers}
    statuses = {503} if not route.always else set()
    if route.scope is not None:
        statuses |= {401, 403, 429}
    if "{" in route.path:
        statuses.add(404)
    if route.takes_body:
        statuses |= {413} if route.body_optional else {411, 413}
    if route.media_type is not None:
        statuses |= {400, 415, 422}
    if any(parameter.place == "query" for parameter in route.parameters):
        statuses.add(400)
    for status in sorted(statuses):
        responses.setdefault(str(status), {"$ref": f"#/components/responses/Problem{status}"})
    return responses


def _response(answer: Answer, schemas: dict[Any, Any]) -> dict[str, Any]:
    schema = schemas[answer.body] if answer.body is not None else {}
    return {
        "description": answer.description,
        "headers": {"Request-Id": {"schema": {"type": "string"}}},
        "content": {answer.media_type: {"schema": schema}},
    }


def _problem(status: int, text: str) -> dict[str, Any]:
    codes = ", ".join(f"`{code}`" for code, kind in KINDS.items() if kind.status == status)
    return {
        "description": f"{text}. Codes: {codes}",
        "headers": {"Request-Id": {"schema": {"type": "string"}}},
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
