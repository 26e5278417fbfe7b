"""Reversals that several homes must agree on: all pay their part back, or none does."""

from __future__ import annotations

import pytest
from test_ledger_operations import ALICE, BANK, BOB, CAROL, Ledger

from ledger_writer.command import read_command
from ledger_writer.event import event_of
from ledger_writer.model import Row
from ledger_writer.samples import (
    account_on,
    capture,
    flags,
    hold,
    linked,
    open_account,
    reverse,
    reversed_part,
    transfer,
)
from schemas.errors import Poisoned

CAPPED = account_on(0, 2, skip=2)
"""At home where Alice is, with a cap."""


class Paid:
    """A transfer of Alice's to Bob (50) and Carol (30), who are at home on 1 and on 0."""

    def __init__(self, at: Ledger, *legs: tuple[str, str, int]) -> None:
        self.at = at
        self.transfer = transfer("paid", *(legs or ((ALICE, BOB, 50), (ALICE, CAROL, 30))))
        self.asked = reverse("back", self.transfer, home=BOB)
        self.home: dict = {}

    async def begin(self, **fields: object) -> Row:
        """Ask Bob's home, which answers for all."""
        self.asked |= fields
        [row] = await self.at.run(self.asked)
        self.home = event_of(row)
        return row

    async def step(self, kind: str, part: str, number: int, **fields: object) -> Row:
        made = reversed_part(f"transfer.{kind}", self.asked, self.home, part, number, **fields)
        [row] = await self.at.run(made)
        return row

    async def end(self, kind: str, **fields: object) -> list[Row]:
        parts = self.home["parts"]
        return [await self.step(kind, part, n, **fields) for n, part in enumerate(parts)]

    def balances(self) -> list[tuple[int, int]]:
        return [self.at.balance(account) for account in (ALICE, BOB, CAROL)]


@pytest.fixture
async def at():
    made = await Ledger().opened()
    await made.run(open_account(CAPPED, max_balance_minor=100))
    yield made
    made.prove()


@pytest.fixture
async def paid(at):
    made = Paid(at)
    await at.run(made.transfer)
    return made


def legs_of(event: dict) -> list[tuple[str, str, int]]:
    return [(leg["source"], leg["destination"], leg["amount_minor"]) for leg in event["legs"]]


async def test_the_whole_is_paid_back_by_all_homes_of_its_payees(paid):
    row = await paid.begin()
    assert row.type == "transfer.prepared"
    assert paid.home["parts"] == [BOB, CAROL]
    assert legs_of(paid.home) == [(CAROL, ALICE, 30), (BOB, ALICE, 50)]
    assert paid.home["original_legs"] == [1, 0]
    told = [paid.home[name] for name in ("amount_minor", "remaining_minor", "original_id")]
    assert told == [80, 0, paid.transfer["saga_id"]]
    assert paid.balances() == [(20, 0), (50, 50), (30, 0)]
    other = await paid.step("prepare", CAROL, 1)
    assert (other.type, event_of(other)["leg_indexes"]) == ("transfer.prepared", [0])
    rows = await paid.end("commit")
    assert [row.type for row in rows] == ["transfer.committed"] * 2
    assert {event_of(row)["original_id"] for row in rows} == {paid.transfer["saga_id"]}
    assert paid.balances() == [(100, 0), (0, 0), (0, 0)]
    [again] = await paid.at.run(reverse("again", paid.transfer))
    assert again.reason == "already_reversed"


async def test_when_one_home_refuses_nothing_was_paid_back_and_all_can_be_later(paid):
    await paid.at.run(transfer("spent", (CAROL, ALICE, 1)))
    await paid.begin()
    refused = await paid.step("prepare", CAROL, 1)
    assert (refused.reason, refused.failed_leg) == ("insufficient_funds", 1)
    [meanwhile] = await paid.at.run(reverse("leg", paid.transfer, original_leg=0, home=BOB))
    assert meanwhile.reason == "already_reversed"  # all of it is prepared to be paid back
    await paid.end("abort", reason="insufficient_funds", failed_leg=1)
    assert paid.balances() == [(21, 0), (50, 0), (29, 0)]
    [leg] = await paid.at.run(reverse("later", paid.transfer, original_leg=0, home=BOB))
    assert (leg.type, event_of(leg)["amount_minor"]) == ("transfer.reversed", 50)


