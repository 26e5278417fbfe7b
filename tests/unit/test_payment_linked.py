"""Movements that several homes must agree on, as the payments task drives them, in memory."""

import pytest
from test_payment_operations import Shop
from test_payment_task import NOW_US, PARTITION, PAYER, World, request

from schemas import ids
from streams.payments.answers import EXPIRY_AGAIN_US
from streams.payments.linked import DEADLINE_US

NAMES = [ids.account_id("demo", f"payer-{n}", "customer") for n in range(40)]
AWAY, FAR = [
    next(a for a in NAMES if ids.partition_of(ids.slot_of(a), 4) == (PARTITION + n) % 4)
    for n in (1, 2)
]
LEGS = [
    {"source": source, "destination": PAYER, "amount_minor": 5, "currency": "EUR"}
    for source in (AWAY, FAR)
]


class Movement(World):
    """A transfer, or a payment, of which the ledger has said which homes must agree."""

    def __init__(self, transfer=True, reply=None, parts=(PAYER, AWAY, FAR), dry_run=False):
        super().__init__()
        fields = {"reply": reply, "dry_run": dry_run}
        if transfer:
            made = ids.transfer_id("demo", "t", PAYER)
            fields |= {
                "type": "transfer.create", "resource_id": made, "legs": LEGS,
                "identity": ids.identity_of(made), "amount_minor": None, "currency": None,
                "source_account": None, "destination_account": None, "capture": None,
            }  # fmt: skip
        self.asked = self.request(**fields)
        self.parts = list(parts)
        self.position += 1
        self.answer("transfer.prepared", self.sent()[-1], parts=self.parts)

    def sent(self, kind=None):
        found = self.out("ledger.commands")
        return found if kind is None else [c for c in found if c["type"] == f"transfer.{kind}"]

    def answer(self, kind, command, at_us=NOW_US, **fields):
        """Answer a command: the saga's own home directly, others by way of their partition."""
        number = self.parts.index(command["home_account"])
        entries = fields.pop("entries", [])
        if number == 0:
            given = {"repeated": False, "entries": entries, "leg_indexes": []} | fields
            self.ledger(kind, command, at_us, **given)
            return
        leg = number - 1
        if kind == "transfer.committed":
            entries = [side(AWAY, -5, number), side(PAYER, 5, number)]
        record = request("f") | {
            "type": "saga.answered", "resource_id": command["saga_id"],
            "identity": command["identity"], "home_account": command["saga_id"],
            "slot": ids.slot_of(command["saga_id"]), "amount_minor": None, "answer": kind,
            "answer_step": command["step"], "answer_reason": fields.get("reason"),
            "answer_detail": fields.get("detail"), "answer_failed_leg": fields.get("failed_leg"),
            "answer_booked_at_us": at_us, "answer_entries": entries,
            "answer_leg_indexes": [leg] if entries else [],
        }  # fmt: skip
        self.feed("payments.requests", record, at_us)

    def all_prepare(self):
        for command in self.sent("prepare"):
            self.answer("transfer.prepared", command)


def side(account, amount, share):
    return {
        "account_id": account, "share": share, "version": 1, "amount_minor": amount,
        "currency": "EUR", "posted_minor": amount, "held_minor": 0,
    }  # fmt: skip


def test_every_other_home_is_asked_with_all_legs_and_its_own_command():
    movement = Movement()
    asked = movement.sent("prepare")
    assert [c["home_account"] for c in asked] == [AWAY, FAR]
    assert [c["slot"] for c in asked] == [ids.slot_of(AWAY), ids.slot_of(FAR)]
    assert [c["command_id"].split("/")[1:] for c in asked] == [
        ["prepare-1", "1"],
        ["prepare-2", "1"],
    ]
    assert all(c["legs"] == LEGS for c in asked)
    assert {c["identity"] for c in asked} == {movement.asked["identity"]}


def test_only_when_all_have_prepared_all_are_told_to_commit():
    movement = Movement()
    first, second = movement.sent("prepare")
    movement.answer("transfer.prepared", second)
    assert movement.sent("commit") == []
    movement.answer("transfer.prepared", first)
    assert [c["home_account"] for c in movement.sent("commit")] == [PAYER, AWAY, FAR]


