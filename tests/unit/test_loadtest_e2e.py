"""How the end-to-end bench climbs and narrows down."""

from __future__ import annotations

import pytest

from loadtest.bench.e2e import Settings, following


def climb(limit: float, first: float = 400.0) -> list[tuple[float, bool]]:
    tried: list[tuple[float, bool]] = []
    rate: float | None = first
    while rate is not None:
        tried.append((rate, rate <= limit))
        rate = following(tried)
        assert len(tried) < 20
    return tried


@pytest.mark.parametrize("limit", [450.0, 1_000.0, 2_345.0])
def test_it_ends_close_below_the_limit(limit: float) -> None:
    best = max(rate for rate, ok in climb(limit) if ok)
    assert 0.8 * limit <= best <= limit


def test_it_goes_down_when_the_first_rate_is_too_high_and_gives_up_in_the_end() -> None:
    assert [rate for rate, _ in climb(0.0)] == [400.0, 200, 100]
    assert climb(150.0)[-1] == (100, True)


def test_it_stops_climbing_somewhere() -> None:
    assert len(climb(1e12)) == 10


def test_settings_come_from_the_environment() -> None:
    settings = Settings.of({"RATE": "700", "SECONDS": "5"})
    assert (settings.rate, settings.seconds, settings.accounts) == (700, 5, 300)
