"""Latency figures: bounded error, exact totals, and what a quantile of nothing is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.generator.histogram import Histogram, exact_quantile, quantiles_ms

values = st.lists(st.floats(1e-6, 100), min_size=1, max_size=300)


@given(values, st.floats(0.01, 1))
def test_a_quantile_is_at_most_two_percent_above_the_exact_one(
    seconds: list[float], q: float
) -> None:
    histogram = Histogram()
    for value in seconds:
        histogram.add(value)
    exact = exact_quantile(sorted(seconds), q)
    assert exact * 0.999999 <= histogram.quantile(q) <= exact * 1.0201


@given(values, values)
def test_merging_counts_what_both_counted(one: list[float], two: list[float]) -> None:
    whole, left, right = Histogram(), Histogram(), Histogram()
    for value in one:
        whole.add(value)
        left.add(value)
    for value in two:
        whole.add(value)
        right.add(value)
    left.merge(right)
    assert left == whole


def test_a_quantile_of_nothing_is_zero() -> None:
    assert Histogram().quantile(0.99) == 0
    assert quantiles_ms([]) == {"p50": 0, "p95": 0, "p99": 0, "p999": 0}


def test_the_slowest_of_a_thousand_shows_at_p999_and_not_below() -> None:
    figures = quantiles_ms([0.001] * 998 + [5.0] * 2)
    assert figures == {"p50": 1, "p95": 1, "p99": 1, "p999": pytest.approx(5_000)}
