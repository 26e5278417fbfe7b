"""Who may deliver: sources by name, each with its scheme and secrets. Pure.

The file: `{"sources": {name: {"scheme", "tolerance_s"?, "secrets": [{"id", "secret", "not_before"?,
"not_after"?}]}}}`, times in RFC 3339. Several secrets are valid at once while one replaces another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from gateways.webhooks.schemes import SCHEMES, Scheme
from gateways.webhooks.verify import Secret, key_of
from schemas.environment import SettingError

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Source:
    """One partner."""

    name: str
    scheme: Scheme
    secrets: tuple[Secret, ...]


class _Secret(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    secret: str
    not_before: datetime | None = None
    not_after: datetime | None = None


class _Source(msgspec.Struct, forbid_unknown_fields=True):
    scheme: str
    secrets: list[_Secret]
    tolerance_s: int | None = None


class _File(msgspec.Struct):
    sources: dict[str, _Source]


def parse_sources(text: bytes) -> dict[str, Source]:
    """Read the file's content; SettingError says what is wrong, and never shows a secret."""
    try:
        file = msgspec.json.decode(text, type=_File)
    except msgspec.DecodeError as error:
        raise SettingError(f"HEADRACE_WEBHOOK_SOURCES_FILE is not valid: {error}") from error
    return {name: _source(name, row) for name, row in file.sources.items()}


def _source(name: str, row: _Source) -> Source:
    if _NAME.fullmatch(name) is None:
        raise SettingError(f"webhook source {name!r}: a name is a-z, 0-9, - and _, at most 64")
    scheme = SCHEMES.get(row.scheme)
    if scheme is None:
        known = ", ".join(SCHEMES)
        raise SettingError(f"webhook source {name}: scheme {row.scheme!r} is not one of {known}")
    if row.tolerance_s is not None:
        scheme = replace(scheme, tolerance_s=row.tolerance_s)
    return Source(name, scheme, tuple(_secret(name, scheme, secret) for secret in row.secrets))


def _secret(name: str, scheme: Scheme, row: _Secret) -> Secret:
    try:
        key = key_of(scheme.key_form, row.secret)
    except ValueError:
        form = scheme.key_form.value
        raise SettingError(f"webhook source {name}: secret {row.id} is not {form}") from None
    return Secret(row.id, key, _us(name, row.not_before), _us(name, row.not_after))


def _us(name: str, moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise SettingError(f"webhook source {name}: times need an offset, such as Z")
    return (moment - _EPOCH) // timedelta(microseconds=1)
