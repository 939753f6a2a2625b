"""Errors to HTTP: one table from class to status, one body shape (RFC 9457)."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from perso.errors import (
    ArtifactError,
    ClusterError,
    EventLogError,
    FeatureStoreError,
    InputError,
    NoChampionError,
    PersoError,
    UnknownIdError,
)

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

STATUS: Final[Mapping[type[PersoError], HTTPStatus]] = MappingProxyType(
    {
        InputError: HTTPStatus.BAD_REQUEST,
        UnknownIdError: HTTPStatus.NOT_FOUND,
        NoChampionError: HTTPStatus.SERVICE_UNAVAILABLE,
        ArtifactError: HTTPStatus.SERVICE_UNAVAILABLE,
        EventLogError: HTTPStatus.SERVICE_UNAVAILABLE,
        FeatureStoreError: HTTPStatus.SERVICE_UNAVAILABLE,
        ClusterError: HTTPStatus.SERVICE_UNAVAILABLE,
        PersoError: HTTPStatus.INTERNAL_SERVER_ERROR,
    }
)
"""What each error of the library means to a client; the nearest base class counts."""

PROBLEM_SCHEMA: Final = MappingProxyType(
    {
        "title": "Problem",
        "description": "What went wrong (RFC 9457).",
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "description": "Stable name of the kind of problem."},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "errors": {
                "type": "array",
                "description": "Fields to put right; only with status 422.",
                "items": {
                    "type": "object",
                    "required": ["field", "message"],
                    "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
                },
            },
        },
    }
)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the problems that a route answers with."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


def install_problems(app: FastAPI) -> None:
    """Answer every error of the app as a problem, and say so in its OpenAPI document."""
    for error_type in STATUS:
        app.add_exception_handler(error_type, _on_perso_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_bug)
    plain_openapi = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain_openapi()
        schemas = document["components"]["schemas"]
        schemas["Problem"] = dict(PROBLEM_SCHEMA)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _problem(
    status: HTTPStatus,
    kind: str,
    detail: str,
    *,
    errors: Sequence[Mapping[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    body: dict[str, Any] = {
        "type": f"urn:perso:problem:{kind}",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
    }
    if errors is not None:
        body["errors"] = errors
    return JSONResponse(body, status.value, headers, media_type=MEDIA_TYPE)


async def _on_perso_error(_: Request, error: Exception) -> JSONResponse:
    error_type = next(base for base in type(error).__mro__ if base in STATUS)
    kind = error_type.__name__.removesuffix("Error")
    name = "".join(f"-{c.lower()}" if c.isupper() else c for c in kind).lstrip("-")
    return _problem(STATUS[error_type], name, str(error))


async def _on_invalid_request(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = [
        {"field": _field_of(problem), "message": problem["msg"]} for problem in error.errors()
    ]
    listed = "; ".join(f"{e['field']}: {e['message']}" for e in errors[:3])
    more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
    return _problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", listed + more, errors=errors
    )


def _field_of(problem: Mapping[str, Any]) -> str:
    """``filter.price.min``, ``[3].item_id``: the place in the body, query or path."""
    if problem["type"] == "json_invalid":
        return "body"
    _, *place = problem["loc"]  # body, query or path: the names do not clash
    if place and place[0] in {"event", "batch"}:  # which shape of the events body was meant
        place = place[1:]
    named = problem.get("ctx", {}).get("field")  # a rule about several fields
    parts = [*place, named] if named else place
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".") or "body"


async def _on_http_exception(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    kind = status.phrase.lower().replace(" ", "-")
    return _problem(status, kind, str(error.detail), headers=error.headers)


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    # Starlette raises the error again after this answer, and the server logs its traceback.
    logger.error("%s %s failed: %r", request.method, request.url.path, error)
    return _problem(
        HTTPStatus.INTERNAL_SERVER_ERROR, "bug", "this is a bug; the server's log says more"
    )
