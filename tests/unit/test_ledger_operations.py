"""Holds, reversals, flags and dry runs: what is done to money and accounts that are there."""

from __future__ import annotations

import pytest

from ledger_writer.command import read_command
from ledger_writer.crash import CrashPoint
from ledger_writer.event import event_bytes, event_of
from ledger_writer.intake import Intake
from ledger_writer.memory import MemoryJournal, MemoryLedger, Weather
from ledger_writer.model import Fence, Row
from ledger_writer.samples import (
    account_on,
    capture,
    expire,
    flags,
    hold,
    linked,
    open_account,
    reverse,
    transfer,
    void,
)
from ledger_writer.settle import Settler
from ledger_writer.verify import Balance, Verifier
from schemas.errors import Poisoned
from schemas.ids import operation_identity
from schemas.wire import decode

PARTITIONS = 2
ALICE, BOB = account_on(0, PARTITIONS), account_on(1, PARTITIONS)
CAROL = account_on(0, PARTITIONS, skip=1)
BANK, FEES = (account_on(number, PARTITIONS, "external") for number in range(2))


class Ledger:
    """One ledger in memory, with a writer for each partition that is called by hand."""

    def __init__(self) -> None:
        self.tables = MemoryLedger()
        self.journal = MemoryJournal(self.tables, Weather())
        self.settlers = {n: Settler(n, PARTITIONS, self.journal, CrashPoint()) for n in range(2)}
        self.fences: dict[int, Fence] = {}
        self.now_ms = 1_000

    async def run(self, *records: dict, partition: int | None = None) -> list[Row]:
        """Decide the records as one batch; on the partition of the first unless told."""
        number = records[0]["slot"] % PARTITIONS if partition is None else partition
        if number not in self.fences:
            self.fences[number] = await self.journal.acquire(number, None)
        fence = self.fences[number]
        commands = [
            read_command(record, fence.next_offset + at, self.now_ms)
            for at, record in enumerate(records)
        ]
        intake = Intake(commands, [], {}, fence.next_offset + len(commands))
        self.fences[number], decision = await self.settlers[number].settle(fence, intake, 0)
        return decision.rows

    async def opened(self) -> Ledger:
        """Open the accounts, with 100 on Alice's."""
        for account_id in (ALICE, BANK, CAROL, BOB, FEES):
            await self.run(open_account(account_id))
        await self.run(transfer("fund", (BANK, ALICE, 100)))
        return self

    def balance(self, account_id: str) -> tuple[int, int]:
        number = self.tables.accounts[account_id].account_no
        mine = [s for (account, _), s in self.tables.shares.items() if account == number]
        return sum(s.posted_minor for s in mine), sum(s.held_minor for s in mine)

    def prove(self) -> None:
        """Derive everything anew from the rows as they are stored, and compare."""
        verifier = Verifier()
        found = []
        for place in sorted(self.tables.lines):
            row = self.tables.row(*place)
            found += verifier.take(place[0], row)
            assert decode("ledger.events", event_bytes(row)) == event_of(row)
        shares = {
            key: Balance(share.posted_minor, share.held_minor, share.version)
            for key, share in self.tables.shares.items()
        }
        accounts = {account.account_no: account for account in self.tables.accounts.values()}
        found += verifier.close(
            self.tables.fences.values(),
            shares,
            accounts,
            holds=self.tables.holds,
            reversals=self.tables.reversals,
            links=self.tables.links,
        )
        assert found == []


@pytest.fixture
async def ledger():
    made = await Ledger().opened()
    yield made
    made.prove()


def outcomes(rows: list[Row]) -> list[str]:
    return [row.reason or row.type for row in rows]


def told(row: Row, *names: str) -> list[object]:
    event = event_of(row)
    return [event[name] for name in names]


# -- holds ---------------------------------------------------------------------------------------


async def test_what_is_held_is_there_and_not_available(ledger):
    [placed] = await ledger.run(hold("h", ALICE, BOB, 70, expires_at_us=9_000_000))
    [entry] = placed.entries
    assert (entry.amount_minor, entry.posted_minor, entry.held_minor) == (0, 100, 70)
    assert ledger.balance(ALICE) == (100, 70)
    assert told(placed, "type", "amount_minor", "remaining_minor", "expires_at_us") == [
        "hold.placed",
        70,
        70,
        9_000_000,
    ]
    more = await ledger.run(transfer("x", (ALICE, BOB, 31)), hold("y", ALICE, BOB, 31))
    assert outcomes(more) == ["insufficient_funds", "insufficient_funds"]
    assert [row.type for row in more] == ["transfer.rejected", "hold.rejected"]
    assert outcomes(await ledger.run(transfer("z", (ALICE, BOB, 30)))) == ["transfer.posted"]


