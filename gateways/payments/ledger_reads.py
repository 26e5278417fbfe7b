"""What the read model says of the ledger: transfers, holds, statements, balances at a time.

A statement reads each share of an account backwards along one index and merges; a balance reads one
entry of each share, by effective time the sums of the days and minutes that entries were moved over
too. None depends on how many entries the account has. SQL and rows. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateways.kafka.reply import EntryTold
from gateways.payments import lists
from gateways.payments.entry_queries import BalanceQuery, EntryQuery
from gateways.payments.hold_queries import HoldQuery
from gateways.payments.lists import Filters, Place, Row, Shape
from gateways.payments.present import Balances, reason_of
from gateways.payments.present_entries import EntryPlace, EntryRow, Standing
from gateways.payments.present_holds import Hold
from gateways.payments.present_transfers import Transfer, entry, legs_of
from gateways.payments.times import timestamp
from gateways.payments.transfer_queries import TransferQuery
from schemas import tags

_FIRST: Final = -(2**62)
_LAST: Final = 2**62
_DAY_US: Final = 86_400_000_000
_MINUTE_US: Final = 60_000_000
_decode_sides: Final = msgspec.json.Decoder(list[EntryTold]).decode
_decode_shares: Final = msgspec.json.Decoder(list[tuple[int, int, int]]).decode
_decode_pairs: Final = msgspec.json.Decoder(dict[str, str]).decode


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, newest first, and the account's shares as they are right after the first of them."""

    rows: list[EntryRow]
    shares: dict[int, Standing]


@dataclass(frozen=True, slots=True)
class ShownTransfer:
    """A transfer as the view has it, with its place in lists."""

    transfer: Transfer
    place: Place


@dataclass(frozen=True, slots=True)
class ShownHold:
    """A hold as the view has it, with its place in lists."""

    hold: Hold
    place: Place


# What several homes have posted is shown whole or not at all; its own home tells when.
_IS_WHOLE: Final = """({0}.legs_total is null or {0}.ledger_position > 0
    and jsonb_array_length({0}.entries) = 2 * {0}.legs_total)"""
_WHOLE: Final = _IS_WHOLE.format("t")

_TRANSFER_COLUMNS: Final = f"""
transfer_id, status, original_id, reason, detail, reference, metadata::text, entries::text,
    booked_at_us, effective_at_us, (
        select coalesce(sum(back.reversed_minor), 0)::bigint
        from transfers back where back.original_id = t.transfer_id and back.status = 'posted'
            and {_IS_WHOLE.format("back")}
    ) as reversed_minor"""  # noqa: S608 (constants)

TRANSFER: Final = f"""
select {_TRANSFER_COLUMNS} from transfers t
where transfer_id = $1 and tenant = $2 and {_WHOLE}"""  # noqa: S608 (constants)

_TRANSFERS: Final = Shape(_TRANSFER_COLUMNS, "transfers", "transfer_id", "booked_at_us")

# Each home of several books its legs at a time of its own; the newest one on an account lists it.
_ONCE: Final = """not exists (
    select from jsonb_array_elements(t.entries) side
    where side ->> 'account_id' = {} and (side ->> 'at_us')::bigint > d.at_us)"""

HOLDS: Final = """
select hold_id, amount_minor, remaining_minor, currency, placed_at_us, expires_at_us from holds
where account_id = $1 and remaining_minor > 0
    and placed_at_us <= $2 and (placed_at_us < $2 or hold_id > $3)
order by placed_at_us desc, hold_id limit $4"""

_NEWEST: Final = """
select posted_minor, held_minor from entries e
where e.account_id = s.account_id and e.share = s.share and e.booked_at_us <= $3
    and (e.booked_at_us, e.share, e.version) < ($3, $4, $5)
order by e.booked_at_us desc, e.version desc limit 1"""

STATEMENT: Final = f"""
select e.share, e.version, e.amount_minor, e.currency, e.posted_minor, e.held_minor, e.event,
    e.transfer_id, e.booked_at_us, e.effective_at_us, coalesce(b.posted_minor, 0) as posted_before,
    coalesce(b.held_minor, 0) as held_before, (
        select jsonb_agg(jsonb_build_array(s.share, n.posted_minor, n.held_minor))::text
        from account_shares s cross join lateral ({_NEWEST}) n where s.account_id = $1
    ) as shares
from account_shares s cross join lateral (
    select * from entries e
    where e.account_id = s.account_id and e.share = s.share
        and e.booked_at_us >= $2 and e.booked_at_us <= $3
        and (e.booked_at_us, e.share, e.version) < ($3, $4, $5)
    order by e.booked_at_us desc, e.version desc limit $6
) e
left join entries b
    on b.account_id = e.account_id and b.share = e.share and b.version = e.version - 1
where s.account_id = $1
order by e.booked_at_us desc, e.share desc, e.version desc limit $6"""  # noqa: S608 (constants)

