"""Captures, voids, refunds, expiry and account flags as rules, run in memory."""

import pytest
from test_payment_task import BANK, LOOSE, NOW_US, PARTITION, PAYEE, PAYER, World, request

from schemas import ids, wire
from streams.engine.memory import MemoryTask
from streams.payments import task as payments

SECOND_US = 1_000_000


class Shop(World):
    """A world with one authorized payment of 500."""

    def __init__(self, expires_in_s=None):
        super().__init__()
        self.payment = self.request(capture="manual", expires_in_s=expires_in_s)
        self.payment_id = self.payment["resource_id"]
        self.ledger("hold.placed", self.commands()[-1], amount_minor=500, remaining_minor=500)

    def commands(self):
        return self.out("ledger.commands")

    def operate(self, kind, key="op", amount=None, reply=None, at_us=NOW_US, **fields):
        """Feed one operation on the payment."""
        record = operation(kind, key, self.payment_id, amount, reply) | fields
        self.feed("payments.requests", record, at_us)
        return record

    def statuses(self):
        return [(e["type"].partition(".")[2], e["status"]) for e in self.out("payments.events")]

    def last(self):
        return self.out("payments.events")[-1]


def operation(kind, key, target, amount=None, reply=None):
    identity = ids.identity_of(ids.payment_id("demo", key, PAYER))
    return request(key) | {
        "type": kind, "resource_id": target, "target_id": target, "identity": identity,
        "amount_minor": amount, "body_hash": f"{amount or 0:064d}", "reply_partition": reply,
        "home_account": PAYER, "slot": ids.slot_of(PAYER),
    }  # fmt: skip


def test_a_reversal_which_makes_a_transfer_of_its_own_is_answered_once_it_is_decided():
    world = World()
    made, original = (ids.transfer_id("demo", key, PAYER) for key in ("back", "t"))
    asked = operation("transfer.reverse", "back", original, 30, reply=1)
    asked |= {"resource_id": made, "identity": ids.identity_of(made)}
    world.feed("payments.requests", asked, NOW_US)
    command = world.out("ledger.commands")[-1]
    assert (command["type"], command["saga_id"]) == ("transfer.reverse", made)
    assert command["identity"] == ids.identity_of(command["saga_id"])
    world.ledger("transfer.reversed", command, amount_minor=30, remaining_minor=0)
    (reply,) = world.out("gateway.replies")
    assert (reply["resource_id"], reply["reason"]) == (made, None)


def test_a_payment_to_be_captured_is_held_first():
    shop = Shop(expires_in_s=60)
    (command,) = shop.commands()
    assert command["type"] == "hold.place"
    assert command["hold_id"] == shop.payment_id
    assert command["expires_at_us"] == NOW_US + 60 * SECOND_US
    assert shop.statuses() == [("accepted", "accepted"), ("authorized", "authorized")]
    assert shop.last()["authorized_minor"] == 500


def test_each_capture_settles_its_part_and_the_last_one_the_payment():
    shop = Shop()
    for key, amount, left in (("one", 200, 300), ("two", 300, 0)):
        shop.operate("payment.capture", key, amount)
        command = shop.commands()[-1]
        assert (command["type"], command["amount_minor"]) == ("hold.post", amount)
        shop.ledger("hold.posted", command, amount_minor=amount, remaining_minor=left)
    assert shop.statuses()[2:] == [("captured", "authorized"), ("settled", "settled")]
    assert shop.last()["captured_minor"] == 500


def test_captures_are_commands_with_keys_of_their_own():
    shop = Shop()
    first = shop.operate("payment.capture", "one", 200)
    shop.operate("payment.capture", "one", 200)
    shop.operate("payment.capture", "two", 200)
    captures = [c for c in shop.commands() if c["type"] == "hold.post"]
    assert len(captures) == 2
    assert captures[0]["identity"] == first["identity"]
    assert captures[0]["command_id"] != captures[1]["command_id"]


def test_a_capture_that_the_ledger_refuses_leaves_the_payment_as_it_is():
    shop = Shop()
    shop.operate("payment.capture", amount=501, reply=1)
    shop.ledger("hold.rejected", shop.commands()[-1], reason="amount_exceeds_hold")
    assert shop.statuses()[-1] == ("capture_refused", "authorized")
    assert shop.last()["reason"] == "amount_exceeds_hold"
    (reply,) = shop.out("gateway.replies")
    assert (reply["status"], reply["reason"]) == ("authorized", "amount_exceeds_hold")
    assert reply["operation_id"]