async def test_a_hold_is_posted_in_parts_and_then_the_rest(ledger):
    placed = hold("h", ALICE, BOB, 70)
    await ledger.run(placed)
    first, second = await ledger.run(capture("1", placed, 20), capture("2", placed, 15))
    assert told(first, "type", "hold_id", "amount_minor", "remaining_minor") == [
        "hold.posted",
        placed["hold_id"],
        20,
        50,
    ]
    assert [(e.amount_minor, e.posted_minor, e.held_minor) for e in second.entries] == [
        (-15, 65, 35),
        (15, 35, 0),
    ]
    assert outcomes(await ledger.run(capture("3", placed, 36))) == ["amount_exceeds_hold"]
    [rest] = await ledger.run(capture("4", placed))
    assert told(rest, "amount_minor", "remaining_minor") == [35, 0]
    assert (ledger.balance(ALICE), ledger.balance(BOB)) == ((30, 0), (70, 0))
    late = await ledger.run(capture("5", placed, 1), void("6", placed))
    assert outcomes(late) == ["hold_closed", "hold_closed"]
    assert ledger.tables.holds[placed["hold_id"]].state == "posted"


async def test_a_void_gives_back_what_is_left(ledger):
    placed = hold("h", ALICE, BOB, 70)
    rows = await ledger.run(placed, capture("1", placed, 20), void("2", placed))
    assert told(rows[2], "type", "reason", "detail", "amount_minor", "remaining_minor") == [
        "hold.voided",
        "voided",
        None,
        50,
        0,
    ]
    assert ledger.balance(ALICE) == (80, 0)
    assert ledger.tables.holds[placed["hold_id"]].state == "voided"


async def test_a_hold_expires_by_log_time_and_not_before(ledger):
    placed = hold("h", ALICE, BOB, 70, expires_at_us=5_000_000)
    ledger.now_ms = 4_999
    early = await ledger.run(placed, expire(placed))
    assert outcomes(early) == ["hold.placed", "hold_not_expired"]
    ledger.now_ms = 5_000
    [expired, again] = await ledger.run(expire(placed, 2), expire(placed, 2))
    assert told(expired, "type", "reason", "amount_minor") == ["hold.voided", "expired", 70]
    assert again.repeats is not None
    assert ledger.balance(ALICE) == (100, 0)
    never = hold("n", ALICE, BOB, 1)
    assert outcomes(await ledger.run(never, expire(never)))[1] == "hold_not_expired"


async def test_a_hold_is_known_on_its_own_partition_and_to_its_tenant_only(ledger):
    placed = hold("h", ALICE, BOB, 70)
    await ledger.run(placed)
    elsewhere = capture("1", placed, home_account=BOB, slot=int(BOB[6:9], 16))
    assert outcomes(await ledger.run(elsewhere)) == ["hold_not_found"]
    assert outcomes(await ledger.run(void("2", placed, hold_id="x"))) == ["hold_not_found"]
    assert outcomes(await ledger.run(void("3", placed, tenant="other"))) == ["hold_not_found"]


async def test_a_capture_into_a_frozen_or_closed_account_is_refused_and_the_hold_stays(ledger):
    placed = hold("h", ALICE, BOB, 70)
    await ledger.run(placed)
    await ledger.run(flags("account.freeze", "f", BOB, credits=True))
    assert outcomes(await ledger.run(capture("1", placed))) == ["account_frozen"]
    await ledger.run(flags("account.close", "c", BOB))
    assert outcomes(await ledger.run(capture("2", placed))) == ["account_closed"]
    assert ledger.balance(ALICE) == (100, 70)
    assert outcomes(await ledger.run(void("3", placed))) == ["hold.voided"]


async def test_a_capture_is_repeated_by_its_key_and_refused_with_another_body(ledger):
    placed = hold("h", ALICE, BOB, 70)
    await ledger.run(placed)
    first, again, other = await ledger.run(
        capture("1", placed, 20), capture("1", placed, 20), capture("1", placed, 21)
    )
    assert (again.repeats, again.type) == (first, "hold.posted")
    assert told(again, "amount_minor", "remaining_minor", "repeated") == [20, 50, True]
    assert outcomes([other]) == ["idempotency_key_reused"]
    assert ledger.balance(ALICE) == (80, 50)