async def test_what_was_paid_back_by_leg_before_is_left_out(paid):
    await paid.at.run(reverse("all of it", paid.transfer, original_leg=1, home=CAROL))
    await paid.at.run(reverse("some", paid.transfer, 20, original_leg=0, home=BOB))
    [row] = await paid.at.run(paid.asked)  # all that is left is for Bob's home alone to decide
    assert (row.type, event_of(row)["amount_minor"]) == ("transfer.reversed", 30)
    assert paid.balances() == [(100, 0), (0, 0), (0, 0)]


async def test_a_home_that_has_nothing_left_to_pay_back_has_the_others_asked(paid):
    await paid.at.run(reverse("all of it", paid.transfer, original_leg=0, home=BOB))
    row = await paid.begin()
    assert (row.type, row.entries, paid.home["leg_indexes"]) == ("transfer.prepared", (), [])
    assert paid.home["parts"] == [BOB, CAROL]
    await paid.step("prepare", CAROL, 1)
    rows = await paid.end("commit")
    assert [(row.type, len(row.entries)) for row in rows] == [
        ("transfer.committed", 0),
        ("transfer.committed", 2),
    ]
    assert paid.balances() == [(100, 0), (0, 0), (0, 0)]


async def test_committing_what_was_not_prepared_is_refused(paid):
    await paid.begin()
    assert (await paid.step("commit", CAROL, 1)).reason == "not_prepared"
    await paid.step("prepare", CAROL, 1)
    await paid.end("commit")


async def test_a_leg_paid_back_between_the_look_and_the_asking_is_refused_by_its_owner(paid):
    await paid.begin()
    await paid.at.run(reverse("race", paid.transfer, 1, original_leg=1, home=CAROL))
    refused = await paid.step("prepare", CAROL, 1)
    assert (refused.reason, refused.failed_leg) == ("amount_exceeds_original", 1)
    await paid.end("abort", reason="amount_exceeds_original", failed_leg=1)
    assert paid.balances() == [(21, 0), (50, 0), (29, 0)]


async def test_a_part_is_prepared_once_and_ended_once(paid):
    await paid.begin()
    first = await paid.step("prepare", CAROL, 1)
    repeat = await paid.step("prepare", CAROL, 1)
    assert repeat.repeats == first
    anew = await paid.step("prepare", CAROL, 1, attempt=2)
    assert anew.reason == "already_prepared"
    await paid.end("commit")
    late = await paid.step("abort", CAROL, 1, reason="late")
    assert (late.type, late.entries) == ("transfer.aborted", ())
    assert paid.balances() == [(100, 0), (0, 0), (0, 0)]


async def test_a_part_is_not_only_tried(paid):
    await paid.begin()
    tried = await paid.step("prepare", CAROL, 1, dry_run=True)
    assert (tried.reason, paid.balances()[2]) == ("dry_run_unsupported", (30, 0))
    await paid.end("abort", reason="late")


async def test_a_home_that_does_not_own_any_of_the_legs_does_not_begin(at, paid):
    elsewhere = transfer("elsewhere", (ALICE, CAROL, 5))
    await at.run(elsewhere)
    assert (await at.run(reverse("x", elsewhere, home=BOB)))[0].reason == "wrong_partition"


