"""What the demo concludes: kill windows, surprises, the tally of invariants, figures and page."""

from __future__ import annotations

import json
import re
import xml.dom.minidom
from collections import Counter
from typing import Any

import pytest

from loadtest.generator.open_loop import Health
from loadtest.generator.plan import Order, Purpose
from loadtest.generator.webhooks import Delivery, Forgery
from loadtest.proof import charts, figures, page, tally, text
from loadtest.proof.load import Delivered
from loadtest.proof.outcomes import Ended, Judged, Reply, judge
from loadtest.proof.windows import Kill, outside, windows


def order(purpose: Purpose, number: int = 0, of: int | None = None, key: str = "k") -> Order:
    return Order(number, 0.0, purpose, key, 1, 2, 100, number if of is None else of)


def reply(made: Order, status: int = 202, payment_id: str | None = "pay", at: float = 1.0) -> Reply:
    return Reply(made, status, payment_id if status < 300 else None, at, at + 0.01)


SETTLED = Ended("settled", None, 1.5)


def test_a_window_lasts_until_all_that_was_sent_before_the_recovery_has_ended() -> None:
    kill = Kill("streams", "streams-0", at_s=10, ready_s=12, back_s=13)
    lives = [(9.9, 14.0), (12.9, 15.5), (13.1, 16.0), (5.0, 5.2)]
    assert [w.end_s for w in windows([kill], lives, 20)] == [15.5]


def test_a_role_that_never_came_back_leaves_its_window_open_to_the_end() -> None:
    kill = Kill("lake", "lake-0", at_s=10, ready_s=None, back_s=None)
    assert windows([kill], [(1, 2)], 30)[0].end_s == 30
    assert kill.back_after_s is None


def test_only_a_life_that_touches_no_window_counts_as_outside() -> None:
    closed = windows([Kill("gateway", "gateway-0", 10, 11, 12)], [], 20)
    lives = [(9.0, 9.9), (9.0, 10.0), (11, 11.5), (12.1, 12.2), (9.0, 13.0)]
    assert outside(lives, closed) == [(9.0, 9.9), (12.1, 12.2)]


def test_what_came_as_planned_is_no_surprise() -> None:
    replies = [
        reply(order(Purpose.PAY, 0, key="a"), payment_id="p0"),
        reply(order(Purpose.REPEAT, 9, of=0, key="a"), payment_id="p0"),
        reply(order(Purpose.UNFUNDED, 1, key="b"), payment_id="p1"),
        reply(order(Purpose.RUNAWAY, 2, key="c"), payment_id="p2"),
    ]
    ends = {
        "p0": SETTLED,
        "p1": Ended("rejected", "insufficient_funds", 2.0),
        "p2": Ended("rejected", "velocity_limit", 2.0),
    }
    judged = judge(replies, ends)
    assert judged.surprises == []
    assert judged.repeated == 1
    assert judged.accepted == {"p0", "p1", "p2"}
    assert sorted(judged.lives) == [(1.0, 1.5), (1.0, 2.0), (1.0, 2.0)]


@pytest.mark.parametrize(
    ("replies", "ends", "told"),
    [
        ([reply(order(Purpose.PAY), 500)], {}, "answered 500"),
        ([reply(order(Purpose.PAY), 422)], {}, "answered 422"),
        ([reply(order(Purpose.PAY), 0)], {}, "answered 0"),
        ([reply(order(Purpose.PAY))], {"pay": Ended("rejected", "insufficient_funds", 2)}, "ended"),
        ([reply(order(Purpose.UNFUNDED))], {"pay": SETTLED}, "ended settled"),
        (
            [reply(order(Purpose.PAY)), reply(order(Purpose.REPEAT, 5, of=0), payment_id="other")],
            {"pay": SETTLED},
            "another payment id",
        ),
    ],
)
def test_what_is_not_as_planned_is_a_surprise(
    replies: list[Reply], ends: dict[str, Ended], told: str
) -> None:
    (surprise,) = judge(replies, ends).surprises
    assert told in surprise


def test_an_accepted_payment_without_an_end_is_in_flight() -> None:
    judged = judge([reply(order(Purpose.PAY))], {})
    assert judged.in_flight == {"pay"}
    assert judged.lives == []


def test_of_a_contested_key_either_request_may_have_come_first() -> None:
    original, other = order(Purpose.PAY), order(Purpose.CONFLICT, 7, of=0)
    assert judge([reply(original), reply(other, 422)], {"pay": SETTLED}).surprises == []
    assert judge([reply(original, 422), reply(other)], {"pay": SETTLED}).surprises == []


def told(**changes: Any) -> dict[str, list[tuple[Any, ...]]]:
    right: dict[str, list[tuple[Any, ...]]] = {
        "events": [("payment.accepted", 3), ("payment.settled", 2), ("payment.rejected", 1)],
        "reasons": [("insufficient_funds", 1)],
        "contested": [("k",)],
        "webhooks": [("webhook.accepted", 2), ("webhook.repeated", 1)],
        "deliveries": [("e1", 1), ("e2", 2)],
        "quarantined": [("f1",)],
    }
    return right | changes


def delivered() -> list[Delivered]:
    def one(event_id: str, forgery: Forgery | None = None, *, repeats: bool = False) -> Delivery:
        return Delivery(0.0, event_id, b"{}", forgery, repeats=repeats)

    return [
        Delivered(one("e1"), 200),
        Delivered(one("e2"), 200),
        Delivered(one("e2", repeats=True), 200),
        Delivered(one("f1", Forgery.KEY), 401),
    ]


