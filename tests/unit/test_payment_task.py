"""The payments and webhooks tasks as rules, run in memory on the engine's own batches."""

import hashlib
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import ids, wire
from schemas.errors import Corrupt
from streams.engine.memory import MemoryTask
from streams.payments import task as payments
from streams.payments.state import CONFLICTS_MAX, WAITERS_MAX
from streams.payments.velocity import Rule, RuleSet
from streams.webhooks.task import task as webhooks

NOW_US = 1_800_000_000_000_000
LOOSE = RuleSet(1, (Rule("day", window_s=86_400, sum_minor_max=10**15),))
BANK = ids.account_id("demo", "bank", "external")
PAYER = ids.account_id("demo", "payer", "customer")
PAYEE = ids.account_id("demo", "payee", "customer")
PARTITION = ids.partition_of(ids.slot_of(PAYER), 4)


class World:
    """The task of the payer's partition, and a ledger that answers as it is told."""

    outputs: ClassVar = ("payments.events", "ledger.commands", "gateway.replies")

    def __init__(self, rules=LOOSE):
        self.task = MemoryTask(payments.task(rules), PARTITION)
        self.position = 0

    def request(self, at_us=NOW_US, **fields):
        """Feed one payment request."""
        record = request(**fields)
        self.feed("payments.requests", record, at_us)
        return record

    def feed(self, topic, record, at_us=NOW_US):
        key = record["home_account"].encode()
        return self.task.feed([(topic, key, wire.encode(topic, record), at_us)])

    def ledger(self, kind, command, at_us=NOW_US, position=None, **fields):
        """Feed the ledger's answer to a command."""
        self.position += 1
        event = ledger_event(kind, command, position or self.position, at_us, **fields)
        return self.feed("ledger.events", event, at_us)

    def out(self, topic):
        """Return what was written to `topic`, decoded."""
        return [wire.decode(topic, out[2]) for out in self.task.outputs[topic]]

    def events(self):
        return [event["type"] for event in self.out("payments.events")]


def request(key="k1", amount=500, source=PAYER, destination=PAYEE, reply=None, **fields):
    home = ids.home_account(source, destination)
    payment = ids.payment_id("demo", key, home)
    return {
        "type": "payment.create", "request_id": f"req-{key}", "resource_id": payment,
        "tenant": "demo", "idempotency_key": key, "identity": ids.identity_of(payment),
        "body_hash": hashlib.sha256(f"{amount}{source}{destination}".encode()).hexdigest(),
        "slot": ids.slot_of(home), "home_account": home, "received_at_us": NOW_US - 5,
        "amount_minor": amount, "currency": "EUR", "source_account": source,
        "destination_account": destination, "capture": "automatic", "reply_partition": reply,
    } | fields  # fmt: skip


def opening(account, key, reply=None):
    return request(key, reply=reply) | {
        "type": "account.open", "resource_id": account, "identity": ids.identity_of(account),
        "home_account": account, "slot": ids.slot_of(account), "amount_minor": None,
        "account_kind": ids.kind_of(account), "source_account": None, "destination_account": None,
    }  # fmt: skip


def ledger_event(kind, command, position, at_us, **fields):
    return {
        "type": kind, "event_id": f"ledger.commands-0-{position}-0",
        **{k: command[k] for k in ("command_id", "saga_id", "tenant", "identity", "body_hash")},
        **{k: command[k] for k in ("slot", "home_account", "transfer_id", "account_kind")},
        "ledger_partition": PARTITION, "position": position, "command_offset": position,
        "booked_at_us": at_us, "effective_at_us": at_us, "chain_hash": "00", "reason": None,
        "detail": None, "entries": [],
    } | fields  # fmt: skip


def test_a_payment_is_accepted_sent_to_the_ledger_and_settled_by_its_answer():
    world = World()
    asked = world.request()
    (command,) = world.out("ledger.commands")
    assert command["type"] == "transfer.post"
    assert command["command_id"] == f"{asked['resource_id']}/post/1"
    assert command["legs"] == [
        {"source": PAYER, "destination": PAYEE, "amount_minor": 500, "currency": "EUR"}
    ]
    world.ledger("transfer.posted", command, NOW_US + 7)
    accepted, settled = world.out("payments.events")
    assert [accepted["status"], settled["status"]] == ["accepted", "settled"]
    assert [accepted["version"], settled["version"]] == [1, 2]
    assert settled["occurred_at_us"] == NOW_US
    assert settled["ledger_position"] == 1
    assert world.out("gateway.replies") == []


