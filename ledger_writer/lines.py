"""Lines of the ledger's tables as values, by column name. Pure."""

from __future__ import annotations

from typing import Final

from ledger_writer.accounts import home_of
from ledger_writer.columns import Columns
from ledger_writer.model import Account, Fence, Standing
from ledger_writer.operations import Hold, Link

FENCES: Final = "select * from ledger.partitions order by partition"
NAMES: Final = "select account_no, account_id, currency from ledger.accounts"


def fence_at(line: Columns) -> Fence:
    """Return the fence in this line of `partitions`."""
    return Fence(*(line[name] for name in Fence.__struct_fields__))


def hold_at(line: Columns) -> Hold:
    """Return the hold in this line of `holds`."""
    return Hold(*(line[name] for name in Hold.__struct_fields__))


def link_at(line: Columns) -> Link:
    """Return the link in this line of `links`."""
    return Link(*(line[name] for name in Link.__struct_fields__))


def account_at(line: Columns, partitions: int) -> Account:
    """Return the account in this line of `accounts`."""
    return Account(
        line["account_no"],
        line["account_id"],
        line["tenant"],
        line["currency"],
        line["kind"],
        line["name"],
        line["min_balance_minor"],
        line["max_balance_minor"],
        home_of(line["account_id"], partitions),
        line["debits_frozen"],
        line["credits_frozen"],
        line["closed"],
    )


def standing_at(line: Columns, partitions: int) -> Standing:
    """Return the standing in this line of the query for standings."""
    return Standing(
        account_at(line, partitions),
        line["posted_minor"] or 0,
        line["held_minor"] or 0,
        line["version"] or 0,
        line["foreign_minor"],
        line["version"],
        line["promised_minor"] or 0,
    )
