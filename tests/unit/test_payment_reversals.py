"""Reversals that several homes must agree on, as the payments task drives them, in memory."""

import pytest
from test_payment_linked import AWAY, FAR, side
from test_payment_operations import operation
from test_payment_task import NOW_US, PARTITION, PAYER, World, request

from schemas import ids
from streams.payments.linked import DEADLINE_US

LEGS = [
    {"source": FAR, "destination": PAYER, "amount_minor": 30, "currency": "EUR"},
    {"source": PAYER, "destination": AWAY, "amount_minor": 50, "currency": "EUR"},
]


class Reversal(World):
    """A transfer to be paid back, of which the first home has said who must agree, and to what."""

    def __init__(self, parts=(PAYER, FAR), reply=1, **fields):
        super().__init__()
        self.original, self.made = (ids.transfer_id("demo", k, PAYER) for k in ("t", "back"))
        self.asked = operation("transfer.reverse", "back", self.original, reply=reply) | {
            "resource_id": self.made, "identity": ids.identity_of(self.made),
            "reference": "r7", "metadata": {"why": "test"},
        } | fields  # fmt: skip
        self.feed("payments.requests", self.asked)
        self.parts = list(parts)
        self.ledger(
            "transfer.prepared", self.sent()[-1], parts=self.parts, legs=LEGS, original_legs=[1, 0],
            leg_indexes=[1], amount_minor=80, remaining_minor=5, repeated=False,
        )  # fmt: skip

    def sent(self, kind=None):
        found = self.out("ledger.commands")
        return found if kind is None else [c for c in found if c["type"] == f"transfer.{kind}"]

    def answer(self, kind, command, at_us=NOW_US, leg=None, **fields):
        """Answer what a home was asked: the task's own directly, others by way of theirs."""
        entries = fields.pop("entries", [])
        told = {"entries": entries, "leg_indexes": [] if leg is None else [leg], "repeated": False}
        if ids.partition_of(command["slot"], 4) == PARTITION:
            self.ledger(kind, command, at_us, **told, **fields)
            return
        self.feed("payments.requests", forwarded(kind, command, at_us, **told, **fields), at_us)

    def reply(self):
        (reply,) = self.out("gateway.replies")
        return reply


def forwarded(kind, command, at_us=NOW_US, **told):
    names = ("reason", "detail", "failed_leg", "remaining_minor", "entries", "leg_indexes")
    names += ("parts", "legs", "original_legs")
    return request("f") | {
        "type": "saga.answered", "resource_id": command["saga_id"],
        "identity": command["identity"], "home_account": command["saga_id"],
        "slot": ids.slot_of(command["saga_id"]), "amount_minor": told.get("amount_minor"),
        "answer": kind, "answer_step": command["step"], "answer_booked_at_us": at_us,
        **{f"answer_{name}": told[name] for name in names if name in told},
    }  # fmt: skip


def test_the_other_homes_are_asked_for_the_legs_that_the_first_one_has_named():
    (asked,) = Reversal().sent("prepare")
    assert (asked["home_account"], asked["slot"]) == (FAR, ids.slot_of(FAR))
    assert (asked["legs"], asked["original_legs"]) == (LEGS, [1, 0])
    assert (asked["reference"], asked["metadata"]) == ("r7", {"why": "test"})
    assert asked["step"] == f"prepare-1-{asked['identity']}"


def test_all_commit_once_all_agree_and_the_reversal_is_answered_with_all_that_moved():
    reversal = Reversal()
    (far,) = reversal.sent("prepare")
    reversal.answer("transfer.prepared", far, leg=0)
    home, far = reversal.sent("commit")
    assert {c["original_id"] for c in (home, far)} == {reversal.original}
    back = [side(FAR, -30, 3), side(PAYER, 30, 3)], [side(PAYER, -50, 1), side(AWAY, 50, 1)]
    reversal.answer("transfer.committed", home, leg=1, entries=back[1])
    assert reversal.out("gateway.replies") == []
    reversal.answer("transfer.committed", far, leg=0, entries=back[0])
    reply = reversal.reply()
    assert (reply["resource_id"], reply["reason"]) == (reversal.made, None)
    assert reply["entries"] == [*back[0], *back[1]]
    reversal.feed("payments.requests", reversal.asked)
    assert reversal.out("gateway.replies")[-1]["repeated"]