def test_a_rejection_carries_the_ledgers_reason():
    world = World()
    world.request()
    (command,) = world.out("ledger.commands")
    world.ledger("transfer.rejected", command, reason="insufficient_funds", detail="short by 5")
    rejected = world.out("payments.events")[-1]
    assert (rejected["status"], rejected["reason"]) == ("rejected", "insufficient_funds")
    assert rejected["detail"] == "short by 5"


@pytest.mark.parametrize("settled", [False, True])
def test_a_repeat_changes_nothing(settled):
    world = World()
    world.request()
    if settled:
        world.ledger("transfer.posted", world.out("ledger.commands")[0])
    before = dict(world.task.outputs), dict(world.task.state)
    world.request()
    assert before[0] == dict(world.task.outputs)
    assert {k: v for k, v in world.task.state.items() if k in before[1]} == before[1]


def test_a_key_with_another_body_is_a_conflict_on_the_timeline_and_moves_nothing():
    world = World()
    first = world.request()
    world.request(amount=501, request_id="req-other")
    assert len(world.out("ledger.commands")) == 1
    conflict = world.out("payments.events")[-1]
    assert conflict["type"] == "payment.conflicted"
    assert conflict["resource_id"] == first["resource_id"]
    assert conflict["status"] == "accepted"
    assert conflict["reason"] == "idempotency_key_reused"
    assert conflict["request_id"] == "req-other"
    world.ledger("transfer.posted", world.out("ledger.commands")[0])
    settled = world.out("payments.events")[-1]
    assert (settled["status"], settled["reason"], settled["version"]) == ("settled", None, 3)


def test_a_timeline_shows_a_bounded_number_of_conflicts():
    world = World()
    world.request()
    for amount in range(600, 600 + CONFLICTS_MAX + 5):
        world.request(amount=amount)
    assert world.events().count("payment.conflicted") == CONFLICTS_MAX


def test_a_request_that_waits_gets_one_reply_on_its_gateways_partition():
    world = World()
    asked = world.request(reply=6)
    (command,) = world.out("ledger.commands")
    assert world.out("gateway.replies") == []
    entry = {
        "account_id": PAYER, "share": PARTITION, "version": 9, "amount_minor": -500,
        "currency": "EUR", "posted_minor": 0, "held_minor": 0,
    }  # fmt: skip
    world.ledger("transfer.posted", command, entries=[entry])
    (reply,) = world.out("gateway.replies")
    assert world.task.outputs["gateway.replies"][0][0] == 6 % 4
    assert reply["request_id"] == asked["request_id"]
    assert (reply["status"], reply["version"]) == ("settled", 2)
    assert [step["event"] for step in reply["timeline"]] == ["accepted", "settled"]
    assert reply["shares"] == [{"account_id": PAYER, "share": PARTITION, "version": 9}]


def test_a_repeat_that_waits_is_answered_when_the_first_is_or_at_once_if_it_is_over():
    world = World()
    world.request()
    world.request(reply=1, request_id="second")
    world.ledger("transfer.posted", world.out("ledger.commands")[0])
    world.request(reply=1, request_id="third")
    replies = world.out("gateway.replies")
    assert [(r["request_id"], r["repeated"], r["status"]) for r in replies] == [
        ("second", True, "settled"),
        ("third", True, "settled"),
    ]


def test_a_conflict_that_waits_is_told_at_once():
    world = World()
    world.request()
    world.request(amount=2, reply=0, request_id="other")
    (reply,) = world.out("gateway.replies")
    assert reply["conflict"]
    assert reply["reason"] == "idempotency_key_reused"


def test_only_a_bounded_number_of_requests_waits_on_one_payment():
    world = World()
    for n in range(WAITERS_MAX + 3):
        world.request(reply=0, request_id=f"r{n}")
    world.ledger("transfer.posted", world.out("ledger.commands")[0])
    assert len(world.out("gateway.replies")) == WAITERS_MAX


