"""Whatever is asked of the ledger in whatever order, this holds."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger_writer.chain import link
from ledger_writer.command import read_command
from ledger_writer.decide import decide
from ledger_writer.event import event_bytes
from ledger_writer.knowledge import Knowledge
from ledger_writer.model import GENESIS, Command, Decision, Row, View
from ledger_writer.operations import Known
from ledger_writer.samples import (
    account_on,
    capture,
    expire,
    flags,
    hold,
    open_account,
    reject,
    reverse,
    transfer,
    void,
)
from ledger_writer.verify import Verifier

PARTITIONS = 2
MOVING = {
    "transfer.posted",
    "transfer.reversed",
    "hold.placed",
    "hold.posted",
    "hold.voided",
}
NAMES = [account_on(0, PARTITIONS, skip=skip) for skip in range(4)]
BANK = account_on(1, PARTITIONS, "external")
AWAY = account_on(1, PARTITIONS)
EVERYBODY = [*NAMES, BANK, AWAY]

_movement = st.tuples(st.sampled_from(EVERYBODY), st.sampled_from(EVERYBODY), st.integers(1, 1_000))
_legs = st.lists(_movement, min_size=1, max_size=4)
_key = st.integers(0, 25).map(str)
_held = st.sampled_from(
    [hold(f"hold-{n}", NAMES[n % 2], NAMES[n], 80 * n + 80, expires_at_us=None) for n in (2, 3)]
    + [hold("hold-0", NAMES[0], BANK, 300, expires_at_us=1_020_000)]
)
_paid = st.sampled_from([transfer(f"paid-{n}", (NAMES[n], NAMES[1 - n], 200)) for n in (0, 1)])
_part = st.one_of(st.none(), st.integers(1, 150))
_operation = st.one_of(
    _held,
    _paid,
    st.builds(capture, _key, _held, _part),
    st.builds(void, _key, _held),
    st.builds(expire, _held, st.integers(1, 3)),
    st.builds(reverse, _key, st.one_of(_held, _paid), _part),
    st.builds(
        lambda kind, key, name, debits: flags(f"account.{kind}", key, name, debits=debits),
        st.sampled_from(["freeze", "unfreeze", "unfreeze", "close"]),
        _key,
        st.sampled_from(NAMES),
        st.sampled_from([None, True]),
    ),
    st.builds(
        lambda key, legs: transfer(key, *legs, dry_run=True), _key, st.lists(_movement, min_size=1)
    ),
)
_record = st.one_of(
    _operation,
    st.builds(lambda key, legs: transfer(key, *legs), _key, _legs),
    st.builds(lambda key, name: transfer(key, (BANK, name, 700)), _key, st.sampled_from(NAMES)),
    st.builds(lambda key, home: reject(key, home, "velocity_limit"), _key, st.sampled_from(NAMES)),
    st.builds(
        lambda name, low, high: open_account(name, min_balance_minor=low, max_balance_minor=high),
        st.sampled_from([*NAMES, AWAY]),
        st.sampled_from([None, 0, -300]),
        st.sampled_from([None, 2_000]),
    ),
)
_records = st.lists(_record, max_size=60)


def commands_of(records) -> list[Command]:
    funding = [open_account(name) for name in NAMES[:2]]
    # The bank and a stranger are at home elsewhere; they are known here by their shares.
    return [
        read_command(record, 2 * offset, 1_000 + offset)
        for offset, record in enumerate([*funding, *records])
    ]


def outside() -> Knowledge:
    knowledge = Knowledge()
    for number, name in enumerate((BANK, AWAY)):
        opened = decide(
            View(1, PARTITIONS, number + 1, 0, GENESIS, {}, {}, set()),
            [read_command(open_account(name), number, 0)],
        ).changed[0]
        knowledge.learn({name: opened})
        opened.stored_version = None
    return knowledge


def decide_in_batches(commands: list[Command], sizes: list[int]) -> list[Decision]:
    """Decide as the writer does: batch after batch, each on what the one before left."""
    knowledge, claims, decisions = outside(), {}, []
    holds, reversed_minor = {}, {}
    position, log_time, chain_hash, at = 1, 0, GENESIS, 0
    for size in sizes:
        batch = commands[at : at + size]
        at += size
        standings, _ = knowledge.recall(EVERYBODY)
        decision = decide(
            View(
                0,
                PARTITIONS,
                position,
                log_time,
                chain_hash,
                standings,
                claims,
                set(EVERYBODY),
                Known(holds, claims, reversed_minor),
            ),
            batch,
        )
        knowledge.settle(decision.changed, decision.flagged)
        holds |= {h.hold_id: replace(h, stored_minor=h.remaining_minor) for h in decision.holds}
        reversed_minor |= {r.place: r.reversed_minor for r in decision.reversals}
        rows = {row.position: row for row in decision.rows}
        claims |= {claim.key: rows[claim.position] for claim in decision.claims}
        position, log_time = decision.next_position, decision.log_time_us
        chain_hash = decision.chain_hash
        decisions.append(decision)
    assert at >= len(commands)
    return decisions


@given(_records)
def test_holds_and_what_is_held_agree_and_no_more_is_paid_back_than_moved(records):
    commands = commands_of(records)
    decisions = decide_in_batches(commands, [1] * len(commands))
    holds, back, moved, held = {}, defaultdict(int), {}, defaultdict(int)
    for decision in decisions:
        holds |= {each.hold_id: each for each in decision.holds}
        back |= {each.place: each.reversed_minor for each in decision.reversals}
        moved |= {row.position: row for row in decision.rows}
        held |= {each.account.account_id: each.held_minor for each in decision.changed}
    for name in EVERYBODY:
        assert held[name] == sum(h.remaining_minor for h in holds.values() if h.source == name)
    for (_, position, leg), minor in back.items():
        original = moved[position]
        if original.type == "hold.placed":
            assert minor <= holds[original.transfer_id].captured_minor
        else:
            assert minor <= original.entries[2 * leg + 1].amount_minor


def moves_of(row: Row) -> list[tuple[str, int, int, int]]:
    """Return the entries without account numbers, which follow from the opening's position."""
    return [(e.account_id, e.version, e.amount_minor, e.posted_minor) for e in row.entries]


