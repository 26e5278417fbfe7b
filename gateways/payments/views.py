"""The read model, as gateways ask for it: the Views port, and Postgres behind it.

Every query names the tenant, is bounded by a statement time-out, and runs on a pool that opens
connections as needed, so that a gateway starts and takes payments while Postgres is away; then
reads are Down.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

import asyncpg
import msgspec

from gateways import metrics
from gateways.payments import ledger_reads
from gateways.payments.cursors import PaymentQuery, Place
from gateways.payments.entry_queries import BalanceQuery, EntryQuery
from gateways.payments.ledger_reads import Page
from gateways.payments.present import (
    Account,
    Balances,
    Frozen,
    LimitsOut,
    PartyOut,
    Payment,
    TimelineStep,
    reason_of,
)
from gateways.payments.present_transfers import Transfer
from gateways.payments.times import timestamp
from gateways.problems import Down

STATEMENT_MS: Final = 2_000
CONNECT_S: Final = 2.0
ACQUIRE_S: Final = 2.0

_decode_timeline: Final = msgspec.json.Decoder(list[tuple[int, str, str | None, str | None]]).decode
_FAILURES: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement time-out
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedTableError,  # not migrated yet
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)


@dataclass(frozen=True, slots=True)
class ShownPayment:
    """A payment as the view has it, with its version and its place in lists."""

    payment: Payment
    version: int
    place: Place


@dataclass(frozen=True, slots=True)
class ShownAccount:
    """An account as the view has it, with the version of each share of its balance.

    `changed_at_us`: when its flags were changed last, 0 if never.
    """

    account: Account
    shares: dict[int, int]
    changed_at_us: int = 0


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

    async def entries(self, query: EntryQuery) -> Page:
        """Return one page of an account's statement; the caller knows whose account it is."""
        ...

    async def balance(self, query: BalanceQuery) -> Balances:
        """Return an account's balances at a time; the caller knows whose account it is."""
        ...


_PAYMENT_COLUMNS: Final = """
payment_id, idempotency_key, status, version, reason, detail, amount_minor, currency,
source_account, destination_account, method, capture, description, reference, metadata::text,
created_at_us, updated_at_us, authorized_minor, captured_minor, refunded_minor, expires_at_us"""

_PAYMENT: Final = f"""
select {_PAYMENT_COLUMNS}, (
    select jsonb_agg(jsonb_build_array(at_us, event, reason, detail) order by t.version)::text
    from payment_timeline t where t.payment_id = p.payment_id
) as timeline
from payments p where payment_id = $1 and tenant = $2"""  # noqa: S608 (constants only)

_ACCOUNT: Final = """
select a.account_id, a.kind, a.currency, a.name, a.status, a.min_balance_minor, a.max_balance_minor,
    a.metadata::text, a.created_at_us, a.debits_frozen, a.credits_frozen, a.changed_at_us,
    s.shares, s.versions, s.posted, s.held
from accounts a cross join lateral (
    select coalesce(array_agg(share), '{}') as shares,
        coalesce(array_agg(version), '{}') as versions,
        coalesce(sum(posted_minor), 0)::bigint as posted,
        coalesce(sum(held_minor), 0)::bigint as held
    from account_shares where account_id = a.account_id
) s
where a.account_id = $1 and a.tenant = $2"""


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
        rows = await self._fetch(_PAYMENT, payment_id, tenant)
        return _payment(rows[0], rows[0]["timeline"] or "[]") if rows else None

    async def payments(self, query: PaymentQuery) -> list[ShownPayment]:
        """Return up to `limit` payments, newest first, without timelines."""
        statement, arguments = list_statement(query)
        return [_payment(row, None) for row in await self._fetch(statement, *arguments)]

    async def account(self, tenant: str, account_id: str) -> ShownAccount | None:
        """Return the tenant's account with its balances."""
        rows = await self._fetch(_ACCOUNT, account_id, tenant)
        return _account(rows[0]) if rows else None

    async def transfer(self, tenant: str, transfer_id: str) -> Transfer | None:
        """Return the tenant's transfer with its entries."""
        rows = await self._fetch(ledger_reads.TRANSFER, transfer_id, tenant)
        return ledger_reads.transfer_of(rows[0]) if rows else None

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


