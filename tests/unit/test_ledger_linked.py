"""Transfers that several homes must agree on: each part decided whole, kept, and ended together."""

from __future__ import annotations

import pytest
from test_ledger_operations import ALICE, BANK, BOB, CAROL, Ledger

from ledger_writer.command import read_command
from ledger_writer.event import event_of
from ledger_writer.samples import account_on, flags, linked, open_account, reverse, transfer
from schemas.errors import Poisoned

CAPPED = account_on(1, 2, skip=1)


async def ledger(cap: int = 50) -> Ledger:
    """Alice has 100 and is at home on 0; Bob has 100 and Capped has a cap, both on 1."""
    made = await Ledger().opened()
    await made.run(transfer("fund bob", (BANK, BOB, 100)))
    await made.run(open_account(CAPPED, max_balance_minor=cap))
    return made


def both(key: str, alice: int, bob: int, **fields: object) -> dict:
    return transfer(key, (ALICE, CAROL, alice), (BOB, CAROL, bob), **fields)


async def test_two_homes_agree_and_both_parts_are_posted():
    at, asked = await ledger(), both("k", 60, 70)
    [home] = await at.run(asked)
    assert home.type == "transfer.prepared"
    assert event_of(home)["parts"] == [ALICE, BOB]
    assert at.balance(ALICE) == (100, 60)
    [other] = await at.run(linked("transfer.prepare", asked, BOB))
    assert (other.type, event_of(other)["leg_indexes"]) == ("transfer.prepared", [1])
    for part, number in ((ALICE, 0), (BOB, 1)):
        [row] = await at.run(linked("transfer.commit", asked, part, number))
        assert row.type == "transfer.committed"
        assert sum(entry.amount_minor for entry in row.entries) == 0
    assert [at.balance(a) for a in (ALICE, BOB, CAROL)] == [(40, 0), (30, 0), (130, 0)]
    at.prove()


async def test_a_part_that_is_refused_names_its_leg_and_the_others_are_given_back():
    at, asked = await ledger(), both("k", 60, 101)
    await at.run(asked)
    [refused] = await at.run(linked("transfer.prepare", asked, BOB))
    assert (refused.type, refused.reason, refused.failed_leg) == (
        "transfer.rejected",
        "insufficient_funds",
        1,
    )
    told = {"reason": "insufficient_funds", "failed_leg": 1}
    [ended] = await at.run(linked("transfer.abort", asked, ALICE, 0, **told))
    assert {key: event_of(ended)[key] for key in told} == told
    assert [at.balance(a) for a in (ALICE, BOB, CAROL)] == [(100, 0), (100, 0), (0, 0)]
    at.prove()


async def test_a_home_that_refuses_its_own_part_ends_the_transfer_at_once():
    at = await ledger()
    [row] = await at.run(both("k", 101, 1))
    assert (row.type, row.reason, row.failed_leg) == ("transfer.rejected", "insufficient_funds", 0)
    at.prove()


async def test_a_part_is_agreed_to_whole_or_not_at_all():
    at = await ledger()
    asked = transfer("k", (ALICE, CAROL, 1), (BOB, CAROL, 60), (BOB, CAROL, 60))
    await at.run(asked)
    [row] = await at.run(linked("transfer.prepare", asked, BOB))
    assert (row.reason, row.failed_leg) == ("insufficient_funds", 2)
    assert at.balance(BOB) == (100, 0)


async def test_aborting_a_part_that_holds_nothing_is_told_as_done():
    at, asked = await ledger(), both("k", 1, 1)
    [row] = await at.run(linked("transfer.abort", asked, BOB, reason="homes_unavailable"))
    assert (row.type, row.entries) == ("transfer.aborted", ())
    at.prove()


async def test_committing_what_was_not_prepared_is_refused():
    at, asked = await ledger(), both("k", 1, 1)
    [row] = await at.run(linked("transfer.commit", asked, BOB))
    assert (row.type, row.reason) == ("transfer.rejected", "not_prepared")


async def test_a_step_that_comes_twice_is_a_repeat():
    at, asked = await ledger(), both("k", 60, 70)
    await at.run(asked)
    step = linked("transfer.prepare", asked, BOB)
    await at.run(step)
    [again] = await at.run(step)
    assert again.repeats is not None
    assert at.balance(BOB) == (100, 70)
    at.prove()


