"""What came of each request, and whether that is what it should have come to. Pure.

The plan knows what each request is to provoke; here its answer and its payment's end are held
against that. Whatever is not as planned is a surprise, in words; a run is right when it has none.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from loadtest.generator.plan import Purpose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtest.generator.plan import Order
    from loadtest.proof.windows import Life

REUSED: Final = "idempotency_key_reused"
_MAY_END: Final[dict[Purpose, set[tuple[str, str | None]]]] = {
    Purpose.FUND: {("settled", None)},
    Purpose.PAY: {("settled", None)},
    Purpose.UNFUNDED: {("rejected", "insufficient_funds")},
    Purpose.RUNAWAY: {("settled", None), ("rejected", "velocity_limit")},
}


@dataclass(frozen=True, slots=True)
class Reply:
    """The last answer to one request: status 0 where none came. `sent_s` is the intended time."""

    order: Order
    status: int
    payment_id: str | None
    sent_s: float
    done_s: float

    @property
    def ok(self) -> bool:
        """Tell whether it was accepted."""
        return 200 <= self.status < 300 and self.payment_id is not None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a payment ended and when that was seen, seconds after the start."""

    status: str
    reason: str | None
    seen_s: float


@dataclass(slots=True)
class Judged:
    """What the requests came to. `by_id` has the life of each planned payment."""

    accepted: set[str] = field(default_factory=set)
    in_flight: set[str] = field(default_factory=set)
    by_id: dict[str, Life] = field(default_factory=dict)
    repeated: int = 0
    conflicts: set[str] = field(default_factory=set)
    refused_at_once: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)

    @property
    def lives(self) -> list[Life]:
        """Return when each payment was sent and ended."""
        return list(self.by_id.values())


def judge(replies: Sequence[Reply], ends: Mapping[str, Ended]) -> Judged:
    """Hold every reply, and the end of every payment, against the plan."""
    result = Judged()
    result.conflicts = {r.order.key for r in replies if r.order.purpose is Purpose.CONFLICT}
    originals = {r.order.number: r for r in replies if r.order.number == r.order.of}
    for reply in replies:
        result.statuses[reply.status] += 1
        if reply.ok:
            result.accepted.add(reply.payment_id or "")
        _judge_answer(result, reply, originals[reply.order.of])
    result.in_flight = result.accepted - ends.keys()
    for reply in originals.values():
        end = ends.get(reply.payment_id or "")
        if end is not None:
            if reply.order.purpose is not Purpose.FUND:  # funding came before the load
                result.by_id[reply.payment_id or ""] = (reply.sent_s, end.seen_s)
            _judge_end(result, reply, end)
    return result


def _judge_answer(result: Judged, reply: Reply, original: Reply) -> None:
    order = reply.order
    contested = order.key in result.conflicts
    if reply.status == 422 and contested:
        result.refused_at_once.add(order.key)
    elif not reply.ok:
        result.surprises.append(f"{order.purpose} {order.key}: answered {reply.status}")
    elif order.purpose is Purpose.REPEAT:
        result.repeated += 1
        if reply.payment_id != original.payment_id and not contested:
            result.surprises.append(f"repeat of {order.key}: another payment id")


def _judge_end(result: Judged, reply: Reply, end: Ended) -> None:
    order = reply.order
    if order.key in result.conflicts:
        return  # either request may have come first; verify shows that at most one moved money
    if (end.status, end.reason) not in _MAY_END[order.purpose]:
        told = f"{end.status} ({end.reason})" if end.reason else end.status
        result.surprises.append(f"{order.purpose} {order.key}: ended {told}")
