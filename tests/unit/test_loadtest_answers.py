"""When a request is sent again: only when nothing is known, with a bound, as the server asks."""

from __future__ import annotations

from random import Random

import pytest

from loadtest.generator.answers import (
    ATTEMPTS_MAX,
    RETRY_FOR_S,
    TIMED_OUT,
    Answer,
    parse_retry_after,
    retry_in_s,
)

RANDOM = Random(0)


@pytest.mark.parametrize("status", [200, 201, 202, 400, 401, 404, 409, 413, 422])
def test_an_answer_that_says_something_is_final(status: int) -> None:
    assert retry_in_s(Answer(status), 1, 0.0, RANDOM) is None


@pytest.mark.parametrize(
    "answer", [Answer(503), Answer(429), Answer(500), Answer(0, error="reset")]
)
def test_what_says_nothing_is_sent_again(answer: Answer) -> None:
    assert retry_in_s(answer, 1, 0.0, RANDOM) is not None


def test_the_server_may_ask_for_more_patience_but_not_without_bound() -> None:
    waits = [retry_in_s(Answer(503, retry_after_s=s), 1, 0.0, RANDOM) for s in (2.0, 3_600.0)]
    assert waits[0] is not None
    assert waits[1] is not None
    assert 2.0 <= waits[0] < waits[1] < 6.0


def test_attempts_and_time_are_bounded() -> None:
    assert retry_in_s(Answer(0, error=TIMED_OUT), ATTEMPTS_MAX, 0.0, RANDOM) is None
    assert retry_in_s(Answer(0, error=TIMED_OUT), 1, RETRY_FOR_S, RANDOM) is None


def test_the_wait_grows() -> None:
    waits = [retry_in_s(Answer(500), n, 0.0, Random(1)) for n in range(1, 6)]
    assert waits == sorted(waits, key=lambda wait: wait or 0)


def test_retry_after_is_read_in_seconds_and_a_date_is_left() -> None:
    assert parse_retry_after("1.5") == 1.5
    assert parse_retry_after("-3") == 0
    assert parse_retry_after("Wed, 21 Oct 2026 07:28:00 GMT") is None