def test_a_transfer_is_posted_once_all_have_committed_and_shows_all_entries_in_leg_order():
    movement = Movement(reply=1)
    movement.all_prepare()
    home, away, far = movement.sent("commit")
    movement.answer("transfer.committed", far)
    movement.answer("transfer.committed", home)
    assert movement.out("gateway.replies") == []
    movement.answer("transfer.committed", away)
    (reply,) = movement.out("gateway.replies")
    assert reply["status"] == "posted"
    assert [e["share"] for e in reply["entries"]] == [1, 1, 2, 2]
    assert {s["share"] for s in reply["shares"]} == {1, 2}
    (event,) = movement.out("payments.events")
    assert (event["type"], event["status"]) == ("transfer.posted", "posted")
    assert (event["ledger_partition"], event["ledger_position"]) == (PARTITION, 3)


def test_when_one_refuses_all_others_abort_and_its_reason_is_told():
    movement = Movement(reply=1)
    away, far = movement.sent("prepare")
    why = {"reason": "insufficient_funds", "detail": "short", "failed_leg": 1}
    movement.answer("transfer.rejected", far, **why)
    aborts = movement.sent("abort")
    assert [c["home_account"] for c in aborts] == [PAYER, AWAY]
    assert {(c["reason"], c["failed_leg"]) for c in aborts} == {("insufficient_funds", 1)}
    movement.answer("transfer.prepared", away)  # too late
    assert movement.sent("commit") == []
    for command in aborts:
        given_back = [side(command["home_account"], 0, 7)]
        movement.answer("transfer.aborted", command, entries=given_back)
    (reply,) = movement.out("gateway.replies")
    released = [(s["account_id"], s["share"], s["version"]) for s in reply["shares"]]
    assert released == [(PAYER, 7, 1), (AWAY, 7, 1)], "what a read must have reached"
    assert reply["entries"] == []
    assert {key: reply[key] for key in ("status", *why)} == {"status": "rejected"} | why
    assert movement.events() == ["transfer.rejected"]


def test_homes_that_do_not_answer_in_time_are_told_to_abort():
    movement = Movement()
    movement.answer("transfer.prepared", movement.sent("prepare")[0])
    movement.task.fire(NOW_US + DEADLINE_US - 1)
    assert movement.sent("abort") == []
    movement.task.fire(NOW_US + DEADLINE_US)
    assert [c["home_account"] for c in movement.sent("abort")] == [PAYER, AWAY, FAR]
    for command in movement.sent("abort"):
        movement.answer("transfer.aborted", command, NOW_US + DEADLINE_US)
    assert movement.out("payments.events")[-1]["reason"] == "homes_unavailable"


def test_once_all_have_agreed_no_deadline_stops_the_commit():
    movement = Movement()
    movement.all_prepare()
    movement.task.fire(NOW_US + 2 * DEADLINE_US)
    assert movement.sent("abort") == []


def test_an_answer_that_comes_twice_counts_once():
    movement = Movement()
    first, _ = movement.sent("prepare")
    movement.answer("transfer.prepared", first)
    movement.answer("transfer.prepared", first)
    assert movement.sent("commit") == []


@pytest.mark.parametrize("refused", [False, True])
def test_what_is_only_tried_ends_with_the_answers_and_asks_nobody_to_end_anything(refused):
    movement = Movement(reply=1, dry_run=True)
    away, far = movement.sent("prepare")
    assert all(c["dry_run"] for c in (away, far))
    movement.answer("transfer.prepared", far)
    assert movement.out("gateway.replies") == []
    movement.task.fire(NOW_US + 2 * DEADLINE_US)
    why = {"reason": "insufficient_funds", "failed_leg": 0} if refused else {}
    movement.answer("transfer.rejected" if refused else "transfer.prepared", away, **why)
    (reply,) = movement.out("gateway.replies")
    assert reply["status"] == ("rejected" if refused else "posted")
    assert (reply["reason"], reply["failed_leg"]) == (why.get("reason"), why.get("failed_leg"))
    assert movement.sent("commit") == movement.sent("abort") == []
    assert movement.events() == []


def test_a_payment_to_a_payee_that_must_agree_is_settled_and_counted_as_captured():
    movement = Movement(transfer=False, parts=(PAYER, AWAY))
    (asked,) = movement.sent("prepare")
    assert asked["legs"][0]["source"] == PAYER
    movement.all_prepare()
    home, away = movement.sent("commit")
    movement.answer("transfer.committed", away)
    movement.answer("transfer.committed", home)
    settled = movement.out("payments.events")[-1]
    assert (settled["status"], settled["captured_minor"]) == ("settled", 500)