async def test_what_is_prepared_and_committed_in_one_batch_is_posted():
    at, asked = await ledger(), both("k", 60, 70)
    await at.run(asked, linked("transfer.commit", asked, ALICE, 0))
    steps = [linked(f"transfer.{kind}", asked, BOB) for kind in ("prepare", "commit")]
    rows = await at.run(*steps)
    assert [row.type for row in rows] == ["transfer.prepared", "transfer.committed"]
    assert at.balance(CAROL) == (130, 0)
    at.prove()


async def test_the_room_of_a_capped_payee_is_promised_by_its_home_and_never_exceeded():
    at = await ledger(cap=50)
    first, second = (transfer(key, (ALICE, CAPPED, 30)) for key in "ab")
    [row] = await at.run(first)
    assert event_of(row)["parts"] == [ALICE, CAPPED]
    await at.run(second)
    await at.run(linked("transfer.prepare", first, CAPPED))
    [refused] = await at.run(linked("transfer.prepare", second, CAPPED))
    assert (refused.reason, refused.failed_leg) == ("balance_limit_exceeded", 0)
    # What is promised leaves less room for what is credited at home, before and after the commit.
    [refused] = await at.run(transfer("c", (BOB, CAPPED, 21)))
    assert refused.reason == "balance_limit_exceeded"
    for part, number in ((ALICE, 0), (CAPPED, 1)):
        await at.run(linked("transfer.commit", first, part, number))
    rows = await at.run(transfer("d", (BOB, CAPPED, 21)), transfer("e", (BOB, CAPPED, 20)))
    assert [row.reason for row in rows] == ["balance_limit_exceeded", None]
    assert at.balance(CAPPED) == (50, 0)
    at.prove()


async def test_room_that_is_given_up_can_be_used_again():
    at = await ledger(cap=50)
    asked = transfer("a", (ALICE, CAPPED, 50))
    await at.run(asked)
    await at.run(linked("transfer.prepare", asked, CAPPED))
    await at.run(linked("transfer.abort", asked, CAPPED, reason="homes_unavailable"))
    [row] = await at.run(transfer("b", (BOB, CAPPED, 50)))
    assert row.reason is None
    at.prove()


async def test_room_promised_to_a_leg_posted_at_home_is_room_again_once_it_is_posted():
    at = await ledger(cap=50)
    asked = transfer("k", (ALICE, CAROL, 1), (BOB, CAPPED, 50))
    await at.run(asked)
    for kind in ("prepare", "commit"):
        await at.run(linked(f"transfer.{kind}", asked, BOB))
    assert at.balance(CAPPED) == (50, 0)
    assert at.tables.promised[CAPPED] == 0
    await at.run(linked("transfer.commit", asked, ALICE, 0))
    rows = await at.run(transfer("out", (CAPPED, BOB, 10)), transfer("in", (BOB, CAPPED, 10)))
    assert [row.reason for row in rows] == [None, None]
    at.prove()


async def test_freezing_does_not_stop_what_was_prepared_and_stops_what_was_not():
    at, asked = await ledger(), both("k", 60, 70)
    await at.run(asked)
    await at.run(linked("transfer.prepare", asked, BOB))
    for account_id in (ALICE, BOB, CAROL):
        await at.run(flags("account.freeze", f"f-{account_id}", account_id))
    late = both("late", 1, 1)
    [refused] = await at.run(late)
    assert refused.reason == "account_frozen"
    for part, number in ((ALICE, 0), (BOB, 1)):
        [row] = await at.run(linked("transfer.commit", asked, part, number))
        assert row.type == "transfer.committed"
    at.prove()


@pytest.mark.parametrize("ends", ["transfer.commit", "transfer.abort"])
async def test_an_account_with_open_links_is_not_closed_on_whatever_partition_they_are(ends):
    at, asked = await ledger(), transfer("k", (BOB, CAROL, 100), (ALICE, BANK, 100))
    await at.run(asked)
    [refused] = await at.run(flags("account.close", "one", CAROL))
    assert (refused.type, refused.reason) == ("account.rejected", "account_has_holds")
    await at.run(linked(ends, asked, BOB, 0, reason="homes_unavailable"))
    [row] = await at.run(flags("account.close", "two", CAROL))
    empty = ends == "transfer.abort"
    assert row.reason == (None if empty else "account_not_empty")
    at.prove()


