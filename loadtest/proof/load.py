"""Open and fund the accounts, then send the planned payments and webhooks at their times.

Talks to the gateway only. Every answer is kept; nothing is judged here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from loadtest.generator import render, webhooks
from loadtest.generator.open_loop import OpenLoop, Shot
from loadtest.generator.plan import Order
from loadtest.generator.webhooks import Delivery
from loadtest.proof.outcomes import Reply
from loadtest.stack import NoStack

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadtest.generator.plan import Plan
    from loadtest.generator.render import Target
    from loadtest.stack import Stack

_OPENED: Final = {200, 201}


class _Created(msgspec.Struct):
    id: str


_CREATED: Final = msgspec.json.Decoder(_Created)


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of a webhook's delivery."""

    delivery: Delivery
    status: int


async def open_accounts(loop: OpenLoop, target: Target, plan: Plan) -> list[str]:
    """Open every planned account and return the ids, by number."""
    shots = [Shot(0.0, render.account(target, account), account) for account in plan.accounts]
    await loop.run(shots)
    failed = [s for s in shots if s.answer is None or s.answer.status not in _OPENED]
    if failed:
        answer = failed[0].answer
        told = (
            f"{answer.label} {answer.body[:300].decode(errors='replace')}" if answer else "nothing"
        )
        raise NoStack(f"{len(failed)} of {len(shots)} accounts were not opened; one answer: {told}")
    return [_created_id(shot) or "" for shot in shots]


def payment_shots(
    target: Target, plan: Plan, orders: Iterable[Order], ids: Sequence[str]
) -> list[Shot]:
    """Render orders to what is sent."""
    currencies = [account.currency for account in plan.accounts]
    return [
        Shot(order.at_s, render.payment(target, order, ids, currencies[order.destination]), order)
        for order in orders
    ]


def webhook_shots(target: Target, stack: Stack, deliveries: Iterable[Delivery]) -> list[Shot]:
    """Sign and render deliveries; they must be sent within the scheme's tolerance."""
    now_s = int(time.time())
    return [
        Shot(
            delivery.at_s,
            render.webhook(
                target, stack.webhook_source, delivery,
                webhooks.headers(delivery, stack.webhook_secret, now_s),
            ),
            delivery,
        )
        for delivery in deliveries
    ]  # fmt: skip


def replies(shots: Iterable[Shot]) -> list[Reply]:
    """Return what was answered to the payments among the shots."""
    found = []
    for shot in shots:
        if isinstance(shot.tag, Order):
            status = shot.answer.status if shot.answer else 0
            found.append(Reply(shot.tag, status, _created_id(shot), shot.at_s, shot.done_s))
    return found


def delivered(shots: Iterable[Shot]) -> list[Delivered]:
    """Return what was answered to the webhooks among the shots."""
    return [
        Delivered(shot.tag, shot.answer.status if shot.answer else 0)
        for shot in shots
        if isinstance(shot.tag, Delivery)
    ]


def _created_id(shot: Shot) -> str | None:
    if shot.answer is None or not shot.answer.ok:
        return None
    return _CREATED.decode(shot.answer.body).id