_BOOKED: Final = """
select coalesce(sum(n.posted_minor), 0)::bigint as posted,
    coalesce(sum(n.held_minor), 0)::bigint as held
from account_shares s cross join lateral (
    select posted_minor, held_minor from entries e
    where e.account_id = s.account_id and e.share = s.share and e.booked_at_us <= $2
    order by e.booked_at_us desc, e.version desc limit 1
) n where s.account_id = $1"""

# What was booked by then, with what counts at another time moved over the line in either direction:
# whole days before the day asked for, whole minutes of it, and the entries of the last minute.
_EFFECTIVE: Final = f"""
select (posted + (
    select coalesce(sum(posted_minor), 0) from shifted_sums
    where account_id = $1 and span_s = 86400 and span < $3
) + (
    select coalesce(sum(posted_minor), 0) from shifted_sums
    where account_id = $1 and span_s = 60 and span >= $3 * 1440 and span < $4
) + (
    select coalesce(sum(amount_minor), 0) from entries
    where account_id = $1 and effective_at_us <> booked_at_us
        and effective_at_us >= $4 * 60000000 and effective_at_us <= $2
) - (
    select coalesce(sum(amount_minor), 0) from entries
    where account_id = $1 and effective_at_us <> booked_at_us
        and booked_at_us >= $4 * 60000000 and booked_at_us <= $2
))::bigint as posted, held from ({_BOOKED}) booked"""  # noqa: S608 (constants)


def transfers(query: TransferQuery) -> tuple[str, list[Any]]:
    """Return the statement and arguments of one page of transfers."""
    filters = Filters(conditions=[_WHOLE])
    filters.said("transfer", query.reference, query.metadata)
    if query.account is not None:
        side = msgspec.json.encode([{"account_id": query.account}]).decode()
        if filters.tag is None:
            filters.conditions.append(_ONCE.format(filters.bound(query.account)))
        filters.want(tags.account("transfer", query.account), "t.entries @> {}::jsonb", side)
    return lists.statement(_TRANSFERS, query, filters)


def holds(query: HoldQuery) -> tuple[str, list[Any]]:
    """Return the statement and arguments of one page of open holds."""
    after = query.after or Place(_LAST, "")
    return HOLDS, [query.account_id, after.at_us, after.id, query.limit]


def statement(query: EntryQuery) -> tuple[str, list[Any]]:
    """Return the statement and arguments of one page."""
    end, from_us = query.end, _FIRST if query.from_us is None else query.from_us
    place = (end.booked_at_us, end.share, end.version)
    return STATEMENT, [query.account_id, from_us, *place, query.limit]


def balance(query: BalanceQuery) -> tuple[str, list[Any]]:
    """Return the statement and arguments of a balance at a time.

    Holds have no time but that of their booking.
    """
    if query.basis == "booked":
        return _BOOKED, [query.account_id, query.at_us]
    at_us = query.at_us
    return _EFFECTIVE, [query.account_id, at_us, at_us // _DAY_US, at_us // _MINUTE_US]


def page_of(rows: Sequence[Row]) -> Page:
    """Read one page."""
    shares = _decode_shares(rows[0]["shares"]) if rows else []
    return Page(
        [
            EntryRow(
                place=EntryPlace(row["booked_at_us"], row["share"], row["version"]),
                event=row["event"],
                transfer_id=row["transfer_id"],
                amount_minor=row["amount_minor"],
                currency=row["currency"],
                before=Standing(row["posted_before"], row["held_before"]),
                after=Standing(row["posted_minor"], row["held_minor"]),
                effective_at_us=row["effective_at_us"],
            )
            for row in rows
        ],
        {share: Standing(posted, held) for share, posted, held in shares},
    )


def balances_of(row: Row) -> Balances:
    """Read balances."""
    posted, held = row["posted"], row["held"]
    return Balances(posted, held, posted - held)


def transfer_of(row: Row) -> Transfer:
    """Read a transfer."""
    sides = _decode_sides(row["entries"])
    return Transfer(
        id=row["transfer_id"],
        status=row["status"],
        legs=legs_of(sides),
        entries=[entry(side) for side in sides],
        reference=row["reference"],
        metadata=_decode_pairs(row["metadata"]),
        reason=reason_of(row["reason"], row["detail"]),
        reverses=row["original_id"],
        reversed_amount=row["reversed_minor"],
        dry_run=False,
        effective_at=timestamp(row["effective_at_us"]),
        booked_at=timestamp(row["booked_at_us"]),
    )


def shown_transfer(row: Row) -> ShownTransfer:
    """Read a transfer of a list."""
    return ShownTransfer(transfer_of(row), Place(row["listed_at_us"], row["transfer_id"]))


def hold_of(row: Row) -> ShownHold:
    """Read a hold."""
    expires_at_us = row["expires_at_us"]
    shown = Hold(
        payment=row["hold_id"],
        amount=row["amount_minor"],
        captured=row["amount_minor"] - row["remaining_minor"],
        remaining=row["remaining_minor"],
        currency=row["currency"],
        placed_at=timestamp(row["placed_at_us"]),
        expires_at=timestamp(expires_at_us) if expires_at_us is not None else None,
    )
    return ShownHold(shown, Place(row["placed_at_us"], row["hold_id"]))
