"""The route table's shape and how a request finds its route. Pure.

A route is data: what it is called in metrics, who may use it, what body it takes, how it is
documented, and the function that handles it. Every request has a route: the unknown ones have
`NOT_FOUND`, and a known path with another method has one that names the methods it takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gateways.problems import Refused

if TYPE_CHECKING:
    from gateways.http.exchange import Exchange

Handler = Callable[["Exchange"], None]

BODY_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter or header, for the documentation."""

    name: str
    place: str
    description: str
    required: bool = False
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True)
class Answer:
    """One documented answer of a route; `body` is the type of its JSON, None for other media."""

    status: int
    description: str
    body: Any = None
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. `path` holds `{name}` for each variable segment."""

    method: str
    path: str
    name: str
    handle: Handler
    summary: str = ""
    scope: str | None = None
    body_bytes_max: int = BODY_BYTES_MAX
    media_type: bytes | None = None
    """What the body must be; None where there is none, or where any will do."""
    takes_body: bool = False
    body_optional: bool = False
    """An empty body will do, whatever its media type."""
    always: bool = False
    """Answered even when too many requests are in flight."""
    request: Any = None
    answers: Sequence[Answer] = ()
    parameters: Sequence[Parameter] = ()


def _not_found(exchange: Exchange) -> None:
    raise Refused("not_found", f"There is nothing at {exchange.path}. See /docs.")


NOT_FOUND: Final = Route("*", "*", "unknown", _not_found)


class Router:
    """Finds routes: fixed paths by a dictionary, the others by a regular expression each."""

    def __init__(self, routes: Sequence[Route]) -> None:
        by_path: dict[str, dict[str, Route]] = {}
        for route in routes:
            by_path.setdefault(route.path, {})[route.method] = route
        for path, methods in by_path.items():
            if "GET" in methods:
                methods.setdefault("HEAD", methods["GET"])
            methods[""] = _wrong_method(path, methods)
        self.routes = tuple(routes)
        self._fixed = {path: found for path, found in by_path.items() if "{" not in path}
        self._patterns = [
            (re.compile(re.sub(r"\{\w+\}", "([^/]+)", path)), found)
            for path, found in by_path.items()
            if "{" in path
        ]

    def find(self, method: str, path: str) -> tuple[Route, tuple[str, ...]]:
        """Return the route and the values of the path's variable segments."""
        methods = self._fixed.get(path)
        if methods is not None:
            return methods.get(method) or methods[""], ()
        for pattern, methods in self._patterns:
            match = pattern.fullmatch(path)
            if match is not None:
                return methods.get(method) or methods[""], match.groups()
        return NOT_FOUND, ()


def _wrong_method(path: str, methods: dict[str, Route]) -> Route:
    allowed = ", ".join(sorted(methods))
    return Route("*", path, "wrong_method", partial(_refuse_method, allowed))


def _refuse_method(allowed: str, exchange: Exchange) -> None:
    raise Refused(
        "method_not_allowed",
        f"{exchange.path} takes {allowed}, not {exchange.method}.",
        headers=f"Allow: {allowed}\r\n".encode(),
    )
