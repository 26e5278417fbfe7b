"""Who calls: API keys as bearer tokens, kept as SHA-256 only. Pure.

A key is looked up by its hash, so what a look-up takes says nothing of the keys that exist; the
hashes are compared in constant time all the same. The file: `{"keys": [{"id", "sha256", "tenant",
"scopes", "quota"}]}`; the scope `*` stands for all of `SCOPES`; without a quota there is no limit.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from gateways.problems import Refused
from gateways.quota import Quota
from schemas.environment import SettingError

SCOPES: Final = ("accounts:read", "accounts:write", "payments:read", "payments:write")
TOKEN_BYTES_MAX: Final = 512

_CHALLENGE: Final = b'WWW-Authenticate: Bearer realm="headrace"\r\n'
_INVALID: Final = b'WWW-Authenticate: Bearer realm="headrace", error="invalid_token"\r\n'


@dataclass(frozen=True, slots=True)
class Principal:
    """The owner of a key."""

    key_id: str
    tenant: str
    scopes: frozenset[str]
    quota: Quota | None = None


class _Key(msgspec.Struct, forbid_unknown_fields=True):
    id: Annotated[str, msgspec.Meta(min_length=1)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    tenant: Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9_-]{0,63}$")]
    scopes: list[str]
    quota: Quota | None = None


class _File(msgspec.Struct):
    keys: list[_Key]


class Keyring:
    """The keys that are let in."""

    def __init__(self, principals: dict[bytes, Principal]) -> None:
        self._principals = {digest: (digest, who) for digest, who in principals.items()}

    def identify(self, authorization: bytes | None) -> Principal:
        """Return whose key the Authorization header carries; Refused (401) when nobody's."""
        if authorization is None:
            detail = "Send Authorization: Bearer <key>."
            raise Refused("unauthenticated", detail, headers=_CHALLENGE)
        scheme, _, token = authorization.partition(b" ")
        token = token.strip()
        if scheme.lower() != b"bearer" or not 0 < len(token) <= TOKEN_BYTES_MAX:
            detail = "The Authorization header is not of the form: Bearer <key>."
            raise Refused("unauthenticated", detail, headers=_CHALLENGE)
        digest = hashlib.sha256(token).digest()
        kept, principal = self._principals.get(digest, _NOBODY)
        if principal is None or not hmac.compare_digest(kept, digest):
            raise Refused("unauthenticated", "The API key is not known.", headers=_INVALID)
        return principal


_NOBODY: Final[tuple[bytes, Principal | None]] = (b"", None)


def parse_keys(text: bytes) -> Keyring:
    """Read the key file's content; SettingError says what is wrong with it."""
    try:
        file = msgspec.json.decode(text, type=_File)
    except msgspec.DecodeError as error:
        raise SettingError(f"HEADRACE_API_KEYS_FILE is not a file of API keys: {error}") from error
    principals = {}
    for key in file.keys:
        unknown = set(key.scopes) - {*SCOPES, "*"}
        if unknown:
            raise SettingError(f"API key {key.id} has unknown scopes: {', '.join(sorted(unknown))}")
        scopes = frozenset(SCOPES if "*" in key.scopes else key.scopes)
        principals[bytes.fromhex(key.sha256)] = Principal(key.id, key.tenant, scopes, key.quota)
    return Keyring(principals)


def require(principal: Principal, scope: str) -> None:
    """Raise Refused (403) when the key lacks the scope."""
    if scope not in principal.scopes:
        challenge = f'WWW-Authenticate: Bearer error="insufficient_scope", scope="{scope}"\r\n'
        detail = f"The API key {principal.key_id} lacks the scope {scope}."
        raise Refused("scope_missing", detail, headers=challenge.encode())
