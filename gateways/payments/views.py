"""The read model, as gateways ask for it: the Views port, and Postgres behind it.

Every query names the tenant, is bounded by a statement time-out, and runs on a pool that opens
connections as needed, so that a gateway starts and takes payments while Postgres is away; then
reads are Down.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final, Protocol

import asyncpg

from gateways import metrics
from gateways.payments import ledger_reads, payment_reads
from gateways.payments.cursors import PaymentQuery
from gateways.payments.entry_queries import BalanceQuery, EntryQuery
from gateways.payments.hold_queries import HoldQuery
from gateways.payments.ledger_reads import Page, ShownHold, ShownTransfer
from gateways.payments.payment_reads import ShownAccount, ShownPayment
from gateways.payments.present import Balances
from gateways.payments.present_transfers import Transfer
from gateways.payments.transfer_queries import TransferQuery
from gateways.problems import Down

STATEMENT_MS: Final = 2_000
CONNECT_S: Final = 2.0
ACQUIRE_S: Final = 2.0

_FAILURES: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement time-out
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedTableError,  # not migrated yet
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the connection was lost as a statement was sent
    OSError,
    TimeoutError,
)


class Views(Protocol):
    """Reads; Down when the read model does not answer."""

    async def payment(self, tenant: str, payment_id: str) -> ShownPayment | None:
        """Return the tenant's payment with its timeline."""
        ...

    async def payments(self, query: PaymentQuery) -> list[ShownPayment]:
        """Return up to `limit` payments, newest first, without timelines."""
        ...

    async def account(self, tenant: str, account_id: str) -> ShownAccount | None:
        """Return the tenant's account with its balances."""
        ...

    async def transfer(self, tenant: str, transfer_id: str) -> Transfer | None:
        """Return the tenant's transfer with its entries."""
        ...

    async def transfers(self, query: TransferQuery) -> list[ShownTransfer]:
        """Return up to `limit` transfers, newest first."""
        ...

    async def holds(self, query: HoldQuery) -> list[ShownHold]:
        """Return up to `limit` open holds, newest first; the caller knows whose account it is."""
        ...

    async def entries(self, query: EntryQuery) -> Page:
        """Return one page of an account's statement; the caller knows whose account it is."""
        ...

    async def balance(self, query: BalanceQuery) -> Balances:
        """Return an account's balances at a time; the caller knows whose account it is."""
        ...


class PostgresViews:
    """The port over the views database, as views_reader."""

    def __init__(self, dsn: str, connections_max: int, name: str) -> None:
        self._dsn = dsn
        self._connections_max = connections_max
        self._name = name
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()

    async def payment(self, tenant: str, payment_id: str) -> ShownPayment | None:
        """Return the tenant's payment with its timeline."""
        rows = await self._fetch(payment_reads.PAYMENT, payment_id, tenant)
        return payment_reads.payment_of(rows[0], rows[0]["timeline"] or "[]") if rows else None

    async def payments(self, query: PaymentQuery) -> list[ShownPayment]:
        """Return up to `limit` payments, newest first, without timelines."""
        statement, arguments = payment_reads.list_statement(query)
        rows = await self._fetch(statement, *arguments)
        return [payment_reads.payment_of(row, None) for row in rows]

    async def account(self, tenant: str, account_id: str) -> ShownAccount | None:
        """Return the tenant's account with its balances."""
        rows = await self._fetch(payment_reads.ACCOUNT, account_id, tenant)
        return payment_reads.account_of(rows[0]) if rows else None

    async def transfer(self, tenant: str, transfer_id: str) -> Transfer | None:
        """Return the tenant's transfer with its entries."""
        rows = await self._fetch(ledger_reads.TRANSFER, transfer_id, tenant)
        return ledger_reads.transfer_of(rows[0]) if rows else None

    async def transfers(self, query: TransferQuery) -> list[ShownTransfer]:
        """Return up to `limit` transfers, newest first."""
        statement, arguments = ledger_reads.transfers(query)
        rows = await self._fetch(statement, *arguments)
        return [ledger_reads.shown_transfer(row) for row in rows]

    async def holds(self, query: HoldQuery) -> list[ShownHold]:
        """Return up to `limit` open holds, newest first; the caller knows whose account it is."""
        statement, arguments = ledger_reads.holds(query)
        return [ledger_reads.hold_of(row) for row in await self._fetch(statement, *arguments)]

    async def entries(self, query: EntryQuery) -> Page:
        """Return one page of an account's statement; the caller knows whose account it is."""
        statement, arguments = ledger_reads.statement(query)
        return ledger_reads.page_of(await self._fetch(statement, *arguments))

    async def balance(self, query: BalanceQuery) -> Balances:
        """Return an account's balances at a time; the caller knows whose account it is."""
        statement, arguments = ledger_reads.balance(query)
        return ledger_reads.balances_of((await self._fetch(statement, *arguments))[0])

    async def close(self, within_s: float) -> None:
        """End every connection."""
        if self._pool is not None:
            with suppress(*_FAILURES):
                await asyncio.wait_for(self._pool.close(), within_s)

    async def _fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        try:
            with metrics.VIEWS_SECONDS.time():
                pool = self._pool or await self._open()
                async with pool.acquire(timeout=ACQUIRE_S) as connection:
                    return await connection.fetch(statement, *arguments)
        except _FAILURES as error:
            detail = f"The read model does not answer ({type(error).__name__}). Retry later."
            raise Down("views_unavailable", detail) from error

    async def _open(self) -> asyncpg.Pool[asyncpg.Record]:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=0,
                    max_size=self._connections_max,
                    timeout=CONNECT_S,
                    command_timeout=STATEMENT_MS / 1000 + 0.5,
                    server_settings={
                        "application_name": self._name,
                        "statement_timeout": str(STATEMENT_MS),
                        "default_transaction_read_only": "on",
                    },
                )
            return self._pool
