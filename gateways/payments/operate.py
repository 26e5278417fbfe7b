"""What is done to a payment or an account: capture, void, refund; freeze, unfreeze, close.

Each is a request of its own, with a key of its own, decided where the payment or account is at
home. The answer is the payment or account as it stands after it; a refusal changes nothing and is a
problem that carries the ledger's code.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import msgspec

from gateways.gate import idempotency_key
from gateways.http.exchange import Exchange
from gateways.kafka.reply import Reply
from gateways.payments import present, requests, rules
from gateways.payments.bodies import AmountBody, EmptyBody, FlagsBody
from gateways.payments.canonical import Kind
from gateways.payments.create import WAIT_S, caller_of
from gateways.payments.intake import Intake, Present, Resource
from gateways.payments.prefer import wait_of
from gateways.payments.present import Account, Payment
from gateways.payments.reads import Reads
from gateways.payments.requests import Record, Target
from gateways.payments.views import ShownAccount
from schemas import ids

REFUSED: Final = "operation_refused"

_AMOUNT: Final = msgspec.json.Decoder(AmountBody)
_EMPTY: Final = msgspec.json.Decoder(EmptyBody)
_FLAGS: Final = msgspec.json.Decoder(FlagsBody)

Decoder = msgspec.json.Decoder[Any]


class Operate:
    """Handlers of the routes below one payment or account."""

    def __init__(self, intake: Intake, reads: Reads, reply_partition: int) -> None:
        self._intake = intake
        self._reads = reads
        self._reply_partition = reply_partition

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
        self._submit(exchange, "/v1/payments", record, partial(_payment_after, shown, version), 0)

    async def _account(self, exchange: Exchange, kind: Kind, decoder: Decoder) -> None:
        key, body = idempotency_key(exchange), body_of(exchange, decoder)
        shown = await self._reads.find_account(exchange.tenant, exchange.params[0])
        target = Target(shown.account.id, shown.account.id)
        record = requests.operation(kind, body, key, caller_of(exchange), target)
        self._submit(exchange, "/v1/accounts", record, partial(_account_after, shown), WAIT_S)

    def _submit(
        self, exchange: Exchange, path: str, record: Record, after: Present, wait_s: int
    ) -> None:
        wait = wait_of(exchange.headers.get(b"prefer"), wait_s)
        record["reply_partition"] = self._reply_partition if wait.seconds else None
        resource = Resource(path, after, rejection=REFUSED, created=200)
        self._intake.submit(exchange, resource, record, wait)


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
