"""What the ledger decides: postings, refusals and repeats, on plain values."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from ledger_writer import samples
from ledger_writer.command import read_command
from ledger_writer.decide import decide
from ledger_writer.model import GENESIS, Account, Command, Decision, Standing, View
from ledger_writer.samples import account_on, open_account, reject, transfer

PARTITIONS = 4
HERE = 0
ALICE, BOB, CAROL = (account_on(HERE, PARTITIONS, skip=skip) for skip in range(3))
AWAY = account_on(1, PARTITIONS)
BANK = account_on(2, PARTITIONS, "external")


def command(record: samples.Record, offset: int = 0, at_ms: int = 1_000) -> Command:
    return read_command(record, offset, at_ms)


def standing(account_id: str, posted: int = 0, foreign: int = 0, **fields: object) -> Standing:
    kind = "customer" if account_id[5] == "c" else "external"
    given = {
        "account_no": hash(account_id) & 0xFFFF,
        "account_id": account_id,
        "tenant": samples.TENANT,
        "currency": samples.CURRENCY,
        "kind": kind,
        "name": None,
        "min_balance_minor": 0 if kind == "customer" else None,
        "max_balance_minor": None,
        "home": int(account_id[6:9], 16) % PARTITIONS,
        **fields,
    }
    return Standing(Account(**given), posted, 0, 7, foreign, 7)


def view(*standings: Standing, **fields: object) -> View:
    known = {each.account.account_id: each for each in standings}
    given = {
        "partition": HERE,
        "partitions": PARTITIONS,
        "next_position": 11,
        "log_time_us": 0,
        "chain_hash": GENESIS,
        "standings": known,
        "claims": {},
        "fresh": set(known),
    }
    return View(**{**given, **fields})


def run(at: View, *records: samples.Record) -> Decision:
    return decide(at, [command(record, offset) for offset, record in enumerate(records)])


def reasons(decision: Decision) -> list[str | None]:
    return [row.reason for row in decision.rows]


def test_a_transfer_moves_money_and_tells_balances_and_versions():
    decision = run(view(standing(ALICE, 100), standing(BOB, 5)), transfer("k", (ALICE, BOB, 30)))
    row = decision.rows[0]
    assert row.type == "transfer.posted"
    assert row.position == 11
    debit, credit = row.entries
    assert (debit.account_id, debit.amount_minor, debit.posted_minor, debit.version) == (
        ALICE,
        -30,
        70,
        8,
    )
    assert (credit.account_id, credit.amount_minor, credit.posted_minor, credit.version) == (
        BOB,
        30,
        35,
        8,
    )


def test_transfers_of_one_batch_see_each_other():
    at = view(standing(ALICE, 10), standing(BOB), standing(CAROL))
    decision = run(at, transfer("a", (ALICE, BOB, 10)), transfer("b", (BOB, CAROL, 10)))
    assert reasons(decision) == [None, None]


def test_a_debit_below_zero_is_refused_and_changes_nothing():
    decision = run(view(standing(ALICE, 10), standing(BOB)), transfer("k", (ALICE, BOB, 11)))
    assert reasons(decision) == ["insufficient_funds"]
    assert decision.rows[0].entries == ()
    assert decision.rows[0].failed_leg == 0
    assert decision.changed == []


def test_what_is_held_can_not_be_spent():
    alice = standing(ALICE, 100)
    alice.held_minor = 60
    decision = run(
        view(alice, standing(BOB)),
        transfer("a", (ALICE, BOB, 41)),
        transfer("b", (ALICE, BOB, 40)),
    )
    assert reasons(decision) == ["insufficient_funds", None]


def test_foreign_shares_count_as_funds():
    at = view(standing(ALICE, 10, foreign=5), standing(BOB))
    decision = run(at, transfer("k", (ALICE, BOB, 15)))
    assert reasons(decision) == [None]
    assert decision.rows[0].entries[0].posted_minor == -5


def test_a_refusal_on_old_knowledge_is_doubted_and_on_fresh_knowledge_is_not():
    at = view(standing(ALICE, 10), standing(BOB), fresh=set())
    assert run(at, transfer("k", (ALICE, BOB, 11))).doubted == {ALICE}
    assert run(replace(at, fresh={ALICE}), transfer("k", (ALICE, BOB, 11))).doubted == set()


def test_an_overdraft_goes_to_its_limit():
    alice = standing(ALICE, min_balance_minor=-50)
    at = view(alice, standing(BOB))
    decision = run(at, transfer("a", (ALICE, BOB, 51)), transfer("b", (ALICE, BOB, 50)))
    assert reasons(decision) == ["insufficient_funds", None]


def test_a_cap_holds_at_home_and_is_not_decided_elsewhere():
    capped = standing(BOB, 90, max_balance_minor=100)
    at = view(standing(ALICE, 500), capped, standing(AWAY, max_balance_minor=100))
    decision = run(
        at,
        transfer("a", (ALICE, BOB, 11)),
        transfer("b", (ALICE, BOB, 10)),
        transfer("c", (ALICE, AWAY, 1)),
    )
    assert reasons(decision) == ["balance_limit_exceeded", None, None]
    assert [row.type for row in decision.rows[1:]] == ["transfer.posted", "transfer.prepared"]
    assert decision.rows[2].extras()["linked"]["parts"] == [ALICE, AWAY]


def test_a_guarded_account_is_debited_at_home_only():
    at = view(standing(AWAY, 500), standing(ALICE))
    decision = run(at, transfer("k", (AWAY, ALICE, 1), home=ALICE))
    assert decision.rows[0].type == "transfer.prepared"
    assert decision.rows[0].entries == ()


def test_a_command_on_another_homes_partition_is_refused():
    at = view(standing(AWAY, 500), standing(ALICE))
    assert reasons(run(at, transfer("k", (AWAY, ALICE, 1)))) == ["wrong_partition"]


def test_an_external_account_pays_out_on_any_partition_without_limit():
    decision = run(view(standing(BANK), standing(ALICE)), transfer("k", (BANK, ALICE, 10**15)))
    assert reasons(decision) == [None]
    assert decision.rows[0].entries[0].posted_minor == -(10**15)


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("account_closed", {"closed": True}),
        ("account_frozen", {"debits_frozen": True}),
        ("currency_mismatch", {"currency": "USD"}),
        ("account_not_found", {"tenant": "another"}),
    ],
)
def test_the_debited_account_must_allow_it(reason, change):
    at = view(standing(ALICE, 9, **change), standing(BOB))
    decision = run(at, transfer("k", (ALICE, BOB, 1)))
    assert reasons(decision) == [reason]


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("account_closed", {"closed": True}),
        ("account_frozen", {"credits_frozen": True}),
        ("currency_mismatch", {"currency": "USD"}),
        ("account_not_found", {"tenant": "another"}),
    ],
)
def test_the_credited_account_must_allow_it(reason, change):
    at = view(standing(ALICE, 9), standing(BOB, **change))
    decision = run(at, transfer("k", (ALICE, BOB, 1)))
    assert reasons(decision) == [reason]


def test_an_account_frozen_for_credits_still_pays_and_one_for_debits_still_receives():
    payer, payee = standing(ALICE, 9, credits_frozen=True), standing(BOB, debits_frozen=True)
    assert reasons(run(view(payer, payee), transfer("k", (ALICE, BOB, 1)))) == [None]


def test_unknown_accounts_and_transfers_to_oneself_are_refused():
    at = view(standing(ALICE, 9))
    decision = run(at, transfer("a", (ALICE, BOB, 1)), transfer("b", (ALICE, ALICE, 1)))
    assert reasons(decision) == ["account_not_found", "same_account"]


def test_legs_are_posted_all_or_none():
    at = view(standing(ALICE, 10), standing(BOB), standing(CAROL))
    decision = run(
        at,
        transfer("a", (ALICE, BOB, 8), (ALICE, CAROL, 3)),
        transfer("b", (ALICE, BOB, 8), (BOB, CAROL, 8), (ALICE, CAROL, 2)),
    )
    assert reasons(decision) == ["insufficient_funds", None]
    assert decision.rows[0].failed_leg == 1
    balances = {each.account.account_id: each.posted_minor for each in decision.changed}
    assert balances == {ALICE: 0, BOB: 0, CAROL: 10}
    versions = [entry.version for entry in decision.rows[1].entries if entry.account_id == ALICE]
    assert versions == [8, 9]


def test_a_reject_claims_its_identity_and_carries_its_reason():
    at = view(standing(ALICE, 9), standing(BOB))
    decision = run(at, reject("k", ALICE, "velocity_limit"), transfer("k", (ALICE, BOB, 1)))
    assert reasons(decision) == ["velocity_limit", "idempotency_key_reused"]
    assert len(decision.claims) == 1


def test_a_repeat_in_one_batch_has_the_first_outcome_and_changes_nothing():
    at = view(standing(ALICE, 10), standing(BOB))
    again = transfer("k", (ALICE, BOB, 10))
    decision = run(at, again, again, {**again, "attempt": 2})
    first, *repeats = decision.rows
    assert [row.repeats for row in repeats] == [first, first]
    assert [row.type for row in decision.rows] == ["transfer.posted"] * 3
    assert [len(row.entries) for row in decision.rows] == [2, 0, 0]
    assert [claim.position for claim in decision.claims] == [first.position]


def test_a_repeat_of_a_refusal_is_refused_again_although_funds_have_come():
    at = view(standing(ALICE), standing(BOB), standing(BANK))
    poor = transfer("k", (ALICE, BOB, 10))
    decision = run(at, poor, transfer("fund", (BANK, ALICE, 100)), poor)
    assert reasons(decision) == ["insufficient_funds", None, "insufficient_funds"]
    assert decision.rows[2].repeats is decision.rows[0]


def test_the_same_key_with_another_body_is_refused():
    at = view(standing(ALICE, 100), standing(BOB), standing(CAROL))
    decision = run(at, transfer("k", (ALICE, BOB, 1)), transfer("k", (CAROL, BOB, 1)))
    assert reasons(decision) == [None, "idempotency_key_reused"]
    assert decision.rows[1].repeats is None


def test_a_key_claimed_on_another_partition_is_known_from_the_view():
    elsewhere = run(view(standing(ALICE, 9), standing(BOB)), transfer("k", (ALICE, BOB, 1)))
    claims = {elsewhere.claims[0].key: elsewhere.rows[0]}
    at = view(standing(CAROL, 9), standing(BOB), claims=claims)
    assert reasons(run(at, transfer("k", (CAROL, BOB, 1)))) == ["idempotency_key_reused"]


def test_opening_an_account_makes_it_usable_by_the_next_command():
    at = view(standing(BANK))
    decision = run(at, open_account(ALICE), transfer("k", (BANK, ALICE, 5)))
    assert reasons(decision) == [None, None]
    opened = decision.opened[0]
    assert (opened.account_no, opened.home) == (11 * 1024 + HERE, HERE)
    assert opened.min_balance_minor == 0
    assert {each.account.account_id for each in decision.changed} == {ALICE, BANK}


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("currency_unknown", {"currency": "XYZ"}),
        ("limits_invalid", {"min_balance_minor": 1}),
        ("limits_invalid", {"max_balance_minor": -1}),
    ],
)
def test_an_account_that_can_not_be_is_not_opened(reason, fields):
    decision = run(view(), open_account(ALICE, **fields))
    assert (decision.rows[0].type, decision.rows[0].reason) == ("account.rejected", reason)
    assert decision.opened == []


def test_an_external_account_has_no_limits():
    bank = account_on(HERE, PARTITIONS, "external")
    assert reasons(run(view(), open_account(bank, min_balance_minor=-5))) == ["limits_invalid"]


def test_an_account_is_opened_once():
    decision = run(view(standing(ALICE)), open_account(ALICE, identity="a" * 26))
    assert reasons(decision) == ["account_exists"]


def test_log_time_never_goes_back():
    at = view(standing(ALICE, 9), standing(BOB), log_time_us=5_000_000)
    records = [transfer("a", (ALICE, BOB, 1)), transfer("b", (ALICE, BOB, 1))]
    decision = decide(at, [command(records[0], 0, 9_000), command(records[1], 1, 7_000)])
    assert [row.booked_at_us for row in decision.rows] == [9_000_000, 9_000_000]


def test_effective_time_is_the_clients_or_the_booking():
    at = view(standing(ALICE, 9), standing(BOB))
    decision = run(
        at,
        transfer("a", (ALICE, BOB, 1)),
        transfer("b", (ALICE, BOB, 1), effective_at_us=77),
    )
    assert [row.effective_at_us for row in decision.rows] == [1_000_000, 77]


def test_the_view_is_left_as_it_was():
    alice, bob = standing(ALICE, 100), standing(BOB)
    before = [replace(alice), replace(bob)]
    run(view(alice, bob), transfer("a", (ALICE, BOB, 5)), transfer("b", (ALICE, BOB, 500)))
    assert [alice, bob] == before


def test_balances_are_bounded():
    at = view(standing(BANK, -(10**18)), standing(ALICE, 10**18))
    assert reasons(run(at, transfer("k", (BANK, ALICE, 1)))) == ["balance_limit_exceeded"]