def rows_of(decisions: list[Decision]) -> list[Row]:
    return [row for decision in decisions for row in decision.rows]


@given(_records)
def test_every_row_balances_and_every_share_adds_up(records):
    commands = commands_of(records)
    shares: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for row in rows_of(decide_in_batches(commands, [len(commands)])):
        assert sum(entry.amount_minor for entry in row.entries) == 0
        extras = row.extras()
        holds_part = bool(extras.get("linked", {}).get("held"))  # of a transfer of several homes
        moves = (row.type in MOVING or holds_part) and row.repeats is None
        assert bool(row.entries) == (moves and "dry_run" not in extras)
        for entry in row.entries:
            posted, version = shares[entry.account_id]
            assert entry.version == version + 1
            assert entry.posted_minor == posted + entry.amount_minor
            shares[entry.account_id] = entry.posted_minor, entry.version


@given(_records)
def test_no_guarded_account_is_ever_beyond_its_limits(records):
    commands = commands_of(records)
    decisions = decide_in_batches(commands, [len(commands)])
    limits = {each.account_id: each for decision in decisions for each in decision.opened}
    for row in rows_of(decisions):
        # Within one transfer a later leg may restore what an earlier one took: look at its end.
        after = {entry.account_id: entry for entry in row.entries}
        for account_id, entry in after.items():
            account, posted = limits.get(account_id), entry.posted_minor
            if account is not None:
                assert posted - entry.held_minor >= account.min_balance_minor
                assert account.max_balance_minor is None or posted <= account.max_balance_minor


@given(_records, st.lists(st.integers(1, 7), min_size=80, max_size=80))
@settings(max_examples=60)
def test_how_the_log_is_cut_into_batches_changes_not_a_byte(records, sizes):
    commands = commands_of(records)
    whole = rows_of(decide_in_batches(commands, [len(commands)]))
    cut = rows_of(decide_in_batches(commands, sizes))
    assert [event_bytes(row) for row in cut] == [event_bytes(row) for row in whole]


@given(_records)
def test_each_command_has_one_row_and_each_identity_one_outcome(records):
    commands = commands_of(records)
    rows = rows_of(decide_in_batches(commands, [len(commands)]))
    assert [row.command_offset for row in rows] == [command.offset for command in commands]
    assert [row.position for row in rows] == list(range(1, len(rows) + 1))
    first: dict[tuple[str, int | None], Row] = {}
    for row in rows:
        if "dry_run" in row.extras():
            continue
        step = row.attempt if row.step == "expire" else None
        origin = first.setdefault((row.identity, step), row)
        if row is not origin:
            reused = row.reason == "idempotency_key_reused" and row.repeats is None
            assert reused or row.repeats is origin
            assert reused or (row.type, row.reason) == (origin.type, origin.reason)


@given(_records)
def test_a_refused_command_changes_nothing(records):
    commands = commands_of(records)
    rows = rows_of(decide_in_batches(commands, [len(commands)]))
    kept = {row.command_offset for row in rows if row.reason is None}
    without = [command for command in commands if command.offset in kept]
    again = rows_of(decide_in_batches(without, [len(without) or 1]))
    assert [moves_of(row) for row in again] == [moves_of(row) for row in rows if row.reason is None]


@given(_records)
def test_the_verifier_finds_nothing_and_the_chain_holds(records):
    commands = commands_of(records)
    verifier, before = Verifier(), GENESIS
    for row in rows_of(decide_in_batches(commands, [len(commands)])):
        assert list(verifier.take(0, row)) == []
        before = link(before, row)
        assert row.chain_hash == before
