"""POST /v1/payments/batch: many payments in one request, one result each, in order.

Each payment stands for itself: its result is what the single route would have answered, as status
and payment or problem. Of two with one key the first counts: an equal one shares its result,
another is refused. When the event log takes none of them, the whole request is that problem.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateways.gate import check_key
from gateways.http.exchange import Exchange
from gateways.payments import present, requests, rules
from gateways.payments.bodies import BatchBody, BatchItem, PaymentBody
from gateways.payments.create import caller_of
from gateways.payments.intake import Intake, refuse_other, reused
from gateways.payments.present import Payment
from gateways.payments.requests import Caller, Record
from gateways.problems import Down, Problem, Refused, problem
from schemas import wire

YIELD_EVERY: Final = 32
"""Payments prepared before other requests get their turn."""

_BODY: Final = msgspec.json.Decoder(BatchBody)
_ITEM: Final = msgspec.json.Decoder(BatchItem)
_encode = msgspec.json.Encoder().encode
_encode_record = wire.encoder(requests.TOPIC)
_FIELDS: Final = tuple(name for name in PaymentBody.__struct_fields__)


class BatchResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one payment: `payment` when it was accepted, else `problem`."""

    status: int
    idempotency_key: str | None = None
    replayed: bool = False
    payment: Payment | None = None
    problem: Problem | None = None


class BatchResults(msgspec.Struct, frozen=True):
    """One result a payment, in the order of the request."""

    results: list[BatchResult]


@dataclass(slots=True)
class _Order:
    """One payment of the batch: a record on its way, or already a result or an error."""

    key: str | None = None
    record: Record | None = None
    shown: Payment | None = None
    durable: asyncio.Future[Down | None] | None = None
    error: Refused | Down | None = None
    replayed: bool = False


class Batch:
    """Handler of the route."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def handle(self, exchange: Exchange) -> None:
        """Take each payment, wait until all are durable, answer."""
        items = rules.decode(_BODY, exchange.body).payments
        if exchange.bucket is not None:
            exchange.bucket.overdraw(len(items) - 1)
            exchange.limit_lines = exchange.bucket.lines()
        caller, first = caller_of(exchange), dict[str, _Order]()
        orders = []
        for number, item in enumerate(items):
            orders.append(self._take(exchange, caller, item, first))
            if number % YIELD_EVERY == YIELD_EVERY - 1:
                await asyncio.sleep(0)
        await asyncio.gather(*{o.durable for o in orders if o.durable is not None})
        results = [_result(order, exchange.request_id) for order in orders]
        down = [order.error for order in orders if isinstance(order.error, Down)]
        if len(down) == len(orders):
            raise Down(down[0].code, down[0].detail)
        exchange.answer(202, _encode(BatchResults(results)))

    def _take(
        self, exchange: Exchange, caller: Caller, item: msgspec.Raw, first: dict[str, _Order]
    ) -> _Order:
        order = _Order()
        try:
            parsed = rules.decode(_ITEM, item)
            order.key = check_key(parsed.idempotency_key)
            body = PaymentBody(**{name: getattr(parsed, name) for name in _FIELDS})
            rules.check_payment(body)
            order.record = requests.payment(body, order.key, caller)
            earlier = first.setdefault(order.key, order)
            if earlier is not order:
                _share(earlier, order)
            else:
                self._submit(exchange, order, order.record)
        except (Refused, Down) as error:
            order.error = error
        return order

    def _submit(self, exchange: Exchange, order: _Order, record: Record) -> None:
        seen = self._intake.recent.find(record["resource_id"])
        if seen is not None:
            refuse_other(seen, record["resource_id"], record["body_hash"])
            order.shown, order.replayed = present.payment(seen.record(), seen.outcome), True
            return
        value = _encode_record(record)
        durable: asyncio.Future[Down | None] = asyncio.get_running_loop().create_future()

        def acknowledged(error: Down | None) -> None:
            if error is None:
                self._intake.remember(record, value)
            order.error = error
            durable.set_result(error)

        self._intake.outbox.offer(self._intake.event(exchange, record, value, acknowledged))
        order.durable, order.shown = durable, present.payment(record, None)


def _share(earlier: _Order, order: _Order) -> None:
    """Give a second use of a key the first one's result, if it is the same request."""
    assert earlier.record is not None
    assert order.record is not None
    if earlier.record["body_hash"] != order.record["body_hash"]:
        raise reused()
    order.error = earlier.error
    order.durable, order.shown, order.replayed = earlier.durable, earlier.shown, True


def _result(order: _Order, request_id: str) -> BatchResult:
    if order.error is None and order.durable is not None:
        order.error = order.durable.result()
    if order.error is not None:
        described: Any = problem(order.error, request_id)
        return BatchResult(described.status, order.key, problem=described)
    return BatchResult(202, order.key, replayed=order.replayed, payment=order.shown)