def test_a_waiting_operation_and_its_repeat_are_answered_with_how_the_payment_stands():
    shop = Shop()
    shop.operate("payment.capture", reply=1, request_id="a")
    shop.operate("payment.capture", reply=2, request_id="b")
    shop.ledger("hold.posted", shop.commands()[-1], amount_minor=500, remaining_minor=0)
    shop.operate("payment.capture", reply=3, request_id="c")
    replies = shop.out("gateway.replies")
    assert {r["request_id"]: (r["status"], r["repeated"]) for r in replies} == {
        "a": ("settled", False),
        "b": ("settled", True),
        "c": ("settled", True),
    }


def test_an_operations_key_with_another_body_is_a_conflict_and_executes_nothing():
    shop = Shop()
    shop.operate("payment.capture", amount=1)
    shop.operate("payment.capture", amount=2, reply=0)
    assert len([c for c in shop.commands() if c["type"] == "hold.post"]) == 1
    (reply,) = shop.out("gateway.replies")
    assert reply["conflict"]


@pytest.mark.parametrize(("captured", "status"), [(0, "voided"), (200, "settled")])
def test_a_void_gives_back_what_is_left(captured, status):
    shop = Shop()
    if captured:
        shop.operate("payment.capture", "c", captured)
        shop.ledger("hold.posted", shop.commands()[-1], amount_minor=200, remaining_minor=300)
    shop.operate("payment.void", "v")
    command = shop.commands()[-1]
    assert (command["type"], command["reason"]) == ("hold.void", "voided")
    shop.ledger("hold.voided", command, amount_minor=500 - captured, remaining_minor=0)
    assert shop.last()["status"] == status


@pytest.mark.parametrize(("captured", "status"), [(0, "expired"), (200, "settled")])
def test_an_authorization_expires_by_an_event_in_the_log(captured, status):
    shop = Shop(expires_in_s=60)
    if captured:
        shop.operate("payment.capture", "c", captured)
        shop.ledger("hold.posted", shop.commands()[-1], amount_minor=200, remaining_minor=300)
    assert shop.task.fire(NOW_US + 59 * SECOND_US) == 0
    assert shop.task.fire(NOW_US + 61 * SECOND_US) == 1
    command = shop.commands()[-1]
    assert (command["type"], command["reason"]) == ("hold.void", "expired")
    shop.ledger("hold.voided", command, amount_minor=500 - captured, remaining_minor=0)
    assert shop.last()["status"] == status


def test_a_capture_that_came_first_wins_over_the_expiry():
    shop = Shop(expires_in_s=60)
    shop.operate("payment.capture", "c")
    capture = shop.commands()[-1]
    shop.task.fire(NOW_US + 61 * SECOND_US)
    expiry = shop.commands()[-1]
    shop.ledger("hold.posted", capture, amount_minor=500, remaining_minor=0)
    shop.ledger("hold.rejected", expiry, reason="hold_closed")
    assert shop.last()["status"] == "settled"
    assert shop.last()["type"] == "payment.settled"


def test_what_is_settled_or_voided_expires_no_more():
    shop = Shop(expires_in_s=60)
    shop.operate("payment.void", "v")
    shop.ledger("hold.voided", shop.commands()[-1], amount_minor=500, remaining_minor=0)
    before = len(shop.commands())
    shop.task.fire(NOW_US + 3_600 * SECOND_US)
    assert len(shop.commands()) == before


def test_a_refund_is_decided_at_the_payees_home_and_its_answer_comes_back():
    world = World()
    payment = world.request()
    world.ledger("transfer.posted", world.out("ledger.commands")[0])
    record = operation("payment.refund", "r", payment["resource_id"], 200, reply=3)
    world.feed("payments.requests", record)
    command = world.out("ledger.commands")[-1]
    assert (command["type"], command["home_account"]) == ("transfer.reverse", PAYEE)
    assert command["original_id"] == payment["resource_id"]
    payee_partition = ids.partition_of(ids.slot_of(PAYEE), 4)
    assert world.task.outputs["ledger.commands"][-1][0] == payee_partition
    answered = _answer_elsewhere(world, payee_partition, command, 200, 300)
    world.task.feed([("payments.requests", answered[1], answered[2], NOW_US)])
    refunded = world.out("payments.events")[-1]
    assert (refunded["type"], refunded["status"]) == ("payment.refunded", "partially_refunded")
    assert refunded["refunded_minor"] == 200
    assert world.out("gateway.replies")[-1]["status"] == "partially_refunded"


