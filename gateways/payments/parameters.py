"""Query strings: which parameters are known, limits, times, and sealed cursors. Pure.

A cursor is opaque: a version, a seal over the filters that it was made with, and a place. One that
was made with other filters, or by someone else, is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import parse_qsl

from gateways.payments import times
from gateways.payments.lists import Place
from gateways.problems import Refused, bad_query

LIMIT_DEFAULT: Final = 20
LIMIT_MAX: Final = 100
METADATA: Final = "metadata."
METADATA_NAME_MAX: Final = 40
METADATA_VALUE_MAX: Final = 500
REFERENCE_MAX: Final = 140
_DIGITS_MAX: Final = 18
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_VERSION: Final = b"1"


def pairs(query: str, known: Sequence[str]) -> dict[str, str]:
    """Read a query string; Refused (400) names the parameter that is wrong.

    A known one that ends in a dot stands for all that begin with it.
    """
    families = tuple(name for name in known if name.endswith("."))
    try:
        found = parse_qsl(
            query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=16
        )
    except ValueError as error:
        raise Refused("query_invalid", f"The query string can't be read: {error}.") from error
    given: dict[str, str] = {}
    for name, value in found:
        if (name not in known or name in families) and not _in_family(name, families):
            raise bad_query(name, "parameter_unknown", f"known are {', '.join(known)}")
        if _CONTROL.search(value) or _CONTROL.search(name):
            raise bad_query(name, "characters_invalid", "control characters are not taken")
        if name in given:
            raise bad_query(name, "parameter_repeated", "was given twice")
        given[name] = value
    return given


def text_of(name: str, given: dict[str, str], chars_max: int) -> str | None:
    """Return a text as it was given; Refused (400) when it is longer than any that is kept."""
    text = given.get(name)
    if text is not None and len(text) > chars_max:
        raise bad_query(name, "length_out_of_range", f"has at most {chars_max} characters")
    return text


def metadata_of(given: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of `metadata.<name>=<value>`, in the order of their names."""
    found = []
    for parameter in sorted(given):
        name = parameter.removeprefix(METADATA)
        if name == parameter:
            continue
        if len(name) > METADATA_NAME_MAX:
            detail = f"a name has at most {METADATA_NAME_MAX} characters"
            raise bad_query(parameter, "length_out_of_range", detail)
        value = text_of(parameter, given, METADATA_VALUE_MAX)
        assert value is not None
        found.append((name, value))
    return tuple(found)


def limit_of(given: dict[str, str]) -> int:
    """Return how many a page holds."""
    limit = given.get("limit", str(LIMIT_DEFAULT))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= LIMIT_MAX):
        raise bad_query("limit", "out_of_range", f"must be an integer in 1..{LIMIT_MAX}")
    return int(limit)


def time_of(name: str, given: dict[str, str]) -> int | None:
    """Return a time in microseconds since the epoch, or None where it was not given."""
    text = given.get(name)
    if text is None:
        return None
    at_us = times.parse(text)
    if at_us is None:
        detail = "must be an RFC 3339 time, such as 2026-01-31T12:00:00Z"
        raise bad_query(name, "format_invalid", detail)
    return at_us


def range_of(given: dict[str, str]) -> tuple[int | None, int | None]:
    """Return the times `from` and `to`; Refused (400) where nothing lies between them."""
    from_us, to_us = time_of("from", given), time_of("to", given)
    if from_us is not None and to_us is not None and to_us < from_us:
        raise bad_query("to", "out_of_range", "lies before from")
    return from_us, to_us


def seal_place(place: Place, filters: tuple[object, ...]) -> str:
    """Return the cursor that continues a list after a place."""
    return seal_cursor(f"{place.at_us}|{place.id}", filters)


def open_place(cursor: str, filters: tuple[object, ...], is_id: Callable[[str], bool]) -> Place:
    """Return the place that a cursor names; Refused unless it was made with the same filters."""
    at, _, named = open_cursor(cursor, filters).partition("|")
    if not (at.isdigit() and len(at) <= _DIGITS_MAX and is_id(named)):
        raise bad_cursor("is not a cursor of ours")
    return Place(int(at), named)


def seal_cursor(place: str, filters: tuple[object, ...]) -> str:
    """Return the cursor that continues a list after a place."""
    data = _VERSION + _seal(filters) + place.encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def open_cursor(cursor: str, filters: tuple[object, ...]) -> str:
    """Return the place that a cursor names; Refused unless it was made with the same filters."""
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        version, seal, place = data[:1], data[1:9], data[9:].decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise bad_cursor("is not a cursor of ours") from error
    if version != _VERSION:
        raise bad_cursor("is not a cursor of ours")
    if seal != _seal(filters):
        raise bad_cursor("belongs to a list with other filters")
    return place


def bad_cursor(detail: str) -> Refused:
    """Refuse a cursor."""
    return bad_query("cursor", "cursor_invalid", detail)


def _in_family(name: str, families: tuple[str, ...]) -> bool:
    return any(name.startswith(family) and name != family for family in families)


def _seal(filters: tuple[object, ...]) -> bytes:
    return hashlib.sha256(repr(filters).encode()).digest()[:8]