def test_what_risk_refuses_claims_its_identity_in_the_ledger_and_is_rejected_by_its_answer():
    world = World(RuleSet(1, (Rule("hour", window_s=3_600, sum_minor_max=100),)))
    world.request(amount=101)
    (command,) = world.out("ledger.commands")
    assert (command["type"], command["reason"]) == ("transfer.reject", "velocity_limit")
    world.ledger("transfer.rejected", command, reason="velocity_limit")
    assert world.events() == ["payment.accepted", "payment.rejected"]


def test_velocity_counts_what_passed_and_not_what_it_refused():
    world = World(RuleSet(1, (Rule("minute", window_s=60, count_max=2),)))
    for n in range(4):
        world.request(key=f"k{n}", at_us=NOW_US + n)
    world.request(key="later", at_us=NOW_US + 61_000_000)
    kinds = [command["type"] for command in world.out("ledger.commands")]
    assert kinds == ["transfer.post"] * 2 + ["transfer.reject"] * 2 + ["transfer.post"]


def test_money_that_comes_in_is_no_velocity_of_the_payee():
    world = World(RuleSet(1, (Rule("none", window_s=60, count_max=0),)))
    world.request(source=BANK, destination=PAYER)
    assert world.out("ledger.commands")[0]["type"] == "transfer.post"


def test_an_account_is_opened_by_the_ledger_and_its_request_answered():
    world = World()
    world.feed("payments.requests", opening(PAYER, "payer", reply=2))
    (command,) = world.out("ledger.commands")
    assert (command["type"], command["account_id"]) == ("account.open", PAYER)
    assert world.events() == []
    world.ledger("account.opened", command)
    (reply,) = world.out("gateway.replies")
    assert (reply["resource_id"], reply["status"]) == (PAYER, "active")
    assert world.events() == ["account.opened"]


def test_one_key_for_another_kind_of_account_is_a_conflict():
    other = ids.account_id("demo", "payer", "external")
    world = World()
    world.feed("payments.requests", opening(PAYER, "payer"))
    world.feed("payments.requests", opening(other, "payer") | {"body_hash": "other"})
    assert len(world.out("ledger.commands")) == 1
    assert world.events() == ["account.conflicted"]


def test_a_ledger_event_that_was_applied_is_dropped():
    world = World()
    world.request()
    world.request(key="k2")
    first, second = world.out("ledger.commands")
    world.ledger("transfer.posted", first)
    world.ledger("transfer.posted", second)
    world.ledger("transfer.posted", first, position=1)
    world.ledger("transfer.rejected", second, position=2, reason="late")
    assert world.events().count("payment.settled") == 2
    assert "payment.rejected" not in world.events()


def test_a_gap_in_the_ledgers_positions_stops_the_process():
    world = World()
    world.request()
    world.request(key="k2")
    first, second = world.out("ledger.commands")
    world.ledger("transfer.posted", first, position=5)
    with pytest.raises(Corrupt, match="from position 5 to 7"):
        world.ledger("transfer.posted", second, position=7)


def test_a_ledger_event_without_a_saga_stops_the_process():
    world = World()
    other = request(key="unknown")
    command = {"command_id": "x/post/1", "saga_id": other["resource_id"], "transfer_id": None}
    command |= {k: other.get(k) for k in ("tenant", "identity", "body_hash", "slot")}
    command |= {"home_account": PAYER, "account_kind": None}
    with pytest.raises(Corrupt, match="has no saga here"):
        world.ledger("transfer.posted", command)


@pytest.mark.parametrize("fault", [{"home_account": "acct_x"}, {"type": "payment.destroy"}])
def test_a_request_that_makes_no_sense_is_dead_lettered_with_its_bytes(fault):
    world = World()
    bad = request() | fault
    world.feed("payments.requests", bad)
    world.request(key="good")
    ((_, _, value, headers),) = world.task.outputs["payments.requests.dlq"]
    assert value == wire.encode("payments.requests", bad)
    assert dict(headers)["dlq.reason"]
    assert len(world.out("ledger.commands")) == 1


def test_a_request_of_another_partition_is_dead_lettered():
    names = (ids.account_id("demo", f"a{n}", "customer") for n in range(100))
    elsewhere = next(a for a in names if ids.partition_of(ids.slot_of(a), 4) != PARTITION)
    world = World()
    world.request(source=elsewhere)
    assert len(world.task.outputs["payments.requests.dlq"]) == 1