async def test_a_capped_payer_at_home_elsewhere_keeps_room_for_what_comes_back(at):
    await at.run(transfer("fill", (BANK, CAPPED, 90)))
    paid = Paid(at, (CAPPED, BOB, 40))
    await at.run(paid.transfer)
    await at.run(transfer("fill more", (BANK, CAPPED, 15)))  # 65 of 100: room for 35
    await paid.begin(amount_minor=36)
    assert (paid.home["parts"], paid.home["remaining_minor"]) == ([BOB, CAPPED], 4)
    refused = await paid.step("prepare", CAPPED, 1)
    assert (refused.reason, refused.failed_leg) == ("balance_limit_exceeded", 0)
    await paid.end("abort", reason="balance_limit_exceeded", failed_leg=0)
    paid.asked = reverse("less", paid.transfer, 35, home=BOB)
    await paid.begin()
    await paid.step("prepare", CAPPED, 1)
    [full] = await at.run(transfer("no room", (BANK, CAPPED, 1)))
    assert full.reason == "balance_limit_exceeded"
    await paid.end("commit")
    assert [at.balance(a) for a in (CAPPED, BOB)] == [(100, 0), (5, 0)]


async def test_what_was_captured_of_a_hold_comes_back_to_a_capped_payer_elsewhere(at):
    await at.run(transfer("fill", (BANK, CAPPED, 50)))
    held = hold("h", CAPPED, BOB, 40)
    await at.run(held, capture("c", held, 25))
    paid = Paid(at)
    paid.transfer, paid.asked = held, reverse("refund", held, home=BOB)
    await paid.begin()
    assert legs_of(paid.home) == [(BOB, CAPPED, 25)]
    await paid.step("prepare", CAPPED, 1)
    await paid.end("commit")
    assert [at.balance(a) for a in (CAPPED, BOB)] == [(50, 15), (0, 0)]


async def test_what_several_homes_posted_is_paid_back_by_several(at):
    await at.run(transfer("fund bob", (BANK, BOB, 100)))
    asked = transfer("two", (ALICE, BOB, 60), (BOB, CAROL, 70))
    await at.run(asked)
    await at.run(linked("transfer.prepare", asked, BOB))
    for part, number in ((ALICE, 0), (BOB, 1)):
        await at.run(linked("transfer.commit", asked, part, number))
    paid = Paid(at)
    paid.transfer, paid.asked = asked, reverse("back", asked, home=CAROL)
    await paid.begin()
    assert paid.home["parts"] == [CAROL, BOB]
    assert legs_of(paid.home) == [(CAROL, BOB, 70), (BOB, ALICE, 60)]
    await paid.step("prepare", BOB, 1)
    await paid.end("commit")
    assert paid.balances() == [(100, 0), (100, 0), (0, 0)]


async def test_freezing_does_not_stop_what_was_prepared(paid):
    await paid.begin()
    await paid.step("prepare", CAROL, 1)
    for account_id in (ALICE, BOB, CAROL):
        await paid.at.run(flags("account.freeze", f"f-{account_id}", account_id))
    rows = await paid.end("commit")
    assert [row.type for row in rows] == ["transfer.committed"] * 2


@pytest.mark.parametrize(
    "broken",
    [
        {"original_legs": [0]},
        {"original_legs": [0, 0]},
        {"original_legs": [0, 64]},
        {"original_legs": [-1, 0]},
        {"step": "refund-1"},
    ],
    ids=str,
)
async def test_a_part_without_meaning_is_poison(paid, broken):
    await paid.begin()
    step = reversed_part("transfer.prepare", paid.asked, paid.home, CAROL)
    read_command(step, 1, 1)
    with pytest.raises(Poisoned):
        read_command(step | broken, 1, 1)


@pytest.mark.parametrize("what", ["leg", "payer", "currency"])
async def test_a_part_that_is_not_of_the_original_is_refused(paid, what):
    await paid.begin()
    leg = paid.home["legs"][0]
    if what == "leg":
        wrong = {"original_legs": [5, 0]}
    else:
        name, value = {"payer": ("destination", CAPPED), "currency": ("currency", "USD")}[what]
        wrong = {"legs": [leg | {name: value}, paid.home["legs"][1]]}
    row = await paid.step("prepare", CAROL, 1, **wrong)
    assert row.reason == "original_not_found"
    await paid.end("abort", reason="original_not_found")