def test_when_one_refuses_all_others_abort_and_its_reason_is_told():
    reversal = Reversal(parts=(PAYER, FAR, AWAY))
    far, away = reversal.sent("prepare")
    why = {"reason": "insufficient_funds", "detail": "short", "failed_leg": 1}
    reversal.answer("transfer.rejected", far, **why)
    aborts = reversal.sent("abort")
    assert [c["home_account"] for c in aborts] == [PAYER, AWAY]
    reversal.answer("transfer.prepared", away)  # too late
    for command in aborts:
        reversal.answer("transfer.aborted", command, entries=[side(command["home_account"], 0, 7)])
    reply = reversal.reply()
    assert {key: reply[key] for key in why} == why
    assert [s["account_id"] for s in reply["shares"]] == [PAYER, AWAY]
    assert reversal.sent("commit") == []


def test_homes_that_do_not_answer_in_time_are_told_to_abort():
    reversal = Reversal()
    reversal.task.fire(NOW_US + DEADLINE_US - 1)
    assert reversal.sent("abort") == []
    reversal.task.fire(NOW_US + DEADLINE_US)
    for command in reversal.sent("abort"):
        reversal.answer("transfer.aborted", command, NOW_US + DEADLINE_US)
    assert reversal.reply()["reason"] == "homes_unavailable"


def test_once_all_have_agreed_no_deadline_stops_the_commit():
    reversal = Reversal()
    reversal.answer("transfer.prepared", reversal.sent("prepare")[0])
    reversal.task.fire(NOW_US + 2 * DEADLINE_US)
    assert reversal.sent("abort") == []


@pytest.mark.parametrize("ends", ["commit", "abort"])
def test_a_repeat_that_comes_meanwhile_waits_for_the_end(ends):
    reversal = Reversal(reply=None)
    reversal.feed("payments.requests", reversal.asked | {"reply_partition": 2})
    kind = "transfer.prepared" if ends == "commit" else "transfer.rejected"
    why = {} if ends == "commit" else {"reason": "account_frozen"}
    reversal.answer(kind, reversal.sent("prepare")[0], **why)
    assert reversal.out("gateway.replies") == []
    for command in reversal.sent(ends):
        done = "committed" if ends == "commit" else "aborted"
        reversal.answer(f"transfer.{done}", command)
    assert reversal.reply()["reason"] == why.get("reason")


def test_a_refund_that_two_homes_must_agree_on_moves_the_payment_once():
    world = World()
    payment = world.request(destination=AWAY)
    world.ledger("transfer.posted", world.out("ledger.commands")[-1])
    world.feed("payments.requests", operation("payment.refund", "r", payment["resource_id"], 30, 1))
    asked = world.out("ledger.commands")[-1]
    assert (asked["type"], asked["home_account"]) == ("transfer.reverse", AWAY)
    leg = {"source": AWAY, "destination": PAYER, "amount_minor": 30, "currency": "EUR"}
    told = {"parts": [AWAY, PAYER], "legs": [leg], "original_legs": [0], "leg_indexes": [0]}
    told |= {"amount_minor": 30, "remaining_minor": 470}
    world.feed("payments.requests", forwarded("transfer.prepared", asked, **told))
    prepare = world.out("ledger.commands")[-1]
    assert (prepare["type"], prepare["home_account"]) == ("transfer.prepare", PAYER)
    world.ledger("transfer.prepared", prepare, repeated=False, leg_indexes=[])
    away, home = world.out("ledger.commands")[-2:]
    back = [side(AWAY, -30, 2), side(PAYER, 30, 2)]
    for _ in range(2):  # an answer that comes twice counts once
        world.feed(
            "payments.requests",
            forwarded("transfer.committed", away, entries=back, leg_indexes=[0]),
        )
    world.ledger("transfer.committed", home, repeated=False, leg_indexes=[])
    (reply,) = world.out("gateway.replies")
    assert (reply["status"], reply["refunded_minor"]) == ("partially_refunded", 30)
    assert world.events()[-1:] == ["payment.refunded"]
    assert world.events().count("payment.refunded") == 1