def test_a_refund_that_was_decided_before_the_last_capture_is_a_part():
    shop = Shop()
    shop.operate("payment.capture", "c1", 200)
    shop.ledger("hold.posted", shop.commands()[-1], amount_minor=200, remaining_minor=300)
    shop.operate("payment.capture", "c2")
    last_capture = shop.commands()[-1]
    for key, amount, left in (("r1", 200, 0), ("r2", 300, 0)):
        shop.operate("payment.refund", key, amount)
        refund = shop.commands()[-1]
        if key == "r1":  # decided when 200 were captured, heard of after the rest was
            shop.ledger("hold.posted", last_capture, amount_minor=300, remaining_minor=0)
        answered = _answer_elsewhere(
            shop, ids.partition_of(ids.slot_of(PAYEE), 4), refund, amount, left
        )
        shop.task.feed([("payments.requests", answered[1], answered[2], NOW_US)])
    assert shop.statuses()[-2:] == [
        ("refunded", "partially_refunded"),
        ("refunded", "refunded"),
    ]


def _answer_elsewhere(world, partition, command, amount, left):
    """Have the payee's partition see the ledger's answer; return what it forwards."""
    elsewhere = World()
    elsewhere.task = MemoryTask(payments.task(LOOSE), partition)
    elsewhere.ledger("transfer.reversed", command, amount_minor=amount, remaining_minor=left)
    (forwarded,) = elsewhere.task.outputs["payments.requests"]
    assert forwarded[0] == PARTITION
    assert elsewhere.out("payments.events") == []
    assert world.task.outputs["payments.requests"] == []
    return forwarded


def test_an_operation_on_a_payment_that_nobody_knows_is_refused():
    world = World()
    unknown = ids.payment_id("demo", "never", PAYER)
    world.feed("payments.requests", operation("payment.void", "v", unknown, reply=0))
    (reply,) = world.out("gateway.replies")
    assert reply["reason"] == "payment_not_found"
    assert world.out("ledger.commands") == []


def test_an_accounts_flags_are_the_ledgers_and_its_status_follows():
    world = World()
    opening = request("payer") | {
        "type": "account.open", "resource_id": PAYER, "identity": ids.identity_of(PAYER),
        "amount_minor": None, "account_kind": "customer", "source_account": None,
    }  # fmt: skip
    world.feed("payments.requests", opening)
    world.ledger("account.opened", world.out("ledger.commands")[-1])
    record = operation("account.freeze", "f", PAYER, reply=0) | {"debits": True, "credits": None}
    world.feed("payments.requests", record)
    command = world.out("ledger.commands")[-1]
    assert (command["type"], command["account_id"], command["debits"]) == (
        "account.freeze",
        PAYER,
        True,
    )
    world.ledger("account.frozen", command, debits_frozen=True, credits_frozen=False)
    assert world.out("payments.events")[-1]["status"] == "frozen"
    (reply,) = world.out("gateway.replies")
    assert reply["debits_frozen"]


def test_a_transfer_answers_with_its_entries_or_the_leg_that_failed():
    world = World()
    transfer = ids.transfer_id("demo", "t", PAYER)
    legs = [
        {"source": PAYER, "destination": PAYEE, "amount_minor": 5, "currency": "EUR"},
        {"source": PAYER, "destination": BANK, "amount_minor": 6, "currency": "EUR"},
    ]
    record = request("t", reply=1) | {
        "type": "transfer.create", "resource_id": transfer, "legs": legs, "amount_minor": None,
        "identity": ids.identity_of(transfer), "home_account": PAYER, "source_account": None,
    }  # fmt: skip
    world.feed("payments.requests", record)
    command = world.out("ledger.commands")[-1]
    assert command["legs"] == legs
    world.ledger("transfer.rejected", command, reason="insufficient_funds", failed_leg=1)
    (reply,) = world.out("gateway.replies")
    assert (reply["status"], reply["failed_leg"]) == ("rejected", 1)
    assert world.out("payments.events")[-1]["type"] == "transfer.rejected"


def test_the_codec_carries_every_command_that_is_built():
    shop = Shop()
    shop.operate("payment.capture", "c", 1)
    shop.operate("payment.void", "v")
    for out in shop.task.outputs["ledger.commands"]:
        assert wire.decode("ledger.commands", out[2])["saga_id"] == shop.payment_id