def test_the_trace_context_travels_with_command_and_event():
    world = World()
    asked = request()
    trace = (("traceparent", b"00-aa-bb-01"),)
    value = wire.encode("payments.requests", asked)
    world.task.feed([("payments.requests", b"k", value, NOW_US)], headers=trace)
    for topic in ("ledger.commands", "payments.events"):
        assert world.task.outputs[topic][0][3] == trace


def test_a_key_is_remembered_into_the_next_generation():
    world = World()
    world.request()
    world.request(at_us=NOW_US + 7 * 86_400 * 1_000_000)
    assert len(world.out("ledger.commands")) == 1


uses = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 3), st.sampled_from([None, 0, 1])), max_size=40
)


@settings(max_examples=60)
@given(uses, st.randoms(use_true_random=False))
def test_whatever_is_sent_each_key_is_executed_once_and_ends_once(sent, chance):
    world, answered = World(), 0
    for n, (key, amount, reply) in enumerate(sent):
        world.request(key=f"k{key}", amount=amount, reply=reply, request_id=f"r{n}")
        commands = world.out("ledger.commands")
        while answered < len(commands) and chance.random() < 0.5:
            kind = "transfer.posted" if chance.random() < 0.7 else "transfer.rejected"
            world.ledger(kind, commands[answered], reason="x" if kind[-2] == "e" else None)
            answered += 1
    for command in world.out("ledger.commands")[answered:]:
        world.ledger("transfer.posted", command)
    keys = {key for key, _, _ in sent}
    assert len(world.out("ledger.commands")) == len(keys)
    final = [e for e in world.out("payments.events") if e["type"][8:] in {"settled", "rejected"}]
    assert len(final) == len(keys)
    replies = [r["request_id"] for r in world.out("gateway.replies")]
    assert len(replies) == len(set(replies))
    waited = {f"r{n}" for n, (_, _, reply) in enumerate(sent) if reply is not None}
    assert set(replies) <= waited
    assert world.task.outputs["payments.requests.dlq"] == []


@settings(max_examples=30)
@given(uses, st.integers(1, 7))
def test_the_same_requests_give_the_same_bytes_however_they_are_batched(sent, size):
    feeds = []
    for n, (key, amount, reply) in enumerate(sent):
        record = request(key=f"k{key}", amount=amount, reply=reply, request_id=f"r{n}")
        value = wire.encode("payments.requests", record)
        feeds.append(("payments.requests", PAYER.encode(), value, NOW_US + n))
    one, many = World().task, World().task
    one.feed(feeds)
    for start in range(0, len(feeds), size):
        many.feed(feeds[start : start + size])
    assert _by_partition(one) == _by_partition(many)
    assert one.state == many.state


def _by_partition(task):
    return {
        topic: sorted(records, key=lambda record: record[0])  # stable: a partition keeps its order
        for topic, records in task.outputs.items()
        if records
    }


def _delivery(event, body):
    key = ids.webhook_key("bank", event)
    return {
        "delivery_id": f"d-{event}-{body}", "source": "bank", "partner_event_id": event,
        "slot": ids.slot_of_key(key), "received_at_us": NOW_US, "verdict": "verified",
        "remote_address": "127.0.0.1", "path": "/v1/webhooks/bank", "headers": [],
        "body": body.encode(), "body_hash": hashlib.sha256(body.encode()).hexdigest(),
    }  # fmt: skip


def test_a_partners_event_counts_once_and_another_body_under_its_id_is_told_apart():
    partition = ids.partition_of(ids.slot_of_key(ids.webhook_key("bank", "e1")), 4)
    task = MemoryTask(webhooks(), partition)
    for body in ("paid", "paid", "unpaid"):
        value = wire.encode("webhooks.received", _delivery("e1", body))
        task.feed([("webhooks.received", b"bank:e1", value, NOW_US)])
    events = [wire.decode("webhooks.events", out[2]) for out in task.outputs["webhooks.events"]]
    assert [event["type"] for event in events] == [
        "webhook.accepted",
        "webhook.repeated",
        "webhook.conflicted",
    ]
    assert [event["deliveries"] for event in events] == [1, 2, 3]
    assert [event["received_offset"] for event in events] == [0, 1, 2]