def judged() -> Judged:
    return Judged(
        accepted={"a", "b", "c"},
        by_id={"a": (0.0, 0.1), "b": (1.0, 1.2), "c": (2.0, 4.0)},
        conflicts={"k"},
        repeated=2,
        statuses=Counter({202: 4}),
    )


def wrong(lines: list[tally.Invariant]) -> list[str]:
    return [line.name for line in lines if not line.ok]


def test_a_right_run_has_no_broken_line() -> None:
    assert wrong(tally.observed(told(), judged(), delivered())) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"events": [("payment.accepted", 3), ("payment.settled", 2)], "reasons": []}, "adds_up"),
        ({"contested": []}, "every_conflict_noticed"),
        ({"deliveries": [("e2", 2)]}, "webhooks_verified"),
        ({"deliveries": [("e1", 1), ("e2", 1)]}, "webhooks_repeated"),
        ({"deliveries": [("e1", 1), ("e2", 2), ("f1", 1)]}, "webhooks_quarantined"),
        ({"quarantined": []}, "webhooks_quarantined"),
    ],
)
def test_each_line_can_break(changes: dict[str, Any], name: str) -> None:
    assert name in " ".join(wrong(tally.observed(told(**changes), judged(), delivered())))


def test_what_clients_were_told_is_held_against_the_log() -> None:
    lost = judged()
    lost.in_flight, lost.surprises = {"a"}, ["PAY k: answered 500"]
    assert wrong(tally.observed(told(), lost, delivered())) == [
        "nothing_answered_2xx_is_lost",
        "every_request_as_planned",
    ]


def test_a_forgery_that_was_answered_200_breaks_the_line() -> None:
    sent = delivered()
    sent[-1] = Delivered(sent[-1].delivery, 200)
    assert wrong(tally.observed(told(), judged(), sent)) == ["webhooks_quarantined"]


def test_a_role_killed_after_the_load_or_never_back_does_not_count() -> None:
    back, late = Kill("a", "a-0", 1, 2, 3), Kill("b", "b-0", 11, 12, 13)
    gone = Kill("c", "c-0", 2, None, None)
    assert tally.killed([back], 10, wanted=1).ok
    assert tally.killed([back, late, gone], 10, wanted=3).differences == 2


def measured(*, ok: bool = True) -> figures.Measured:
    lines = tally.observed(told(), judged(), delivered())
    return figures.Measured(
        seconds=9.0,
        counts=tally.counts(told(), judged()),
        lives=judged().lives,
        offered=3,
        offered_s=2.0,
        kills=[Kill("streams", "streams-0", 1.1, 1.5, 2.0)],
        cpu_s={"kafka": 0.03, "gateway": 0.006},
        per_hop_ms={"request_to_command": {"p50": 1, "p95": 2, "p99": 3, "mean": 1.5}},
        generator=tally.generator(Health(), 4),
        invariants=lines,
        surprises=[],
        verify={"ok": ok, "checks": {}, "differences": 0 if ok else 1},
        setting={"payments": 3, "accounts": 2, "rate": 1.5, "seed": 1, "funded": 1},
    )


def test_the_document_has_the_promised_fields() -> None:
    document = figures.document(measured())
    assert document["ok"] is True
    assert (document["accepted"], document["settled"], document["in_flight"]) == (3, 2, 0)
    assert document["rejected"] == {"insufficient_funds": 1}
    assert document["webhooks"] == {"verified": 2, "repeated": 1, "quarantined": 1}
    assert (document["repeated"], document["conflicting"]) == (2, 1)
    assert document["rate_offered"] == 1.5
    assert document["rate_achieved"] == 0.8
    assert document["latency_ms"]["p50"] == 200
    assert document["latency_ms_outside_kills"]["max"] == 100
    assert document["cpu_ms_per_payment"] == {"gateway": 2.0, "kafka": 10.0}
    (kill,) = document["kills"]
    assert (kill["role"], kill["at"], kill["back_after_s"]) == ("streams", 1.1, 0.9)
    assert kill["backlog_gone_after_s"] == pytest.approx(2.9)
    assert json.dumps(document)


def test_a_run_that_verify_refuses_is_not_ok() -> None:
    assert figures.document(measured(ok=False))["ok"] is False


def test_the_page_needs_nothing_else_and_every_drawing_is_well_formed() -> None:
    html = page.render(figures.document(measured()), "body { color: red }")
    assert not re.findall(r"(?:src|href)=|url\(|@import|https?:", html)
    drawings = re.findall(r"<svg.*?</svg>", html)
    assert len(drawings) == 5
    for drawing in drawings:
        xml.dom.minidom.parseString(drawing)
        assert "nan" not in drawing


def test_the_summary_names_what_broke() -> None:
    document = figures.document(measured())
    document["invariants"][0] |= {"ok": False, "differences": 7}
    assert "BROKEN: 7 differences" in "\n".join(text.lines(document))


def test_names_are_escaped_in_drawings() -> None:
    drawn = charts.bars("<t>", [("a<b", (1.0,))], [("CPU", "one")], "ms")
    assert "a&lt;b" in drawn
    assert "<t>" not in drawn
