"""Ids that this gateway has accepted lately: a help, never the truth. Memory with a bound.

An id enters once its request is durable, or with its outcome when the reply comes first, and leaves
when newer ones need its place. From it come answers to repeats, conflicts found at once, and reads
of what the views do not show yet. The processor and the ledger decide; a conflict that they report
removes the id.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from gateways.kafka.reply import Reply
from schemas import wire

_STEM: Final = 23
"""An account id ends in three characters that seal it, which depend on its kind; what is before
them depends on tenant and key alone, like a payment's whole identity."""


class Seen(msgspec.Struct, gc=False):
    """What is remembered of one id: its request as it was written, and the outcome once known."""

    resource_id: str
    body_hash: str
    request: bytes
    outcome: Reply | None = None

    def record(self) -> dict[str, Any]:
        """Return the request that was written."""
        return wire.decode("payments.requests", self.request)


class Recent:
    """The ids seen last, at most `size_max`."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._seen: OrderedDict[str, Seen] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def find(self, resource_id: str) -> Seen | None:
        """Return what is known of the key that this id was made from, or None."""
        seen = self._seen.get(_stem(resource_id))
        if seen is not None:
            self._seen.move_to_end(_stem(resource_id))
        return seen

    def accepted(self, resource_id: str, body_hash: str, request: bytes) -> None:
        """Remember an id whose request is durable."""
        stem = _stem(resource_id)
        if stem in self._seen:
            return
        self._seen[stem] = Seen(resource_id, body_hash, request)
        if len(self._seen) > self._size_max:
            self._seen.popitem(last=False)

    def decided(self, reply: Reply) -> None:
        """Remember an outcome; forget an id whose key belongs to another request.

        What came of an operation is news of its payment as well.
        """
        seen = self._seen.get(_stem(reply.name))
        if seen is not None and is_conflict(reply):
            del self._seen[_stem(reply.name)]
        elif seen is not None and seen.resource_id == reply.name and _newer(reply, seen.outcome):
            seen.outcome = reply
        if reply.name != reply.resource_id and reply.timeline:
            self._told_of_target(reply)

    def _told_of_target(self, reply: Reply) -> None:
        seen = self._seen.get(_stem(reply.resource_id))
        known = seen.outcome if seen is not None else None
        same = known is not None and known.status == reply.status
        reason, detail = (known.reason, known.detail) if known and same else (None, None)
        self.decided(replace(reply, operation_id=None, reason=reason, detail=detail))


def is_conflict(reply: Reply) -> bool:
    """Tell whether the key was used before with another request, here or from another partition."""
    return reply.conflict or reply.reason == "idempotency_key_reused"


def _newer(reply: Reply, known: Reply | None) -> bool:
    return known is None or reply.version > known.version


def _stem(resource_id: str) -> str:
    start = len(resource_id) - 26
    prefix = resource_id[0]
    return prefix + resource_id[start : start + _STEM]
