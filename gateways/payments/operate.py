"""What is done to a payment or an account: capture, void, refund; freeze, unfreeze, close.

Each is a request of its own, with a key of its own, decided where the payment or account is at
home. The answer is the payment or account as it stands after it (an account is read again for that:
its balances move while it is decided); a refusal changes nothing and is a problem that carries the
ledger's code.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec

from gateways.gate import idempotency_key
from gateways.http.dispatch import AsyncHandler
from gateways.http.exchange import Exchange
from gateways.http.routing import Handler
from gateways.kafka.reply import Reply
from gateways.payments import present, requests, rules
from gateways.payments.bodies import AmountBody, EmptyBody, FlagsBody
from gateways.payments.canonical import Kind
from gateways.payments.create import WAIT_S, caller_of
from gateways.payments.intake import Answered, Intake, Resource
from gateways.payments.payment_reads import ShownAccount
from gateways.payments.prefer import wait_of
from gateways.payments.present import Account, Payment
from gateways.payments.reads import Reads
from gateways.payments.requests import Record, Target
from gateways.problems import Down
from schemas import ids

REFUSED: Final = "operation_refused"

_AMOUNT: Final = msgspec.json.Decoder(AmountBody)
_EMPTY: Final = msgspec.json.Decoder(EmptyBody)
_FLAGS: Final = msgspec.json.Decoder(FlagsBody)

_encode = msgspec.json.Encoder().encode

Decoder = msgspec.json.Decoder[Any]


class Operate:
    """Handlers of the routes below one payment or account. `later` runs what waits as a task."""

    def __init__(
        self,
        intake: Intake,
        reads: Reads,
        reply_partition: int,
        later: Callable[[AsyncHandler], Handler],
    ) -> None:
        self._intake = intake
        self._reads = reads
        self._reply_partition = reply_partition
        self._later = later

    async def capture(self, exchange: Exchange) -> None:
        """POST /v1/payments/{id}/capture."""
        await self._payment(exchange, "payment.capture", _AMOUNT)

    async def void(self, exchange: Exchange) -> None:
        """POST /v1/payments/{id}/void."""
        await self._payment(exchange, "payment.void", _EMPTY)

    async def refund(self, exchange: Exchange) -> None:
        """POST /v1/payments/{id}/refunds."""
        await self._payment(exchange, "payment.refund", _AMOUNT)

    async def freeze(self, exchange: Exchange) -> None:
        """POST /v1/accounts/{id}/freeze."""
        await self._account(exchange, "account.freeze", _FLAGS)

    async def unfreeze(self, exchange: Exchange) -> None:
        """POST /v1/accounts/{id}/unfreeze."""
        await self._account(exchange, "account.unfreeze", _FLAGS)

    async def close(self, exchange: Exchange) -> None:
        """POST /v1/accounts/{id}/close."""
        await self._account(exchange, "account.close", _EMPTY)

    async def _payment(self, exchange: Exchange, kind: Kind, decoder: Decoder) -> None:
        key, body = idempotency_key(exchange), body_of(exchange, decoder)
        shown, version = await self._reads.find_payment(
            exchange.tenant, exchange.params[0], known_will_do=True
        )
        home = ids.home_account(shown.source.account, shown.destination.account)
        record = requests.operation(kind, body, key, caller_of(exchange), Target(shown.id, home))
        present_ = partial(_payment_after, shown, version)
        resource = Resource("/v1/payments", present_, rejection=REFUSED, created=200)
        self._submit(exchange, resource, record, 0)

    async def _account(self, exchange: Exchange, kind: Kind, decoder: Decoder) -> None:
        key, body = idempotency_key(exchange), body_of(exchange, decoder)
        shown = await self._reads.find_account(exchange.tenant, exchange.params[0])
        target = Target(shown.account.id, shown.account.id)
        record = requests.operation(kind, body, key, caller_of(exchange), target)
        resource = Resource(
            "/v1/accounts",
            partial(_account_after, shown),
            rejection=REFUSED,
            created=200,
            reread=partial(self._reread, shown),
        )
        self._submit(exchange, resource, record, WAIT_S)

    def _submit(self, exchange: Exchange, resource: Resource, record: Record, wait_s: int) -> None:
        wait = wait_of(exchange.headers.get(b"prefer"), wait_s)
        record["reply_partition"] = self._reply_partition if wait.seconds else None
        self._intake.submit(exchange, resource, record, wait)

    def _reread(self, before: ShownAccount, exchange: Exchange, answer: Answered) -> bool:
        """Read the account as it stands after the change; as it was, but changed, if that fails."""

        async def read(exchange: Exchange) -> None:
            record, shown = answer.record, before
            with suppress(Down):
                shown = await self._reads.find_account(record["tenant"], record["resource_id"])
            if not exchange.answered:
                after = _account_after(shown, record, answer.outcome)
                exchange.answer(answer.status, _encode(after), answer.lines)

        self._later(read)(exchange)
        return True


def body_of(exchange: Exchange, decoder: Decoder) -> Any:
    """Decode a body of which all fields may be left out, and so may the body."""
    return rules.decode(decoder, exchange.body or b"{}")


def _payment_after(shown: Payment, version: int, _record: Record, outcome: Reply | None) -> Payment:
    """Show the payment as the newer tells: what was known of it before, or the outcome."""
    if outcome is None or outcome.version <= version:
        return shown
    return present.progressed(shown, outcome)


def _account_after(shown: ShownAccount, record: Record, outcome: Reply | None) -> Account:
    if outcome is None or (outcome.booked_at_us or 0) <= shown.changed_at_us:
        return shown.account
    return present.changed(shown.account, record["type"], outcome)
