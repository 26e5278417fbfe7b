"""The fake of the Views port: rows in memory, the same answers as Postgres gives."""

from __future__ import annotations

import msgspec

from gateways.payments.cursors import PaymentQuery
from gateways.payments.present import Payment
from gateways.payments.views import ShownAccount, ShownPayment
from gateways.problems import Down


class MemoryViews:
    """Holds what a test puts in. `away`: the read model does not answer."""

    def __init__(self) -> None:
        self.away = False
        self._payments: dict[str, tuple[str, ShownPayment]] = {}
        self._accounts: dict[str, tuple[str, ShownAccount]] = {}

    def show_payment(self, tenant: str, shown: ShownPayment) -> None:
        """Put a payment in, or replace it."""
        self._payments[shown.payment.id] = (tenant, shown)

    def show_account(self, tenant: str, shown: ShownAccount) -> None:
        """Put an account in, or replace it."""
        self._accounts[shown.account.id] = (tenant, shown)

    async def payment(self, tenant: str, payment_id: str) -> ShownPayment | None:
        """Return the tenant's payment with its timeline."""
        self._answer()
        owner, shown = self._payments.get(payment_id, (None, None))
        return shown if owner == tenant else None

    async def payments(self, query: PaymentQuery) -> list[ShownPayment]:
        """Return up to `limit` payments, newest first, without timelines."""
        self._answer()
        found = [s for owner, s in self._payments.values() if owner == query.tenant]
        found = [s for s in found if _matches(query, s.payment) and _in_range(query, s)]
        found.sort(key=lambda s: (-s.place.created_at_us, s.place.payment_id))
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

    def _answer(self) -> None:
        if self.away:
            raise Down("views_unavailable", "The read model does not answer. Retry later.")


def _matches(query: PaymentQuery, payment: Payment) -> bool:
    sides = {payment.source.account, payment.destination.account}
    return (
        query.status in {None, payment.status}
        and query.idempotency_key in {None, payment.idempotency_key}
        and (query.account is None or query.account in sides)
    )


def _in_range(query: PaymentQuery, shown: ShownPayment) -> bool:
    at_us, payment_id = shown.place.created_at_us, shown.place.payment_id
    if query.from_us is not None and at_us < query.from_us:
        return False
    if query.to_us is not None and at_us >= query.to_us:
        return False
    after = query.after
    return after is None or (-at_us, payment_id) > (-after.created_at_us, after.payment_id)