@pytest.mark.parametrize("status", ["preparing", "committing", "aborting"])
def test_a_request_that_comes_meanwhile_waits_for_the_end(status):
    movement = Movement(transfer=False, parts=(PAYER, AWAY))
    if status == "committing":
        movement.all_prepare()
    elif status == "aborting":
        movement.answer("transfer.rejected", movement.sent("prepare")[0], reason="account_frozen")
    movement.request(reply=2, request_id="again")
    assert movement.out("gateway.replies") == []
    kind = "abort" if status == "aborting" else "commit"
    if status == "preparing":
        movement.all_prepare()
    for command in movement.sent(kind):
        movement.answer(f"transfer.{'aborted' if kind == 'abort' else 'committed'}", command)
    (reply,) = movement.out("gateway.replies")
    assert reply["repeated"]


# -- what is done to a payment later ---------------------------------------------------------------


def test_an_expiry_that_came_too_early_for_the_ledger_is_asked_for_again():
    shop = Shop(expires_in_s=60)
    due_us = NOW_US + 60_000_000
    shop.task.fire(due_us)
    first = shop.commands()[-1]
    shop.ledger("hold.rejected", first, due_us, reason="hold_not_expired")
    shop.task.fire(due_us + EXPIRY_AGAIN_US)
    second = shop.commands()[-1]
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert second["command_id"].endswith("/expire/2")
    shop.ledger("hold.voided", second, due_us, amount_minor=500, remaining_minor=0)
    assert shop.last()["status"] == "expired"


@pytest.mark.parametrize("kind", ["void", "expire"])
@pytest.mark.parametrize(("refunded", "status"), [(200, "refunded"), (50, "partially_refunded")])
def test_what_was_paid_back_before_the_rest_was_given_back_is_seen_in_the_end(
    kind, refunded, status
):
    shop = Shop(expires_in_s=60)
    shop.operate("payment.capture", "c", 200)
    shop.ledger("hold.posted", shop.commands()[-1], amount_minor=200, remaining_minor=300)
    shop.operate("payment.refund", "r", refunded)
    left = 200 - refunded
    shop.ledger(
        "transfer.reversed", shop.commands()[-1], amount_minor=refunded, remaining_minor=left
    )
    assert shop.last()["status"] == "authorized"
    if kind == "void":
        shop.operate("payment.void", "v")
    else:
        shop.task.fire(NOW_US + 60_000_000)
    shop.ledger("hold.voided", shop.commands()[-1], amount_minor=300, remaining_minor=0)
    assert (shop.last()["type"], shop.last()["status"]) == ("payment.settled", status)


def test_a_capture_of_the_rest_after_a_refund_leaves_it_refunded_in_part():
    shop = Shop()
    for key, amount, left in (("one", 200, 300), ("two", 300, 0)):
        shop.operate("payment.capture", key, amount)
        shop.ledger("hold.posted", shop.commands()[-1], amount_minor=amount, remaining_minor=left)
        if left:
            shop.operate("payment.refund", "r", 200)
            shop.ledger(
                "transfer.reversed", shop.commands()[-1], amount_minor=200, remaining_minor=0
            )
    assert shop.last()["status"] == "partially_refunded"


def test_a_refund_decided_elsewhere_tells_the_shares_that_a_read_must_have_reached():
    movement = Movement(transfer=False, parts=(PAYER, AWAY))
    movement.all_prepare()
    for command in movement.sent("commit"):
        movement.answer("transfer.committed", command)
    payment = movement.asked["resource_id"]
    made = ids.operation_identity("demo", "r")
    movement.feed("payments.requests", request("r") | {
        "type": "payment.refund", "resource_id": payment, "target_id": payment, "identity": made,
        "amount_minor": 500, "reply_partition": 1,
    })  # fmt: skip
    command = movement.sent("reverse")[-1]
    entries = [side(AWAY, -500, 3), side(PAYER, 500, 3)]
    movement.feed("payments.requests", request("f") | {
        "type": "saga.answered", "resource_id": payment, "identity": made,
        "home_account": payment, "slot": ids.slot_of(payment), "amount_minor": 500,
        "answer": "transfer.reversed", "answer_step": command["step"],
        "answer_remaining_minor": 0, "answer_entries": entries, "answer_booked_at_us": NOW_US,
    })  # fmt: skip
    (reply,) = movement.out("gateway.replies")
    assert reply["status"] == "refunded"
    assert [(s["account_id"], s["share"]) for s in reply["shares"]] == [(AWAY, 3), (PAYER, 3)]