def list_statement(query: PaymentQuery) -> tuple[str, list[Any]]:
    """Return the statement and arguments of a list. Each arm runs along one index. Pure."""
    arguments: list[Any] = [query.tenant]
    conditions = ["tenant = $1"]

    def bound(template: str, *values: Any) -> str:
        start = len(arguments) + 1
        arguments.extend(values)
        return template.format(*(f"${start + i}" for i in range(len(values))))

    if query.status is not None:
        conditions.append(bound("status = {}", query.status))
    if query.idempotency_key is not None:
        conditions.append(bound("idempotency_key = {}", query.idempotency_key))
    if query.from_us is not None:
        conditions.append(bound("created_at_us >= {}", query.from_us))
    if query.to_us is not None:
        conditions.append(bound("created_at_us < {}", query.to_us))
    if query.after is not None:
        at_us, payment_id = query.after.created_at_us, query.after.payment_id
        after = "created_at_us <= {0} and (created_at_us < {0} or payment_id > {1})"
        conditions.append(bound(after, at_us, payment_id))
    sides = [""]
    if query.account is not None:
        account = bound("{}", query.account)
        sides = [f" and source_account = {account}", f" and destination_account = {account}"]
    limit = bound("{}", query.limit)
    where = " and ".join(conditions)
    select = f"select {_PAYMENT_COLUMNS} from payments where {where}"  # noqa: S608 (placeholders)
    order = f" order by created_at_us desc, payment_id limit {limit}"
    if len(sides) == 1:
        return select + order, arguments
    arms = [f"({select}{side}{order})" for side in sides]
    return " union all ".join(arms) + order, arguments


def _payment(row: asyncpg.Record, timeline: str | None) -> ShownPayment:
    steps: list[TimelineStep] | msgspec.UnsetType = msgspec.UNSET
    if timeline is not None:
        steps = [
            TimelineStep(timestamp(at_us), event, reason_of(reason, detail))
            for at_us, event, reason, detail in _decode_timeline(timeline)
        ]
    shown = Payment(
        id=row["payment_id"],
        status=row["status"],
        amount=row["amount_minor"],
        currency=row["currency"],
        source=PartyOut(row["source_account"]),
        destination=PartyOut(row["destination_account"]),
        capture=row["capture"],
        method=row["method"],
        description=row["description"],
        reference=row["reference"],
        metadata=_metadata(row["metadata"]),
        reason=reason_of(row["reason"], row["detail"]),
        idempotency_key=row["idempotency_key"],
        created_at=timestamp(row["created_at_us"]),
        updated_at=timestamp(row["updated_at_us"]),
        authorized_amount=row["authorized_minor"] or 0,
        captured_amount=row["captured_minor"] or 0,
        refunded_amount=row["refunded_minor"] or 0,
        expires_at=timestamp(row["expires_at_us"]) if row["expires_at_us"] is not None else None,
        timeline=steps,
    )
    return ShownPayment(shown, row["version"], Place(row["created_at_us"], row["payment_id"]))


def _account(row: asyncpg.Record) -> ShownAccount:
    versions = dict(zip(row["shares"], row["versions"], strict=True))
    posted, held = row["posted"], row["held"]
    shown = Account(
        id=row["account_id"],
        currency=row["currency"],
        kind=row["kind"],
        status=row["status"],
        name=row["name"],
        limits=LimitsOut(row["min_balance_minor"], row["max_balance_minor"]),
        balances=Balances(posted, held, posted - held),
        version=sum(versions.values()),
        metadata=_metadata(row["metadata"]),
        created_at=timestamp(row["created_at_us"]),
        frozen=Frozen(row["debits_frozen"], row["credits_frozen"]),
    )
    return ShownAccount(shown, versions, row["changed_at_us"])


def _metadata(text: str | None) -> dict[str, str]:
    return msgspec.json.decode(text, type=dict[str, str]) if text else {}
