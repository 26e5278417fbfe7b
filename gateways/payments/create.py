"""The hot route: create a payment; and open an account. Checks, names, submits."""

from __future__ import annotations

from typing import Final

import msgspec

from gateways.gate import idempotency_key
from gateways.http.exchange import Exchange
from gateways.payments import present, requests, rules
from gateways.payments.bodies import AccountBody, PaymentBody
from gateways.payments.intake import Intake, Resource
from gateways.payments.prefer import wait_of
from gateways.payments.requests import Caller

WAIT_S: Final = 10
"""How long what waits by default does: accounts and transfers."""

PAYMENT: Final = Resource("/v1/payments", present.payment)
ACCOUNT: Final = Resource("/v1/accounts", present.account, rejection="account_rejected")

_PAYMENT_BODY: Final = msgspec.json.Decoder(PaymentBody)
_ACCOUNT_BODY: Final = msgspec.json.Decoder(AccountBody)


class Create:
    """Handlers of POST /v1/payments and POST /v1/accounts."""

    def __init__(self, intake: Intake, reply_partition: int) -> None:
        self._intake = intake
        self._reply_partition = reply_partition

    def payment(self, exchange: Exchange) -> None:
        """POST /v1/payments."""
        key = idempotency_key(exchange)
        body = rules.decode(_PAYMENT_BODY, exchange.body)
        rules.check_payment(body)
        wait = wait_of(exchange.headers.get(b"prefer"))
        reply_to = self._reply_partition if wait.seconds else None
        record = requests.payment(body, key, caller_of(exchange), reply_to)
        self._intake.submit(exchange, PAYMENT, record, wait)

    def account(self, exchange: Exchange) -> None:
        """POST /v1/accounts."""
        key = idempotency_key(exchange)
        body = rules.decode(_ACCOUNT_BODY, exchange.body)
        rules.check_account(body)
        wait = wait_of(exchange.headers.get(b"prefer"), WAIT_S)
        reply_to = self._reply_partition if wait.seconds else None
        record = requests.account(body, key, caller_of(exchange), reply_to)
        self._intake.submit(exchange, ACCOUNT, record, wait)


def caller_of(exchange: Exchange) -> Caller:
    """Return who asks, as records name it."""
    return Caller(exchange.tenant, exchange.request_id, exchange.received_at_us)