async def test_an_external_source_is_held_without_limit(ledger):
    placed = hold("h", BANK, BOB, 10**12)
    rows = await ledger.run(placed, capture("1", placed, 10**11))
    assert outcomes(rows) == ["hold.placed", "hold.posted"]
    assert outcomes(await ledger.run(flags("account.close", "c", BANK))) == ["account_has_holds"]


# -- flags ---------------------------------------------------------------------------------------


async def test_a_freeze_stops_what_it_names_and_an_unfreeze_allows_it_again(ledger):
    [frozen] = await ledger.run(flags("account.freeze", "1", ALICE, debits=True))
    assert told(frozen, "type", "account_id", "debits_frozen", "credits_frozen", "closed") == [
        "account.frozen",
        ALICE,
        True,
        False,
        False,
    ]
    rows = await ledger.run(
        transfer("a", (ALICE, CAROL, 1)),
        hold("b", ALICE, CAROL, 1),
        transfer("c", (BANK, ALICE, 1)),
        flags("account.freeze", "2", ALICE, credits=True),
        transfer("d", (BANK, ALICE, 1)),
        flags("account.unfreeze", "3", ALICE, debits=True, credits=False),
        transfer("e", (ALICE, CAROL, 1)),
        transfer("f", (BANK, ALICE, 1)),
        flags("account.unfreeze", "4", ALICE),
        transfer("g", (BANK, ALICE, 1)),
    )
    assert outcomes(rows) == [
        "account_frozen",
        "account_frozen",
        "transfer.posted",
        "account.frozen",
        "account_frozen",
        "account.unfrozen",
        "transfer.posted",
        "account_frozen",
        "account.unfrozen",
        "transfer.posted",
    ]
    assert told(rows[8], "debits_frozen", "credits_frozen") == [False, False]


async def test_a_freeze_counts_on_every_partition_at_once(ledger):
    await ledger.run(transfer("a", (BANK, CAROL, 5)))
    await ledger.run(transfer("b", (FEES, CAROL, 5), home=BOB), partition=1)
    await ledger.run(flags("account.freeze", "1", CAROL, credits=True))
    late = await ledger.run(transfer("c", (FEES, CAROL, 5), home=BOB), partition=1)
    assert outcomes(late) == ["account_frozen"]


async def test_a_credit_decided_before_a_freeze_is_not_committed_after_it(ledger):
    """The other partition's batch is decided, and the freeze comes before its commit."""
    commit, frozen = ledger.journal.commit, []

    async def overtaken(before, after, decision):
        if before.partition == 1 and not frozen:
            frozen.append(flags("account.freeze", "1", CAROL))
            await ledger.run(*frozen)
        return await commit(before, after, decision)

    ledger.journal.commit = overtaken
    rows = await ledger.run(transfer("b", (FEES, CAROL, 5), home=BOB), partition=1)
    assert frozen
    assert outcomes(rows) == ["account_frozen"]
    assert ledger.balance(CAROL) == (0, 0)


async def test_an_account_is_closed_only_when_nothing_is_on_it_anywhere(ledger):
    await ledger.run(hold("h", ALICE, BOB, 5))
    assert outcomes(await ledger.run(flags("account.close", "1", ALICE))) == ["account_has_holds"]
    await ledger.run(transfer("b", (FEES, CAROL, 5), home=BOB), partition=1)
    assert outcomes(await ledger.run(flags("account.close", "2", CAROL))) == ["account_not_empty"]
    await ledger.run(transfer("c", (CAROL, BANK, 5)))
    [closed] = await ledger.run(flags("account.close", "3", CAROL))
    assert told(closed, "type", "account_id", "closed") == ["account.closed", CAROL, True]
    rows = await ledger.run(
        transfer("d", (BANK, CAROL, 1)),
        flags("account.freeze", "4", CAROL),
        flags("account.close", "5", CAROL),
    )
    assert outcomes(rows) == ["account_closed"] * 3
    late = await ledger.run(transfer("e", (FEES, CAROL, 5), home=BOB), partition=1)
    assert outcomes(late) == ["account_closed"]


