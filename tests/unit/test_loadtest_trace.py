"""A payment's way, found in logs by its id alone."""

from __future__ import annotations

import pytest

from loadtest import trace
from loadtest.kafka_log import Log
from tests.unit.verify_rig import A, B, World, small_world


def logs_of(world: World) -> list[Log]:
    return [world._as_log(topic) for topic in (*trace._KEYED, trace._REPLIES, *trace._DEAD)]


def test_the_way_of_a_settled_payment_is_request_command_ledger_event_payment_event() -> None:
    world = small_world()
    payment_id = world.pay("traced", A, B, 5)
    steps = trace.steps_of(logs_of(world), payment_id)
    assert {step.event for step in steps} == {
        "payment.create", "payment.accepted", "transfer.post", "transfer.posted", "payment.settled",
    }  # fmt: skip
    assert len(steps) == 5
    assert len({step.partition for step in steps}) == 1
    assert [step.total_ms for step in steps] == sorted(step.total_ms for step in steps)
    assert sum(step.after_ms for step in steps) == steps[-1].total_ms


def test_another_use_of_the_same_key_is_not_taken_for_the_payment() -> None:
    world = small_world()
    first = world.pay("again", A, B, 5)
    second = world.pay("again", B, A, 5, refused="idempotency_key_reused")
    assert first[8:] == second[8:]
    events = [step.event for step in trace.steps_of(logs_of(world), second)]
    assert "payment.rejected" in events
    assert "payment.settled" not in events


def test_an_unknown_payment_has_no_steps() -> None:
    assert trace.steps_of(logs_of(small_world()), "pay_2f1_aaaaaaaaaaaaaaaaaaaaaaaaaa") == []


def test_a_malformed_id_is_refused_before_anything_is_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert trace.main(["pay_nonsense"]) == 1
    assert "is not a payment id" in capsys.readouterr().err
