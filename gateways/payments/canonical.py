"""The body hash: what makes two requests the same. Pure.

Canonical form: the kind of request, a newline, then JSON of the validated fields with sorted keys,
no spaces, UTF-8, and fields that equal their default left out. The key, headers and the order or
spelling of the JSON that was sent play no part. Two requests are the same exactly when the SHA-256
of this form is the same.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from gateways.payments.bodies import AccountBody, PaymentBody

Kind = Literal["payment.create", "account.open"]

_encode = msgspec.json.Encoder(order="sorted").encode


def body_hash(kind: Kind, body: PaymentBody | AccountBody) -> str:
    """Return the SHA-256, in hex, of the canonical form."""
    return hashlib.sha256(b"%b\n%b" % (kind.encode(), _encode(body))).hexdigest()