async def test_a_credit_that_comes_between_the_look_and_the_closing_refuses_it(ledger):
    commit, credited = ledger.journal.commit, []

    async def overtaken(before, after, decision):
        if before.partition == 0 and decision.flagged and not credited:
            credited.append(transfer("b", (FEES, CAROL, 5), home=BOB))
            await ledger.run(*credited, partition=1)
        return await commit(before, after, decision)

    ledger.journal.commit = overtaken
    assert outcomes(await ledger.run(flags("account.close", "1", CAROL))) == ["account_not_empty"]
    assert credited


async def test_flags_are_changed_at_home_by_the_tenant_only(ledger):
    away = flags("account.freeze", "1", BOB, home_account=ALICE, slot=int(ALICE[6:9], 16))
    rows = await ledger.run(
        away,
        flags("account.freeze", "2", ALICE, tenant="other"),
        flags("account.freeze", "3", account_on(0, PARTITIONS, skip=5)),
    )
    assert outcomes(rows) == ["wrong_partition", "account_not_found", "account_not_found"]
    assert [row.type for row in rows] == ["account.rejected"] * 3


# -- reversals -----------------------------------------------------------------------------------


async def test_a_transfer_is_paid_back_in_parts_and_never_more_than_it_was(ledger):
    paid = transfer("p", (ALICE, BOB, 50))
    await ledger.run(paid)
    [part] = await ledger.run(reverse("1", paid, 20))
    assert told(part, "type", "original_id", "amount_minor", "remaining_minor") == [
        "transfer.reversed",
        paid["saga_id"],
        20,
        30,
    ]
    assert [(e.account_id, e.amount_minor) for e in part.entries] == [(BOB, -20), (ALICE, 20)]
    assert outcomes(await ledger.run(reverse("2", paid, 31))) == ["amount_exceeds_original"]
    rest, more = await ledger.run(reverse("3", paid), reverse("4", paid, 1))
    assert told(rest, "amount_minor", "remaining_minor") == [30, 0]
    assert (more.type, more.reason) == ("transfer.rejected", "already_reversed")
    assert (ledger.balance(ALICE), ledger.balance(BOB)) == ((100, 0), (0, 0))


async def test_a_reversal_takes_only_what_the_payee_has(ledger):
    paid = transfer("p", (ALICE, BOB, 50))
    await ledger.run(paid)
    await ledger.run(transfer("q", (BOB, FEES, 30)))
    rows = await ledger.run(reverse("1", paid), reverse("2", paid, 20))
    assert outcomes(rows) == ["insufficient_funds", "transfer.reversed"]


async def test_a_reversal_is_repeated_by_its_key(ledger):
    paid = transfer("p", (ALICE, BOB, 50))
    await ledger.run(paid)
    first, again = await ledger.run(reverse("1", paid, 20), reverse("1", paid, 20))
    assert again.repeats is first
    assert ledger.balance(BOB) == (30, 0)


async def test_what_was_captured_of_a_hold_bounds_its_reversals(ledger):
    placed = hold("h", ALICE, BOB, 70)
    await ledger.run(placed)
    assert outcomes(await ledger.run(reverse("0", placed, 1))) == ["original_not_found"]
    await ledger.run(capture("1", placed, 20))
    [back] = await ledger.run(reverse("2", placed))
    assert told(back, "amount_minor", "remaining_minor") == [20, 0]
    await ledger.run(capture("3", placed, 10))
    over, rest = await ledger.run(reverse("4", placed, 11), reverse("5", placed, 10))
    assert outcomes([over, rest]) == ["amount_exceeds_original", "transfer.reversed"]
    assert ledger.balance(ALICE) == (100, 40)


async def test_legs_are_paid_back_together_or_by_leg(ledger):
    paid = transfer("p", (ALICE, BOB, 50), (ALICE, FEES, 5), (BOB, FEES, 1), home=ALICE)
    rows = await ledger.run(paid)
    assert outcomes(rows) == ["transfer.prepared"]  # Bob pays at his own home only
    await ledger.run(linked("transfer.abort", paid, ALICE, 0, reason="homes_unavailable"))
    paid = transfer("q", (ALICE, BOB, 50), (ALICE, FEES, 5))
    await ledger.run(paid)
    assert outcomes(await ledger.run(reverse("1", paid, 10))) == ["original_leg_required"]
    [leg] = await ledger.run(reverse("2", paid, 10, original_leg=1, home=BOB))
    assert outcomes([leg]) == ["amount_exceeds_original"]
    [leg] = await ledger.run(reverse("3", paid, 2, original_leg=1, home=BOB))
    assert told(leg, "amount_minor", "remaining_minor", "original_leg") == [2, 3, 1]
    [whole] = await ledger.run(reverse("4", paid))
    assert told(whole, "amount_minor", "remaining_minor") == [53, 0]
    assert [e.account_id for e in whole.entries] == [FEES, ALICE, BOB, ALICE]
    assert ledger.balance(ALICE) == (100, 0)
    assert outcomes(await ledger.run(reverse("5", paid))) == ["already_reversed"]