async def test_a_capped_account_with_promised_room_is_not_closed():
    at, asked = await ledger(), transfer("k", (ALICE, CAPPED, 1))
    await at.run(asked)
    await at.run(linked("transfer.prepare", asked, CAPPED))
    [refused] = await at.run(flags("account.close", "c", CAPPED))
    assert refused.reason == "account_has_holds"


async def test_what_several_homes_posted_is_paid_back_once_all_have_posted():
    at, asked = await ledger(), transfer("k", (ALICE, CAPPED, 30))
    await at.run(asked)
    await at.run(linked("transfer.prepare", asked, CAPPED))
    [early] = await at.run(reverse("early", asked))
    assert early.reason == "original_not_found"
    for part, number in ((ALICE, 0), (CAPPED, 1)):
        await at.run(linked("transfer.commit", asked, part, number))
    [part] = await at.run(reverse("r1", asked, 10))
    assert (part.type, event_of(part)["remaining_minor"]) == ("transfer.reversed", 20)
    [over] = await at.run(reverse("r2", asked, 21))
    assert over.reason == "amount_exceeds_original"
    await at.run(reverse("r3", asked))
    assert [at.balance(a) for a in (ALICE, CAPPED)] == [(100, 0), (0, 0)]
    at.prove()


async def test_what_several_homes_must_agree_on_is_tried_at_each_and_nothing_is_kept():
    at, asked = await ledger(), both("k", 60, 70, dry_run=True)
    for _ in range(2):
        [home] = await at.run(asked)
        [away] = await at.run(linked("transfer.prepare", asked, BOB))
        for row in (home, away):
            event = event_of(row)
            assert (row.type, row.entries) == ("transfer.prepared", ())
            assert (event["dry_run"], event["leg_indexes"]) == (True, [])
        assert event_of(home)["parts"] == [ALICE, BOB]
    [row] = await at.run(both("k", 101, 70, dry_run=True))
    assert (row.reason, row.failed_leg) == ("insufficient_funds", 0)
    poor = both("k", 60, 101, dry_run=True)
    await at.run(poor)
    [row] = await at.run(linked("transfer.prepare", poor, BOB))
    assert (row.reason, row.failed_leg) == ("insufficient_funds", 1)
    [late] = await at.run(linked("transfer.commit", asked, BOB, dry_run=False))
    assert late.reason == "not_prepared"
    assert [at.balance(a) for a in (ALICE, BOB, CAROL)] == [(100, 0), (100, 0), (0, 0)]
    [kept] = await at.run(both("k", 60, 70))
    assert kept.type == "transfer.prepared"
    at.prove()


@pytest.mark.parametrize("end", ["commit", "abort"])
async def test_a_part_is_prepared_once_however_it_is_asked_for_again(end):
    at, asked = await ledger(), both("k", 60, 70)
    await at.run(asked)
    await at.run(linked("transfer.prepare", asked, BOB))
    for number in (2, 3):
        [again] = await at.run(linked("transfer.prepare", asked, BOB, number))
        assert again.reason == "already_prepared"
        await at.run(linked(f"transfer.{end}", asked, BOB, number, reason="homes_unavailable"))
        left = (30, 0) if end == "commit" else (100, 0)
        assert at.balance(BOB) == left
    await at.run(linked(f"transfer.{end}", asked, ALICE, 0, reason="homes_unavailable"))
    at.prove()


async def test_an_account_that_does_not_exist_is_named_before_anybody_is_asked():
    at = await ledger()
    nobody = account_on(1, 2, skip=7)
    [row] = await at.run(transfer("k", (ALICE, CAPPED, 1), (nobody, CAROL, 1)))
    assert (row.reason, row.failed_leg) == ("account_not_found", 1)


@pytest.mark.parametrize(
    "broken",
    [{"legs": []}, {"saga_id": "nobody"}, {"identity": "a" * 26}, {"reason": None}],
    ids=lambda broken: next(iter(broken)),
)
def test_a_step_without_meaning_is_poison(broken):
    step = linked("transfer.abort", both("k", 1, 1), BOB, reason="homes_unavailable")
    with pytest.raises(Poisoned):
        read_command(step | broken, 1, 1)
