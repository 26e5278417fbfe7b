"""GET payments and accounts: the views, never behind what this gateway has already said.

A payment that was accepted or decided here is shown as it is known here while the view lags. An
account is read again, for up to FRESH_WITHIN_S, until the view shows the changes whose outcome was
told here; then as it is. One that the view does not show yet is shown as it was opened, unless it
is known to have changed since: then it is Down, for its balances are not known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

import msgspec

from gateways.http.exchange import Exchange
from gateways.payments import cursors, entry_queries, hold_queries, present, transfer_queries
from gateways.payments.payment_reads import ShownAccount
from gateways.payments.present import Account, Payment, PaymentList
from gateways.payments.present_entries import BalanceAt, EntryList, statement
from gateways.payments.present_holds import HoldList
from gateways.payments.present_transfers import Transfer, TransferList, transfer
from gateways.payments.recent import Recent, Seen
from gateways.payments.times import timestamp
from gateways.payments.versions import Versions
from gateways.payments.views import Views
from gateways.problems import Down, Refused
from schemas.ids import is_account_id, is_payment_id, is_transfer_id

FRESH_WITHIN_S: Final = 2.0
POLL_FIRST_S: Final = 0.01
POLL_MAX_S: Final = 0.1

_encode = msgspec.json.Encoder().encode

T = TypeVar("T")
P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)


class Limited(Protocol):
    """A list query."""

    @property
    def limit(self) -> int: ...


class Placed(Protocol[P_co]):
    """What a list shows, with its place there."""

    @property
    def place(self) -> P_co: ...


L = TypeVar("L", bound=Limited)


class Reads:
    """Handlers of the reading routes."""

    def __init__(self, views: Views, recent: Recent, versions: Versions) -> None:
        self._views = views
        self._recent = recent
        self._versions = versions

    async def payment(self, exchange: Exchange) -> None:
        """GET /v1/payments/{id}."""
        shown, _ = await self.find_payment(exchange.tenant, exchange.params[0])
        exchange.answer(200, _encode(shown))

    async def payments(self, exchange: Exchange) -> None:
        """GET /v1/payments."""
        query = cursors.parse(exchange.tenant, exchange.query)
        page = await self._views.payments(query)
        cursor = _next(page, query, cursors.encode)
        exchange.answer(200, _encode(PaymentList([shown.payment for shown in page], cursor)))

    async def account(self, exchange: Exchange) -> None:
        """GET /v1/accounts/{id}."""
        shown = await self.find_account(exchange.tenant, exchange.params[0])
        exchange.answer(200, _encode(shown.account))

    async def transfer(self, exchange: Exchange) -> None:
        """GET /v1/transfers/{id}."""
        exchange.answer(200, _encode(await self.find_transfer(exchange.tenant, exchange.params[0])))

    async def transfers(self, exchange: Exchange) -> None:
        """GET /v1/transfers."""
        query = transfer_queries.parse(exchange.tenant, exchange.query)
        page = await self._views.transfers(query)
        cursor = _next(page, query, transfer_queries.encode)
        exchange.answer(200, _encode(TransferList([shown.transfer for shown in page], cursor)))

    async def holds(self, exchange: Exchange) -> None:
        """GET /v1/accounts/{id}/holds."""
        query = hold_queries.parse(exchange.params[0], exchange.query)
        await self.find_account(exchange.tenant, query.account_id)
        page = await self._views.holds(query)
        cursor = _next(page, query, hold_queries.encode)
        exchange.answer(200, _encode(HoldList([shown.hold for shown in page], cursor)))

    async def entries(self, exchange: Exchange) -> None:
        """GET /v1/accounts/{id}/entries."""
        query = entry_queries.parse_statement(exchange.params[0], exchange.query)
        await self.find_account(exchange.tenant, query.account_id)
        page = await self._views.entries(query)
        cursor = _next(page.rows, query, entry_queries.encode)
        exchange.answer(200, _encode(EntryList(statement(page.rows, page.shares), cursor)))

    async def balance(self, exchange: Exchange) -> None:
        """GET /v1/accounts/{id}/balance."""
        asked = exchange.params[0], exchange.query, exchange.received_at_us
        query = entry_queries.parse_balance(*asked)
        shown = (await self.find_account(exchange.tenant, query.account_id)).account
        balances = await self._views.balance(query)
        at = timestamp(query.at_us)
        answer = BalanceAt(shown.id, shown.currency, at, query.basis, balances)
        exchange.answer(200, _encode(answer))

    async def find_payment(
        self, tenant: str, payment_id: str, *, known_will_do: bool = False
    ) -> tuple[Payment, int]:
        """Return the tenant's payment as it is known here or shown by the view, and its version.

        Refused (404) when it is neither. `known_will_do` while the view does not answer: to act
        upon a payment, its accounts are enough.
        """
        if not is_payment_id(payment_id):
            raise _unknown("payment", payment_id)
        seen = self._known(tenant, payment_id)
        try:
            shown = await self._views.payment(tenant, payment_id)
        except Down:
            if seen is None or not known_will_do:
                raise
            shown = None
        told = seen.outcome.version if seen is not None and seen.outcome is not None else 0
        if shown is not None and shown.version >= told:
            return shown.payment, shown.version
        if seen is None:
            raise _unknown("payment", payment_id)
        return present.payment(seen.record(), seen.outcome), told

    async def find_account(self, tenant: str, account_id: str) -> ShownAccount:
        """Return the tenant's account, as fresh as what was told here; Refused (404)."""
        if not is_account_id(account_id):
            raise _unknown("account", account_id)
        shown = await self._fresh_account(tenant, account_id)
        if shown is not None:
            return shown
        known = self._known_account(tenant, account_id)
        if self._versions.knows_of(account_id):
            detail = f"The read model does not show {account_id} yet. Retry later."
            raise Down("views_unavailable", detail)
        return ShownAccount(known, {})

    async def find_transfer(self, tenant: str, transfer_id: str) -> Transfer:
        """Return the tenant's transfer as the view shows it, else as it is known here, or 404."""
        if not is_transfer_id(transfer_id):
            raise _unknown("transfer", transfer_id)
        shown = await self._views.transfer(tenant, transfer_id)
        if shown is not None:
            return shown
        seen = self._known(tenant, transfer_id)
        if seen is None:
            raise _unknown("transfer", transfer_id)
        return transfer(seen.record(), seen.outcome)

    async def posted_transfer(self, tenant: str, transfer_id: str) -> Transfer | None:
        """Return a transfer that was posted, once the view shows it, within a bound."""
        return await _until(
            lambda: self._views.transfer(tenant, transfer_id), lambda shown: shown is not None
        )

    async def _fresh_account(self, tenant: str, account_id: str) -> ShownAccount | None:
        """Read until the view shows what was told here, within a bound."""

        def fresh(shown: ShownAccount | None) -> bool:
            if shown is None:
                return self._known(tenant, account_id) is None
            return self._versions.reached(account_id, shown.shares, shown.changed_at_us)

        return await _until(lambda: self._views.account(tenant, account_id), fresh)

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


async def _until(read: Callable[[], Awaitable[T]], will_do: Callable[[T], bool]) -> T:
    """Read again, ever less often, until what was read will do or FRESH_WITHIN_S are over."""
    loop = asyncio.get_running_loop()
    deadline, pause_s = loop.time() + FRESH_WITHIN_S, POLL_FIRST_S
    while True:
        shown = await read()
        if will_do(shown) or loop.time() + pause_s > deadline:
            return shown
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, POLL_MAX_S)


def _next(page: Sequence[Placed[P]], query: L, encode: Callable[[P, L], str]) -> str | None:
    """Return the cursor that continues a page; None where it was not full."""
    return encode(page[-1].place, query) if len(page) == query.limit else None


def _unknown(kind: str, resource_id: str) -> Refused:
    return Refused("not_found", f"There is no {kind} {resource_id[:64]!r} of yours.")
