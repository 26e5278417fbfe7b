"""GET payments and accounts: the views, never behind what this gateway has already said.

A payment that was accepted or decided here is shown as it is known here while the view lags. An
account is read again, for up to FRESH_WITHIN_S, until the view shows the changes whose outcome was
told here; then as it is.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from gateways.http.exchange import Exchange
from gateways.payments import cursors, present
from gateways.payments.present import Account, Payment, PaymentList
from gateways.payments.recent import Recent, Seen
from gateways.payments.versions import Versions
from gateways.payments.views import ShownAccount, ShownPayment, Views
from gateways.problems import Refused
from schemas.ids import is_account_id, is_payment_id

FRESH_WITHIN_S: Final = 2.0
POLL_FIRST_S: Final = 0.01
POLL_MAX_S: Final = 0.1

_encode = msgspec.json.Encoder().encode


class Reads:
    """Handlers of the reading routes."""

    def __init__(self, views: Views, recent: Recent, versions: Versions) -> None:
        self._views = views
        self._recent = recent
        self._versions = versions

    async def payment(self, exchange: Exchange) -> None:
        """GET /v1/payments/{id}."""
        payment_id = exchange.params[0]
        if not is_payment_id(payment_id):
            raise _unknown("payment", payment_id)
        shown = await self._views.payment(exchange.tenant, payment_id)
        exchange.answer(200, _encode(self._newest(exchange.tenant, payment_id, shown)))

    async def payments(self, exchange: Exchange) -> None:
        """GET /v1/payments."""
        query = cursors.parse(exchange.tenant, exchange.query)
        page = await self._views.payments(query)
        cursor = cursors.encode(page[-1].place, query) if len(page) == query.limit else None
        exchange.answer(200, _encode(PaymentList([shown.payment for shown in page], cursor)))

    async def account(self, exchange: Exchange) -> None:
        """GET /v1/accounts/{id}."""
        account_id = exchange.params[0]
        if not is_account_id(account_id):
            raise _unknown("account", account_id)
        shown = await self._fresh_account(exchange.tenant, account_id)
        if shown is not None:
            exchange.answer(200, _encode(shown.account))
            return
        exchange.answer(200, _encode(self._known_account(exchange.tenant, account_id)))

    def _newest(self, tenant: str, payment_id: str, shown: ShownPayment | None) -> Payment:
        seen = self._known(tenant, payment_id)
        told = seen.outcome.version if seen is not None and seen.outcome is not None else 0
        if shown is not None and shown.version >= told:
            return shown.payment
        if seen is None:
            raise _unknown("payment", payment_id)
        return present.payment(seen.record(), seen.outcome)

    async def _fresh_account(self, tenant: str, account_id: str) -> ShownAccount | None:
        """Read until the view shows what was told here, within a bound."""
        loop = asyncio.get_running_loop()
        deadline, pause_s = loop.time() + FRESH_WITHIN_S, POLL_FIRST_S
        while True:
            shown = await self._views.account(tenant, account_id)
            if shown is None and self._known(tenant, account_id) is None:
                return None
            if shown is not None and self._versions.reached(account_id, shown.shares):
                return shown
            if loop.time() + pause_s > deadline:
                return shown
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, POLL_MAX_S)

    def _known_account(self, tenant: str, account_id: str) -> Account:
        seen = self._known(tenant, account_id)
        if seen is None or (seen.outcome is not None and seen.outcome.status == "rejected"):
            raise _unknown("account", account_id)
        return present.account(seen.record(), seen.outcome)

    def _known(self, tenant: str, resource_id: str) -> Seen | None:
        seen = self._recent.find(resource_id)
        if seen is None or seen.resource_id != resource_id or seen.record()["tenant"] != tenant:
            return None
        return seen


def _unknown(kind: str, resource_id: str) -> Refused:
    return Refused("not_found", f"There is no {kind} {resource_id[:64]!r} of yours.")
