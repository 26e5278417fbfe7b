"""Read the ledger and the views as their reader roles may: in bulk, nothing written.

COPY hands each table over as CSV, and Arrow parses it with the types given here: no row passes
through Python. A database's tables come from one REPEATABLE READ transaction: they belong together.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import asyncpg
import pyarrow as pa
from pyarrow import csv

if TYPE_CHECKING:
    from collections.abc import Mapping

_TYPES: Final = {"i": pa.int64(), "t": pa.string(), "b": pa.bool_()}

_LEDGER: Final = {
    "partitions": "partition:i next_offset:i next_position:i chain_hash:t",
    "outcomes": "partition:i position:i command_offset:i type:t command_id:t saga_id:t step:t "
    "attempt:i tenant:t identity:t body_hash:t transfer_id:t reason:t failed_leg:i repeated:b "
    "repeats_partition:i repeats_position:i booked_at_us:i effective_at_us:i extra:t chain_hash:t",
    "journal": "partition:i position:i home_account:t",
    "entries": "share:i position:i ordinal:i account_id:t currency:t version:i amount_minor:i "
    "posted_minor:i held_minor:i",
    "accounts": "account_id:t tenant:t currency:t kind:t min_balance_minor:i max_balance_minor:i "
    "debits_frozen:b credits_frozen:b closed:b",
    "shares": "account_id:t share:i posted_minor:i held_minor:i version:i",
    "balances": "account_id:t posted_minor:i held_minor:i available_minor:i",
    "identities": "key:t partition:i position:i",
    "holds": "hold_id:t partition:i source:t destination:t currency:t amount_minor:i "
    "remaining_minor:i captured_minor:i expires_at_us:i state:t",
    "reversals": "original_partition:i original_position:i leg:i partition:i reversed_minor:i",
    "links": "link_id:t kind:t partition:i source:t destination:t currency:t amount_minor:i "
    "state:t",
    "rooms": "account_id:t promised_minor:i",
}
_VIEWS: Final = {
    "view_payments": "payment_id:t tenant:t idempotency_key:t status:t version:i reason:t "
    "amount_minor:i currency:t source_account:t destination_account:t authorized_minor:i "
    "captured_minor:i refunded_minor:i",
    "view_timeline": "payment_id:t version:i at_us:i event:t reason:t event_id:t",
    "view_accounts": "account_id:t tenant:t kind:t currency:t status:t debits_frozen:b "
    "credits_frozen:b changed_position:i",
    "view_transfers": "transfer_id:t tenant:t status:t original_id:t reversed_minor:i reason:t "
    "failed_leg:i ledger_position:i entries:t",
    "view_shares": "account_id:t share:i version:i posted_minor:i held_minor:i",
    "view_entries": "account_id:t share:i version:i amount_minor:i posted_minor:i held_minor:i "
    "currency:t ledger_position:i",
    "view_webhooks": "source:t partner_event_id:t status:t deliveries:i",
}
_FROM: Final = {
    "shares": "ledger.shares join ledger.accounts using (account_no)",
    "rooms": "ledger.rooms join ledger.accounts using (account_no)",
    "view_payments": "payments",
    "view_timeline": "payment_timeline",
    "view_accounts": "accounts",
    "view_transfers": "transfers",
    "view_shares": "account_shares",
    "view_entries": "entries",
    "view_webhooks": "webhook_events",
}

Types = dict[str, pa.DataType]


def _types(columns: str) -> Types:
    pairs = (column.partition(":") for column in columns.split())
    return {name: _TYPES[kind] for name, _, kind in pairs}


LEDGER_TABLES: Final = {table: _types(columns) for table, columns in _LEDGER.items()}
"""The SQL tables of the ledger's snapshot, with their columns' types."""

VIEW_TABLES: Final = {table: _types(columns) for table, columns in _VIEWS.items()}
"""Those of the read model's."""


async def decided_offsets(dsn: str) -> dict[tuple[str, int], int]:
    """Return how far the ledger has decided: (topic, partition) to the next offset."""
    rows = await _fetch(dsn, "select partition, next_offset from ledger.partitions")
    return {("ledger.commands", row["partition"]): row["next_offset"] for row in rows}


async def viewed_offsets(dsn: str) -> dict[tuple[str, int], int]:
    """Return how far the read model has read: (topic, partition) to the next offset."""
    rows = await _fetch(dsn, "select topic, partition, next_offset from view_offsets")
    return {(row["topic"], row["partition"]): row["next_offset"] or 0 for row in rows}


async def snapshot(dsn: str, tables: Mapping[str, Types]) -> dict[str, pa.Table]:
    """Return each of these tables, all as of one moment."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return {name: await _copy(connection, name, types) for name, types in tables.items()}
    finally:
        await connection.close()


async def _fetch(dsn: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


async def _copy(
    connection: asyncpg.Connection[asyncpg.Record], table: str, types: Types
) -> pa.Table:
    out = io.BytesIO()
    query = f"select {', '.join(types)} from {_FROM.get(table, f'ledger.{table}')}"
    await connection.copy_from_query(query, output=out, format="csv", timeout=60)
    out.seek(0)
    return parse_csv(out, types)


def parse_csv(data: io.BytesIO, types: Types) -> pa.Table:
    """Parse what COPY wrote: an empty field is null, a quoted empty one is the empty text."""
    if not data.getbuffer().nbytes:
        return pa.table({name: pa.array([], kind) for name, kind in types.items()})
    return csv.read_csv(
        data,
        read_options=csv.ReadOptions(column_names=list(types)),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=dict(types),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
        ),
    )
