"""W3C trace context, by hand: one header in, one record header out. Pure but for the ids it draws.

Source: W3C Trace Context, 2.2 (version 00). A valid incoming trace is continued with a new parent
id; without one a new, unsampled trace starts, so that every payment can be followed through the
topics.
"""

from __future__ import annotations

import os
import re
from typing import Final

HEADER: Final = "traceparent"

_VALID: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16


def traceparent(incoming: bytes | None) -> bytes:
    """Return what the record carries."""
    if incoming is not None:
        match = _VALID.fullmatch(incoming)
        if match is not None and match[1] != _NO_TRACE and match[2] != _NO_SPAN:
            return b"00-%b-%b-%b" % (match[1], os.urandom(8).hex().encode(), match[3])
    drawn = os.urandom(24).hex().encode()
    return b"00-%b-%b-00" % (drawn[:32], drawn[32:])
