"""The body hash: what makes two requests the same. Pure.

Canonical form: the kind of request (and the id acted upon, if any), a newline, then JSON of the
validated fields with sorted keys, no spaces, UTF-8, and fields that equal their default left out.
The key, headers and the order or spelling of the JSON that was sent play no part. Two requests are
the same exactly when the SHA-256 of this form is the same.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

Kind = Literal[
    "payment.create",
    "payment.capture",
    "payment.void",
    "payment.refund",
    "account.open",
    "account.freeze",
    "account.unfreeze",
    "account.close",
    "transfer.create",
    "transfer.reverse",
]

_encode = msgspec.json.Encoder(order="sorted").encode


def body_hash(kind: Kind, body: msgspec.Struct, target: str = "") -> str:
    """Return the SHA-256, in hex, of the canonical form; `target` is what is acted upon."""
    named = f"{kind} {target}" if target else kind
    return hashlib.sha256(b"%b\n%b" % (named.encode(), _encode(body))).hexdigest()
