"""Deduplication, velocity and the saga table, as rules."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Corrupt
from streams.payments import dedup, saga, velocity
from streams.payments.dedup import Use
from streams.payments.saga import PENDING, STATUS, TABLE, State, Trigger
from streams.payments.velocity import RING_MAX, SECOND_US, Rule, RuleSet

PACKAGE = Path(saga.__file__).parent


def test_a_key_is_new_then_repeated_or_in_conflict():
    assert dedup.judge(None, "a") is Use.NEW
    assert dedup.judge("a", "a") is Use.REPEAT
    assert dedup.judge("a", "b") is Use.CONFLICT


@given(st.sampled_from([None, *State]), st.sampled_from(Trigger))
def test_only_the_table_moves_a_saga(state, trigger):
    if (state, trigger) in TABLE:
        assert saga.step(state, trigger) is TABLE[state, trigger]
    else:
        with pytest.raises(Corrupt, match=trigger.value):
            saga.step(state, trigger)


@given(st.lists(st.sampled_from(Trigger), max_size=12))
def test_whatever_comes_a_saga_begins_once_and_never_waits_again_once_it_is_decided(triggers):
    state, commands, decided = None, 0, False
    for trigger in triggers:
        try:
            transition = saga.step(state, trigger)
        except Corrupt:
            continue
        commands += state is None and transition.command is not None
        state = transition.to
        assert not (decided and state in PENDING)
        decided = decided or state not in PENDING
    assert commands == (state is not None)


def test_every_state_is_reached_has_a_status_and_what_is_pending_leads_on():
    reached = {transition.to for transition in TABLE.values()}
    assert reached == set(State)
    assert set(STATUS) == set(State)
    leads = {state for state, _ in TABLE if state is not None}
    assert leads >= PENDING
    assert {State.REJECTED, State.VOIDED, State.EXPIRED, State.REFUNDED}.isdisjoint(leads)


@pytest.mark.parametrize(
    ("event", "left", "captured", "expired", "trigger"),
    [
        ("hold.posted", 5, 0, False, Trigger.HOLD_POSTED_PART),
        ("hold.posted", 0, 5, False, Trigger.HOLD_POSTED_REST),
        ("hold.voided", 0, 0, False, Trigger.HOLD_VOIDED),
        ("hold.voided", 0, 5, False, Trigger.HOLD_VOIDED_REST),
        ("hold.voided", 0, 0, True, Trigger.HOLD_EXPIRED),
        ("hold.voided", 0, 5, True, Trigger.HOLD_EXPIRED_REST),
        ("transfer.reversed", 5, 9, False, Trigger.TRANSFER_REVERSED_PART),
        ("transfer.reversed", 0, 9, False, Trigger.TRANSFER_REVERSED_REST),
        ("hold.rejected", None, 0, False, Trigger.TRANSFER_REJECTED),
        ("account.frozen", None, 0, False, None),
    ],
)
def test_what_is_left_tells_a_part_from_the_rest(event, left, captured, expired, trigger):
    read = saga.trigger_of(event, remaining_minor=left, captured_minor=captured, expired=expired)
    assert read is trigger


def test_the_readme_shows_the_table_as_it_is():
    drawn = re.search(r"```mermaid\n(.*?)\n```", (PACKAGE / "README.md").read_text(), re.DOTALL)
    assert drawn[1] == saga.diagram(), "put saga.diagram() into streams/payments/README.md"


def _rules(**limits):
    return RuleSet(1, (Rule("r", **limits),))


def _send(profile, payments):
    for at_us, amount in payments:
        velocity.add(profile, at_us, amount)


steps = st.lists(st.tuples(st.integers(0, 90 * SECOND_US), st.integers(1, 10**9)), max_size=200)


@given(steps, st.integers(1, 120))
def test_a_window_the_ring_covers_is_exact(gaps, window_s):
    profile, sent, now = velocity.empty(), [], 10**15
    for gap_us, amount in gaps:
        now += gap_us
        sent.append((now, amount))
        velocity.add(profile, now, amount)
    inside = [amount for at, amount in sent if at > now - window_s * SECOND_US]
    count, total = velocity.count_and_sum(profile, now, window_s)
    if len(inside) < RING_MAX:
        assert (count, total) == (len(inside), sum(inside))


@pytest.mark.parametrize("window_s", [60, 3_600, 86_400, 31 * 86_400])
@given(data=st.data())
def test_a_wider_window_errs_by_less_than_one_bucket_and_never_low(window_s, data):
    gap_us = window_s * SECOND_US // 150
    profile, sent, now = velocity.empty(), [], 10**15
    for _ in range(data.draw(st.integers(0, 400))):
        now += data.draw(st.integers(0, 2 * gap_us)) if len(sent) % 9 == 0 else gap_us
        sent.append((now, 7))
        velocity.add(profile, now, 7)
    lengths_us = [length for length, keep in velocity.RESOLUTIONS]
    bucket_us = next(
        length
        for length, keep in velocity.RESOLUTIONS
        if window_s * SECOND_US <= length * (keep - 1)
    )
    assert bucket_us in lengths_us
    exact = sum(at > now - window_s * SECOND_US for at, _ in sent)
    widened = sum(at > now - window_s * SECOND_US - bucket_us for at, _ in sent)
    count, total = velocity.count_and_sum(profile, now, window_s)
    assert exact <= count <= widened
    assert total == 7 * count


def test_a_profile_is_bounded_however_long_an_account_sends():
    profile = velocity.empty()
    for n in range(5_000):
        velocity.add(profile, n * 3_601 * SECOND_US, 1)
    assert len(profile.times) == len(profile.amounts) == RING_MAX
    for (_, keep), buckets in zip(velocity.RESOLUTIONS, profile.buckets, strict=True):
        assert len(buckets.numbers) == len(buckets.counts) == len(buckets.sums) <= keep
    assert len(velocity.encode(profile)) < 8_000


@given(steps)
def test_a_profile_is_stored_as_it_is(gaps):
    profile, now = velocity.empty(), 10**15
    for gap_us, amount in gaps:
        now += gap_us
        velocity.add(profile, now, amount)
    assert velocity.decode(velocity.encode(profile)) == profile


@given(steps, st.integers(0, 200), st.integers(0, 10**11), st.integers(1, 10**9))
def test_a_verdict_is_what_the_windows_say_however_little_is_looked_at(
    gaps, count_max, sum_minor_max, amount_minor
):
    windows = (1, 60, 3_600)
    limits = ((count_max, None), (None, sum_minor_max), (count_max, sum_minor_max))
    rules = RuleSet(
        1,
        tuple(
            Rule(f"{window_s}-{number}", window_s, *limit)
            for window_s in windows
            for number, limit in enumerate(limits)
        ),
    )
    profile, at_us = velocity.empty(), 0
    for gap, amount in gaps:
        at_us += gap
        velocity.add(profile, at_us, amount)
    broken = []
    for rule in rules.rules:
        count, sum_minor = velocity.count_and_sum(profile, at_us, rule.window_s)
        over = rule.count_max is not None and count >= rule.count_max
        if over or (
            rule.sum_minor_max is not None and sum_minor + amount_minor > rule.sum_minor_max
        ):
            broken.append(rule)
    assert velocity.check(profile, rules, at_us, amount_minor, "EUR").enforced == tuple(broken)


def test_the_limit_itself_passes_and_one_more_does_not():
    profile = velocity.empty()
    _send(profile, [(SECOND_US, 100)] * 2)
    rules = _rules(window_s=60, count_max=3)
    assert velocity.check(profile, rules, SECOND_US, 1, "EUR").enforced == ()
    _send(profile, [(SECOND_US, 100)])
    assert velocity.check(profile, rules, SECOND_US, 1, "EUR").enforced == rules.rules
    assert velocity.check(profile, rules, 61 * SECOND_US, 1, "EUR").enforced == ()
    assert velocity.check(profile, rules, 61 * SECOND_US - 1, 1, "EUR").enforced == rules.rules


def test_a_sum_counts_the_payment_that_is_judged():
    rules = _rules(window_s=60, sum_minor_max=1_000)
    profile = velocity.empty()
    _send(profile, [(0, 600)])
    assert velocity.check(profile, rules, 1, 400, "EUR").enforced == ()
    assert velocity.check(profile, rules, 1, 401, "EUR").enforced == rules.rules


def test_a_shadow_rule_is_reported_and_refuses_nothing():
    rules = _rules(window_s=60, count_max=0, mode="shadow")
    verdict = velocity.check(velocity.empty(), rules, 0, 1, "EUR")
    assert verdict.enforced == ()
    assert verdict.shadowed == rules.rules


def test_a_rule_of_one_currency_leaves_others_alone():
    rules = _rules(window_s=60, count_max=0, currency="USD")
    assert velocity.check(velocity.empty(), rules, 0, 1, "EUR").enforced == ()
    assert velocity.check(velocity.empty(), rules, 0, 1, "USD").enforced == rules.rules


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"id": "a", "window_s": 60}, "rule a: count_max or sum_minor_max must be set"),
        ({"id": "a", "window_s": 0, "count_max": 1}, "rule a: window_s must lie in 1.."),
        ({"id": "a", "window_s": 60, "count_max": -1}, "rule a: a limit can't be below zero"),
        ({"id": "a", "window_s": 60, "max": 1}, "unknown field `max`"),
        ({"id": "a", "window_s": 60, "count_max": 1, "mode": "off"}, "mode"),
    ],
)
def test_a_wrong_rule_is_named_with_what_is_wrong(rule, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        velocity.parse_rules({"version": 1, "rules": [rule]})


def test_the_packaged_rules_are_valid():
    rules = velocity.parse_rules(yaml.safe_load((PACKAGE / "rules.yaml").read_text()))
    assert rules.version == 1
    assert any(rule.mode == "enforce" for rule in rules.rules)
