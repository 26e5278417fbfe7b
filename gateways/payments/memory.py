"""The fake of the Views port: rows in memory, the same answers as Postgres gives."""

from __future__ import annotations

import msgspec

from gateways.payments.cursors import PaymentQuery
from gateways.payments.entry_queries import BalanceQuery, EntryQuery
from gateways.payments.hold_queries import HoldQuery
from gateways.payments.ledger_reads import Page, ShownHold, ShownTransfer
from gateways.payments.lists import Place, Window
from gateways.payments.payment_reads import ShownAccount, ShownPayment
from gateways.payments.present import Balances, Payment
from gateways.payments.present_entries import EntryRow, balances
from gateways.payments.present_transfers import Transfer
from gateways.payments.times import parse
from gateways.payments.transfer_queries import TransferQuery
from gateways.problems import Down


class MemoryViews:
    """Holds what a test puts in. `away`: the read model does not answer."""

    def __init__(self) -> None:
        self.away = False
        self._payments: dict[str, tuple[str, ShownPayment]] = {}
        self._accounts: dict[str, tuple[str, ShownAccount]] = {}
        self._transfers: dict[str, tuple[str, Transfer]] = {}
        self._entries: dict[str, list[EntryRow]] = {}
        self._holds: dict[str, list[ShownHold]] = {}

    def show_payment(self, tenant: str, shown: ShownPayment) -> None:
        """Put a payment in, or replace it."""
        self._payments[shown.payment.id] = (tenant, shown)

    def show_account(self, tenant: str, shown: ShownAccount) -> None:
        """Put an account in, or replace it."""
        self._accounts[shown.account.id] = (tenant, shown)

    def show_transfer(self, tenant: str, shown: Transfer) -> None:
        """Put a transfer in, or replace it."""
        self._transfers[shown.id] = (tenant, shown)

    def show_hold(self, account_id: str, shown: ShownHold) -> None:
        """Put an open hold of an account in."""
        self._holds.setdefault(account_id, []).append(shown)

    def show_entries(self, account_id: str, rows: list[EntryRow]) -> None:
        """Add to an account's entries."""
        self._entries.setdefault(account_id, []).extend(rows)

    async def payment(self, tenant: str, payment_id: str) -> ShownPayment | None:
        """Return the tenant's payment with its timeline."""
        self._answer()
        owner, shown = self._payments.get(payment_id, (None, None))
        return shown if owner == tenant else None

    async def payments(self, query: PaymentQuery) -> list[ShownPayment]:
        """Return up to `limit` payments, newest first, without timelines."""
        self._answer()
        found = [s for owner, s in self._payments.values() if owner == query.tenant]
        found = [s for s in found if _matches(query, s.payment) and _in_range(query, s.place)]
        found.sort(key=lambda s: (-s.place.at_us, s.place.id))
        return [
            ShownPayment(
                msgspec.structs.replace(s.payment, timeline=msgspec.UNSET), s.version, s.place
            )
            for s in found[: query.limit]
        ]

    async def account(self, tenant: str, account_id: str) -> ShownAccount | None:
        """Return the tenant's account with its balances."""
        self._answer()
        owner, shown = self._accounts.get(account_id, (None, None))
        return shown if owner == tenant else None

    async def transfer(self, tenant: str, transfer_id: str) -> Transfer | None:
        """Return the tenant's transfer with its entries."""
        self._answer()
        owner, shown = self._transfers.get(transfer_id, (None, None))
        return shown if owner == tenant else None

    async def transfers(self, query: TransferQuery) -> list[ShownTransfer]:
        """Return up to `limit` transfers, newest first."""
        self._answer()
        owned = [transfer for owner, transfer in self._transfers.values() if owner == query.tenant]
        found = [ShownTransfer(t, _place(t)) for t in owned if _tells(query, t)]
        found = [shown for shown in found if _in_range(query, shown.place)]
        found.sort(key=lambda shown: (-shown.place.at_us, shown.place.id))
        return found[: query.limit]

    async def holds(self, query: HoldQuery) -> list[ShownHold]:
        """Return up to `limit` open holds, newest first; the caller knows whose account it is."""
        self._answer()
        found = [s for s in self._holds.get(query.account_id, ()) if _follows(s.place, query.after)]
        found.sort(key=lambda shown: (-shown.place.at_us, shown.place.id))
        return found[: query.limit]

    async def entries(self, query: EntryQuery) -> Page:
        """Return one page of an account's statement; the caller knows whose account it is."""
        self._answer()
        rows = sorted(self._entries.get(query.account_id, ()), key=lambda row: row.place)
        rows = [row for row in rows if row.place < query.end]
        shares = {row.place.share: row.after for row in rows}
        first = query.from_us
        wanted = [row for row in rows if first is None or row.place.booked_at_us >= first]
        page = wanted[::-1][: query.limit]
        return Page(page, shares if page else {})

    async def balance(self, query: BalanceQuery) -> Balances:
        """Return an account's balances at a time; the caller knows whose account it is."""
        self._answer()
        rows = sorted(self._entries.get(query.account_id, ()), key=lambda row: row.place)
        booked = [row for row in rows if row.place.booked_at_us <= query.at_us]
        shown = balances({row.place.share: row.after for row in booked}.values())
        if query.basis == "booked":
            return shown
        posted = sum(row.amount_minor for row in rows if row.effective_at_us <= query.at_us)
        return Balances(posted, shown.held, posted - shown.held)

    def _answer(self) -> None:
        if self.away:
            raise Down("views_unavailable", "The read model does not answer. Retry later.")


def _matches(query: PaymentQuery, payment: Payment) -> bool:
    sides = {payment.source.account, payment.destination.account}
    return (
        query.status in {None, payment.status}
        and query.idempotency_key in {None, payment.idempotency_key}
        and query.reference in {None, payment.reference}
        and set(query.metadata) <= set(payment.metadata.items())
        and (query.account is None or query.account in sides)
    )


def _tells(query: TransferQuery, transfer: Transfer) -> bool:
    return (
        query.reference in {None, transfer.reference}
        and set(query.metadata) <= set(transfer.metadata.items())
        and (query.account is None or query.account in {e.account for e in transfer.entries})
    )


def _place(transfer: Transfer) -> Place:
    return Place((parse(transfer.booked_at) if transfer.booked_at else None) or 0, transfer.id)


def _in_range(query: Window, place: Place) -> bool:
    if query.from_us is not None and place.at_us < query.from_us:
        return False
    if query.to_us is not None and place.at_us >= query.to_us:
        return False
    return _follows(place, query.after)


def _follows(place: Place, after: Place | None) -> bool:
    return after is None or (-place.at_us, place.id) > (-after.at_us, after.id)
