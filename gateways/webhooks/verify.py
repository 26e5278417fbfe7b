"""Verifies a delivery by its scheme's row. Pure: the time is an argument.

Every secret that is valid now is tried against every signature that counts, in constant time each;
which one matched is part of the verdict. The time is checked after the signature, so that
`timestamp_...` says that a genuine delivery came late or was replayed. Nothing here raises: bad
bytes have a verdict too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateways.webhooks.schemes import Encoding, KeyForm, Layout, Part, Scheme

VERIFIED: Final = "verified"
EVENT_ID_MAX: Final = 255
SIGNATURES_MAX: Final = 16
_TIME_DIGITS_MAX: Final = 12


@dataclass(frozen=True, slots=True)
class Secret:
    """One key of a source, valid from `from_us` until `until_us` (None: always)."""

    secret_id: str
    key: bytes
    from_us: int | None = None
    until_us: int | None = None

    def valid(self, at_us: int) -> bool:
        """Tell whether it may be used at this time."""
        begun = self.from_us is None or self.from_us <= at_us
        return begun and (self.until_us is None or at_us < self.until_us)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found, which secret matched, and the partner's event id (or the body's hash)."""

    result: str
    secret_id: str | None
    event_id: str


@dataclass(frozen=True, slots=True)
class _Claim:
    time: bytes | None
    signatures: tuple[bytes, ...]


def verify(
    scheme: Scheme,
    secrets: Sequence[Secret],
    headers: Mapping[bytes, bytes],
    body: bytes,
    now_us: int,
) -> Verdict:
    """Return the verdict on a delivery; `headers` by lower-case name."""
    event_id = event_id_of(scheme, headers, body)
    header = headers.get(scheme.signature_header)
    if not header:
        return Verdict("signature_missing", None, event_id)
    valid = [secret for secret in secrets if secret.valid(now_us)]
    if not valid:
        return Verdict("no_valid_secret", None, event_id)
    result, secret_id = "signature_missing", None
    for claim in _claims(scheme, header, headers):
        result, secret_id = _judge(scheme, valid, claim, headers, body, now_us=now_us)
        if secret_id is not None:
            break
    return Verdict(result, secret_id if result == VERIFIED else None, event_id)


def event_id_of(scheme: Scheme, headers: Mapping[bytes, bytes], body: bytes) -> str:
    """Return the partner's event id as claimed; the body's hash when there is no usable one."""
    claimed = ""
    if scheme.id_header is not None:
        claimed = headers.get(scheme.id_header, b"").decode("latin-1")
    elif scheme.id_field is not None:
        claimed = _field(body, scheme.id_field)
    if 1 <= len(claimed) <= EVENT_ID_MAX and claimed.isascii() and claimed.isprintable():
        return claimed
    return hashlib.sha256(body).hexdigest()


def key_of(form: KeyForm, secret: str) -> bytes:
    """Return the key that a secret stands for; ValueError when it stands for none."""
    match form:
        case KeyForm.TEXT:
            key = secret.encode()
        case KeyForm.HEX:
            key = bytes.fromhex(secret)
        case KeyForm.WHSEC:
            text = secret.removeprefix("whsec_")
            key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    if not key:
        raise ValueError("the key is empty")
    return key


def sign(scheme: Scheme, key: bytes, event_id: bytes, time: bytes, body: bytes) -> bytes:
    """Return the raw digest of a delivery."""
    values = {Part.ID: event_id, Part.TIME: time, Part.BODY: body}
    content = b"".join(part if isinstance(part, bytes) else values[part] for part in scheme.signed)
    return hmac.digest(key, content, scheme.digest)


def _judge(
    scheme: Scheme,
    secrets: Sequence[Secret],
    claim: _Claim,
    headers: Mapping[bytes, bytes],
    body: bytes,
    *,
    now_us: int,
) -> tuple[str, str | None]:
    """Return the result of one claim, and the secret that matched."""
    if not claim.signatures:
        return "signature_missing", None
    if Part.TIME in scheme.signed and not claim.time:
        return "timestamp_missing", None
    event_id = headers.get(scheme.id_header, b"") if scheme.id_header is not None else b""
    if Part.ID in scheme.signed and not event_id:
        return "event_id_missing", None
    given = [_decoded(scheme.encoding, text) for text in claim.signatures]
    matched = None
    for secret in secrets:
        wanted = sign(scheme, secret.key, event_id, claim.time or b"", body)
        for signature in given:
            if hmac.compare_digest(wanted, signature):
                matched = secret.secret_id
    if matched is None:
        return "signature_mismatch", None
    return _timeliness(scheme, claim.time, now_us), matched


def _timeliness(scheme: Scheme, time: bytes | None, now_us: int) -> str:
    if scheme.tolerance_s is None:
        return VERIFIED
    if time is None or not time.isdigit() or len(time) > _TIME_DIGITS_MAX:
        return "timestamp_malformed"
    if abs(now_us - int(time) * 1_000_000) > scheme.tolerance_s * 1_000_000:
        return "timestamp_outside_tolerance"
    return VERIFIED


def _claims(scheme: Scheme, header: bytes, headers: Mapping[bytes, bytes]) -> list[_Claim]:
    """Read the signature header: a time and the signatures that count, a set at a time."""
    time = headers.get(scheme.time_header) if scheme.time_header is not None else None
    match scheme.layout:
        case Layout.BARE:
            return [_Claim(time, (header.strip(),))]
        case Layout.PREFIXED:
            label, _, signature = header.strip().partition(b"=")
            return [_Claim(time, (signature,) if label == scheme.label and signature else ())]
        case Layout.VERSIONED:
            parts = [part.partition(b",") for part in header.split()[:SIGNATURES_MAX]]
            found = tuple(text for label, _, text in parts if label == scheme.label and text)
            return [_Claim(time, found)]
        case Layout.PAIRS:
            return [_pairs(scheme.label, text) for text in header.split()[:SIGNATURES_MAX]]


def _pairs(label: bytes, text: bytes) -> _Claim:
    pairs = [pair.partition(b"=") for pair in text.split(b",")[:SIGNATURES_MAX]]
    times = [value for name, _, value in pairs if name == b"t"]
    found = tuple(value for name, _, value in pairs if name == label and value)
    return _Claim(times[0] if len(times) == 1 else None, found)


def _decoded(encoding: Encoding, text: bytes) -> bytes:
    """Return the signature's bytes; none that could match when it is not well-formed."""
    try:
        if encoding is Encoding.HEX:
            return bytes.fromhex(text.decode("ascii"))
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return b""


def _field(body: bytes, path: str) -> str:
    try:
        value: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""