async def test_a_reversal_is_decided_by_the_owner_of_its_total_only(ledger):
    paid = transfer("p", (ALICE, BOB, 50))
    await ledger.run(paid)
    assert outcomes(await ledger.run(reverse("1", paid, home=ALICE))) == ["wrong_partition"]
    spread = transfer("q", (ALICE, BOB, 5), (ALICE, CAROL, 5))
    await ledger.run(spread)
    by_leg = [
        (await ledger.run(reverse(f"leg-{leg}", spread, original_leg=leg)))[0] for leg in (0, 1)
    ]
    assert outcomes(by_leg) == ["transfer.reversed"] * 2


async def test_only_what_was_moved_can_be_paid_back(ledger):
    refused = transfer("p", (ALICE, BOB, 500))
    await ledger.run(refused)
    never = transfer("never", (ALICE, BOB, 1))
    rows = await ledger.run(
        reverse("1", refused),
        reverse("2", never),
        reverse("3", refused, original_id="nonsense"),
        reverse("4", transfer("fund", (BANK, ALICE, 100)), tenant="other", home=BOB),
    )
    assert outcomes(rows) == ["original_not_found"] * 4


# -- dry runs ------------------------------------------------------------------------------------


async def test_a_dry_run_decides_and_changes_nothing(ledger):
    tried = transfer("p", (ALICE, BOB, 60), dry_run=True)
    poor = transfer("q", (ALICE, BOB, 60), (ALICE, CAROL, 60), dry_run=True)
    rows = await ledger.run(tried, poor, hold("h", ALICE, BOB, 5, dry_run=True))
    assert outcomes(rows) == ["transfer.posted", "insufficient_funds", "hold.placed"]
    assert [event_of(row)["dry_run"] for row in rows] == [True] * 3
    assert [row.entries for row in rows] == [()] * 3
    assert ledger.balance(ALICE) == (100, 0)
    [real, again] = await ledger.run(
        transfer("p", (ALICE, BOB, 60)), transfer("p", (ALICE, BOB, 60))
    )
    assert (real.repeats, again.repeats) == (None, real)
    freeze = flags("account.freeze", "1", ALICE, dry_run=True)
    assert outcomes(await ledger.run(freeze)) == ["dry_run_unsupported"]


# -- identity and form ---------------------------------------------------------------------------


async def test_a_key_of_an_operation_is_used_once_over_all_partitions(ledger):
    one, two = hold("h", ALICE, BOB, 10), hold("i", BOB, ALICE, 1)
    await ledger.run(transfer("fund-bob", (FEES, BOB, 9), home=BOB), two)
    await ledger.run(one, capture("key", one))
    assert outcomes(await ledger.run(capture("key", two))) == ["idempotency_key_reused"]


PLACED = hold("h", ALICE, BOB, 10)


@pytest.mark.parametrize(
    "record",
    [
        {**PLACED, "hold_id": None},
        {**PLACED, "hold_id": "pay_000_" + "b" * 26},
        {**PLACED, "legs": PLACED["legs"] * 2},
        {**PLACED, "step": "post"},
        {**capture("1", PLACED), "step": "place"},
        {**capture("1", PLACED), "amount_minor": 0},
        {**capture("1", PLACED), "hold_id": "a\0b"},
        {**void("1", PLACED), "reason": "bored"},
        {**reverse("1", PLACED), "original_id": None},
        {**reverse("1", PLACED), "amount_minor": -1},
        {**reverse("1", PLACED), "original_leg": 64},
        {**flags("account.freeze", "1", ALICE), "account_id": None},
        {**flags("account.close", "1", ALICE), "account_id": "bob"},
    ],
)
def test_an_operation_without_meaning_is_poisoned(record):
    with pytest.raises(Poisoned):
        read_command(record, 0, 0)


def test_an_operation_has_an_identity_of_its_own():
    assert capture("1", PLACED)["identity"] == operation_identity("acme", "1")
    assert expire(PLACED)["identity"] == PLACED["identity"]
