"""The table of webhook schemes: one row says all that differs between partners. Pure.

A row names where the signatures are and how they are written, what is signed, with which digest and
key, where the time and the event's id stand, and what to answer. `verify` interprets rows and
nothing else decides. A new partner is a new row; a primitive is added only when no row can say it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Layout(Enum):
    """How a signature header is written."""

    VERSIONED = "v1,<signature>[ v1,<signature>]"
    PAIRS = "t=<time>,v1=<signature>[,v1=<signature>][ t=...]"
    PREFIXED = "sha256=<signature>"
    BARE = "<signature>"


class Part(Enum):
    """What a signed string is made of, beside constants."""

    ID = "the event's id, from its header"
    TIME = "the time, as it was sent"
    BODY = "the body's bytes"


class Encoding(Enum):
    """How bytes are written as text."""

    BASE64 = "base64"
    HEX = "hex"


class KeyForm(Enum):
    """How a secret becomes a key."""

    TEXT = "the secret's own bytes"
    HEX = "hex digits"
    WHSEC = "base64 after whsec_"


@dataclass(frozen=True, slots=True)
class Scheme:
    """One row. Header names are in lower case; `tolerance_s` bounds the time both ways."""

    signature_header: bytes
    layout: Layout
    label: bytes
    """Which signatures count: others in the header are passed over."""
    signed: tuple[Part | bytes, ...]
    digest: str
    encoding: Encoding
    key_form: KeyForm
    time_header: bytes | None = None
    tolerance_s: int | None = None
    id_header: bytes | None = None
    id_field: str | None = None
    """Name of the event id's field in a JSON body, where no header carries it."""
    answer: bytes = b'{"received":true}'


SCHEMES: Final[dict[str, Scheme]] = {
    # standard-webhooks/spec, "symmetric": id.timestamp.payload
    "standard-webhooks": Scheme(
        signature_header=b"webhook-signature",
        layout=Layout.VERSIONED,
        label=b"v1",
        signed=(Part.ID, b".", Part.TIME, b".", Part.BODY),
        digest="sha256",
        encoding=Encoding.BASE64,
        key_form=KeyForm.WHSEC,
        time_header=b"webhook-timestamp",
        tolerance_s=300,
        id_header=b"webhook-id",
    ),
    # Stripe: the secret is used as it is written, whsec_ and all
    "stripe": Scheme(
        signature_header=b"stripe-signature",
        layout=Layout.PAIRS,
        label=b"v1",
        signed=(Part.TIME, b".", Part.BODY),
        digest="sha256",
        encoding=Encoding.HEX,
        key_form=KeyForm.TEXT,
        tolerance_s=300,
        id_field="id",
    ),
    # GitHub: no time, so a replay is found only by the delivery's id
    "github": Scheme(
        signature_header=b"x-hub-signature-256",
        layout=Layout.PREFIXED,
        label=b"sha256",
        signed=(Part.BODY,),
        digest="sha256",
        encoding=Encoding.HEX,
        key_form=KeyForm.TEXT,
        id_header=b"x-github-delivery",
    ),
    # Persona: like Stripe; during a rotation two space-separated sets of pairs
    "persona": Scheme(
        signature_header=b"persona-signature",
        layout=Layout.PAIRS,
        label=b"v1",
        signed=(Part.TIME, b".", Part.BODY),
        digest="sha256",
        encoding=Encoding.HEX,
        key_form=KeyForm.TEXT,
        tolerance_s=300,
        id_field="data.id",
    ),
    # Adyen's platform webhooks: hex key, base64 over the body
    "adyen-platform": Scheme(
        signature_header=b"hmacsignature",
        layout=Layout.BARE,
        label=b"",
        signed=(Part.BODY,),
        digest="sha256",
        encoding=Encoding.BASE64,
        key_form=KeyForm.HEX,
        id_field="id",
    ),
}
