"""The plan of a load: seeded, skewed, with the promised repeats, conflicts and refusals."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from loadtest.generator import plan, schedule, webhooks
from loadtest.generator.plan import Purpose, Shape, Use
from loadtest.generator.webhooks import Forgery

SHAPE = Shape(seed=3, payments=4_000, rate=500, accounts=200, runaways=2, burst=40)
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    assert plan.make(SHAPE) == plan.make(SHAPE)
    assert plan.make(SHAPE) != plan.make(Shape(seed=4, payments=4_000, rate=500, accounts=200))


def test_shares_of_repeats_conflicts_and_refusals_are_as_asked() -> None:
    counts = Counter(order.purpose for order in plan.make(SHAPE).orders)
    assert counts[Purpose.REPEAT] == 200
    assert counts[Purpose.CONFLICT] == 20
    assert counts[Purpose.RUNAWAY] == 80
    assert counts[Purpose.PAY] + counts[Purpose.UNFUNDED] + 80 == 4_000
    assert counts[Purpose.UNFUNDED] == pytest.approx(40, abs=25)


def test_a_repeat_says_the_same_and_a_conflict_something_else_under_one_key() -> None:
    made = plan.make(SHAPE)
    by_number = {order.number: order for order in made.orders}
    other_source = 0
    for order in made.orders:
        original = by_number[order.of]
        assert order.key == original.key
        assert order.at_s >= original.at_s
        said = (order.source, order.destination, order.amount_minor)
        meant = (original.source, original.destination, original.amount_minor)
        assert (said == meant) == (order.purpose is not Purpose.CONFLICT)
        other_source += order.source != original.source
    assert 0 < other_source < 20


def test_orders_rise_in_time_and_pay_between_different_accounts_of_one_currency() -> None:
    made = plan.make(SHAPE)
    currency = [account.currency for account in made.accounts]
    times = [order.at_s for order in made.orders]
    assert times == sorted(times)
    for order in made.orders:
        assert order.source != order.destination
        assert currency[order.source] == currency[order.destination]
        assert order.amount_minor > 0


def test_every_ordinary_account_is_funded_with_all_that_it_sends_and_an_empty_one_never() -> None:
    made = plan.make(SHAPE)
    funds = {order.destination: order.amount_minor for order in made.funding}
    sent: defaultdict[int, int] = defaultdict(int)
    for order in made.orders:
        sent[order.source] += order.amount_minor
        assert made.accounts[order.destination].use is Use.ORDINARY
    for account in made.accounts:
        if account.use in {Use.ORDINARY, Use.RUNAWAY}:
            assert funds[account.number] >= sent[account.number]
        else:
            assert account.number not in funds
    assert {made.accounts[o.source].use for o in made.funding} == {Use.EXTERNAL}


def test_busy_payers_are_few() -> None:
    counts = Counter(o.source for o in plan.make(SHAPE).orders if o.purpose is Purpose.PAY)
    busiest = sum(count for _, count in counts.most_common(20))
    assert busiest > 0.3 * counts.total()


def test_a_mix_that_can_not_be_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        plan.make(Shape(accounts=5))
    with pytest.raises(ValueError, match="no room"):
        plan.make(Shape(payments=100, accounts=100, runaways=5, burst=60))


@given(st.integers(1, 500), st.floats(1, 5_000), st.sampled_from(["constant", "poisson"]))
def test_times_never_fall_and_start_at_zero(
    count: int, rate: float, arrivals: schedule.Arrivals
) -> None:
    times = schedule.times(count, rate, arrivals, Random(0))
    assert times[0] == 0
    assert times == sorted(times)
    assert len(times) == count


def test_poisson_arrivals_keep_the_mean_rate() -> None:
    times = schedule.times(20_000, 1_000, "poisson", Random(1))
    assert times[-1] == pytest.approx(20, rel=0.05)


@settings(max_examples=25)
@given(st.integers(0, 2**16))
def test_webhooks_verify_by_the_reference_unless_forged(seed: int) -> None:
    deliveries = webhooks.make(seed, "t", 40, 5.0, repeated=0.1, forged=0.1)
    assert sum(d.repeats for d in deliveries) == 4
    forged = [d.forgery for d in deliveries if d.forgery]
    assert set(forged) == set(Forgery)
    now_s = int(time.time())
    for delivery in deliveries:
        headers = webhooks.headers(delivery, SECRET, now_s)
        if delivery.forgery is None:
            Webhook(SECRET).verify(delivery.body, headers)
        else:
            with pytest.raises(WebhookVerificationError):
                Webhook(SECRET).verify(delivery.body, headers)
