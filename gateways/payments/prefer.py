"""The Prefer header (RFC 7240): how long a client wants to wait for the outcome. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

WAIT_S_MAX: Final = 30
_WAIT: Final = re.compile(rb'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=$|[,;])', re.IGNORECASE)
_ASYNC: Final = re.compile(rb"(?:^|[,;])\s*respond-async\s*(?=$|[,;])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wait:
    """Seconds to wait (0: answer when the request is durable), and the line that says so."""

    seconds: int
    applied: bytes = b""


NO_WAIT: Final = Wait(0)


def wait_of(prefer: bytes | None, default_s: int = 0) -> Wait:
    """Return the wait that a Prefer header asks for, at most WAIT_S_MAX.

    A preference that is not understood is ignored, as RFC 7240 has it.
    """
    if prefer is None:
        return NO_WAIT if default_s == 0 else Wait(default_s)
    match = _WAIT.search(prefer)
    if match is not None:
        seconds = min(int(match[1]), WAIT_S_MAX)
        return Wait(seconds, b"Preference-Applied: wait=%d\r\n" % seconds)
    if _ASYNC.search(prefer):
        return Wait(0, b"Preference-Applied: respond-async\r\n")
    return Wait(default_s)
