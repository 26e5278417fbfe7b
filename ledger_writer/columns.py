"""How a row lies in the table `journal`: what follows from the rest is left out, and put back.

`restored(stored(row)) == row` for every row: what is published from memory equals what is rebuilt
from the tables. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from ledger_writer.model import Entry, Row
from schemas.ids import IDENTITY_LENGTH, home_account

STRIDE: Final = 5
"""Numbers an entry takes in the array: account_no, version, amount, posted, held."""

Accounts = Mapping[int, tuple[str, str]]
"""Account number -> (account_id, currency)."""


UNKNOWN: Final = ("", "")
"""What an account is called that has no row: the chain then shows that something is amiss."""


class Columns(Protocol):
    """A line of a table, by column name."""

    def __getitem__(self, name: str, /) -> Any:
        """Return one column."""


def stored(row: Row) -> tuple[Any, ...]:
    """Return the row in the form of `ledger.new_row`."""
    repeats, entries, saga_id = row.repeats, row.entries, row.saga_id
    return (
        row.position,
        row.command_offset,
        row.booked_at_us,
        row.effective_at_us,
        None if repeats is None else repeats.position,
        row.attempt,
        row.failed_leg,
        None if repeats is None else repeats.partition,
        row.type,
        row.tenant,
        saga_id,
        row.step,
        None if row.identity == saga_id[-IDENTITY_LENGTH:] else row.identity,
        None if row.home_account == _home_of(entries) else row.home_account,
        "" if row.transfer_id == saga_id else row.transfer_id,
        row.reason,
        row.extra,
        _flat(entries) if entries else None,
        row.body_hash,
        row.chain_hash,
    )


def restored(columns: Columns, accounts: Accounts, repeats: Row | None) -> Row:
    """Return the row that these columns (and `partition`) hold."""
    saga_id, home = columns["saga_id"], columns["home_account"]
    identity, transfer_id = columns["identity"], columns["transfer_id"]
    entries = _entries(columns["entries"] or (), accounts)
    return Row(
        columns["partition"],
        columns["position"],
        columns["command_offset"],
        columns["booked_at_us"],
        columns["effective_at_us"],
        columns["type"],
        columns["tenant"],
        saga_id,
        columns["step"],
        columns["attempt"],
        saga_id[-IDENTITY_LENGTH:] if identity is None else identity,
        columns["body_hash"],
        (_home_of(entries) or "") if home is None else home,
        saga_id if transfer_id == "" else transfer_id,
        columns["reason"],
        columns["failed_leg"],
        repeats,
        columns["extra"],
        entries,
        columns["chain_hash"],
    )


def only_place(partition: int, position: int, kind: str = "") -> Row:
    """Return a row of which no more is known: one that another repeats, or that was detached."""
    return Row(
        partition, position, -1, 0, 0, kind, "", "", "", 0, "", b"", "", None, None, None, None,
        None, (), b"",
    )  # fmt: skip


def account_numbers(columns: Columns) -> list[int]:
    """Return the numbers of the accounts in the row's entries."""
    numbers: list[int] = (columns["entries"] or [])[::STRIDE]
    return numbers


def _home_of(entries: tuple[Entry, ...]) -> str | None:
    if not entries:
        return None
    if len(entries) == 1:
        return entries[0].account_id
    return home_account(entries[0].account_id, entries[1].account_id)


def _flat(entries: tuple[Entry, ...]) -> list[int]:
    flat: list[int] = []
    for entry in entries:
        flat += (
            entry.account_no,
            entry.version,
            entry.amount_minor,
            entry.posted_minor,
            entry.held_minor,
        )
    return flat


def _entries(flat: list[int] | tuple[()], accounts: Accounts) -> tuple[Entry, ...]:
    found = []
    for i in range(0, len(flat), STRIDE):
        account_no, version, amount, posted, held = flat[i : i + STRIDE]
        account_id, currency = accounts.get(account_no, UNKNOWN)
        found.append(Entry(account_no, account_id, currency, version, amount, posted, held))
    return tuple(found)
