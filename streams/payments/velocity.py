"""Risk velocity: how often and how much an account has sent within a sliding window. Pure.

One record per account: a ring of the last 64 (time, amount), from which windows are exact, and,
for what has left the ring, buckets (second, minute, hour, day), exact to one bucket. Time is log
time. Payments that a rule refused are not counted, so an account comes back as its window moves
on. Rules are versioned data (YAML); a rule in shadow mode is evaluated and reported, and refuses
nothing.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from functools import cached_property
from typing import Final, Literal

import msgspec

RING_MAX: Final = 64
SECOND_US: Final = 1_000_000
RESOLUTIONS: Final = (
    (SECOND_US, 120),
    (60 * SECOND_US, 120),
    (3_600 * SECOND_US, 48),
    (86_400 * SECOND_US, 62),
)
"""(bucket length, buckets kept): 2 minutes, 2 hours, 2 days, 2 months."""
WINDOW_S_MAX: Final = 31 * 86_400


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule: the most that passes. At least one of `count_max` and `sum_minor_max` is set."""

    id: str
    window_s: int
    count_max: int | None = None
    sum_minor_max: int | None = None
    currency: str | None = None
    reason: str = "velocity_limit"
    mode: Literal["enforce", "shadow"] = "enforce"


class RuleSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """Versioned rules, evaluated in order."""

    version: int
    rules: tuple[Rule, ...]

    @cached_property
    def count_least(self) -> int:
        """The lowest limit of any rule on how many payments there are; `_SUM_MAX` without one."""
        return _least(rule.count_max for rule in self.rules)

    @cached_property
    def sum_least(self) -> int:
        """The lowest limit of any rule on their sum in minor units; `_SUM_MAX` without one."""
        return _least(rule.sum_minor_max for rule in self.rules)


class Buckets(msgspec.Struct, gc=False):
    """Buckets of one length, oldest first: number since the epoch, payments, their sum."""

    numbers: array[int]
    counts: array[int]
    sums: array[int]


class Profile(msgspec.Struct, gc=False):
    """What is kept of one account: its last payments, newest last, and what came before them in
    buckets of each resolution (none before the ring has run over).
    """

    times: array[int]
    amounts: array[int]
    buckets: tuple[Buckets, ...] = ()


class Verdict(msgspec.Struct, frozen=True):
    """Which rules were broken: those that refuse, and those that only watch."""

    enforced: tuple[Rule, ...]
    shadowed: tuple[Rule, ...]


PASSED: Final = Verdict((), ())
"""The verdict on what breaks no rule."""


def parse_rules(document: object) -> RuleSet:
    """Read rules from parsed YAML; ValueError names the rule and what is wrong with it."""
    rules = msgspec.convert(document, RuleSet)
    names = [rule.id for rule in rules.rules]
    for rule in rules.rules:
        if names.count(rule.id) > 1:
            raise ValueError(f"rule {rule.id}: the id is used twice")
        if not 1 <= rule.window_s <= WINDOW_S_MAX:
            raise ValueError(f"rule {rule.id}: window_s must lie in 1..{WINDOW_S_MAX}")
        if rule.count_max is None and rule.sum_minor_max is None:
            raise ValueError(f"rule {rule.id}: count_max or sum_minor_max must be set")
        if (rule.count_max or 0) < 0 or (rule.sum_minor_max or 0) < 0:
            raise ValueError(f"rule {rule.id}: a limit can't be below zero")
    return rules


def empty() -> Profile:
    """Return the profile of an account that has sent nothing."""
    return Profile(array("q"), array("q"))


def check(
    profile: Profile, rules: RuleSet, at_us: int, amount_minor: int, currency: str
) -> Verdict:
    """Judge a payment of `amount_minor` at `at_us` as if it were counted already."""
    suspects = rules.rules if profile.buckets else _suspects(profile, rules, amount_minor)
    broken = [
        rule
        for rule in suspects
        if (rule.currency is None or rule.currency == currency)
        and _breaks(profile, rule, at_us, amount_minor)
    ]
    if not broken:
        return PASSED
    return Verdict(
        tuple(rule for rule in broken if rule.mode == "enforce"),
        tuple(rule for rule in broken if rule.mode == "shadow"),
    )


def add(profile: Profile, at_us: int, amount_minor: int) -> None:
    """Count a payment in. `at_us` is log time: never before what was counted last."""
    times, amounts = profile.times, profile.amounts
    if len(times) == RING_MAX:
        if not profile.buckets:
            profile.buckets = tuple(_no_buckets() for _ in RESOLUTIONS)
        _keep(profile.buckets, times.pop(0), amounts.pop(0), at_us)
    times.append(at_us)
    amounts.append(amount_minor)


def count_and_sum(profile: Profile, at_us: int, window_s: int) -> tuple[int, int]:
    """Return how many payments the window (at - window, at] holds, and their sum in minor units.

    Exact for what the ring has; of what came before, the finest buckets that cover the window
    tell, the oldest of which counts whole.
    """
    return _count(profile, at_us, window_s), _sum(profile, at_us, window_s)


def encode(profile: Profile) -> bytes:
    """Write a profile as its arrays' little-endian bytes, behind one byte of length for each
    group of them.
    """
    times = profile.times
    parts = [times.tobytes(), profile.amounts.tobytes()]
    lengths = [len(times)]
    for each in profile.buckets:
        lengths.append(len(each.numbers))
        parts += (each.numbers.tobytes(), each.counts.tobytes(), each.sums.tobytes())
    return b"".join((bytes((len(lengths),)), bytes(lengths), *parts))


def decode(data: bytes) -> Profile:
    """Read what `encode` wrote."""
    groups = data[0]
    lengths, at = data[1 : groups + 1], groups + 1

    def read(kind: _Kind, length: int) -> array[int]:
        nonlocal at
        values = array(kind)
        end = at + length * values.itemsize
        values.frombytes(data[at:end])
        at = end
        return values

    times, amounts = read("q", lengths[0]), read("q", lengths[0])
    buckets = tuple(
        Buckets(read("I", length), read("I", length), read("q", length)) for length in lengths[1:]
    )
    return Profile(times, amounts, buckets)


_Kind = Literal["q", "I"]
_SUM_MAX: Final = 2**63 - 1


def _least(limits: Iterable[int | None]) -> int:
    return min((each for each in limits if each is not None), default=_SUM_MAX)


def _suspects(profile: Profile, rules: RuleSet, amount_minor: int) -> tuple[Rule, ...]:
    """Return the rules that all there is would break: no window holds more than that."""
    count, sum_minor = len(profile.times), sum(profile.amounts) + amount_minor
    if count < rules.count_least and sum_minor <= rules.sum_least:
        return ()
    return tuple(
        rule
        for rule in rules.rules
        if ((most := rule.count_max) is not None and count >= most)
        or ((most := rule.sum_minor_max) is not None and sum_minor > most)
    )


def _breaks(profile: Profile, rule: Rule, at_us: int, amount_minor: int) -> bool:
    count_max, sum_minor_max = rule.count_max, rule.sum_minor_max
    if count_max is not None and _count(profile, at_us, rule.window_s) >= count_max:
        return True
    if sum_minor_max is None:
        return False
    return _sum(profile, at_us, rule.window_s) + amount_minor > sum_minor_max


def _count(profile: Profile, at_us: int, window_s: int) -> int:
    times = profile.times
    first = bisect_right(times, at_us - window_s * SECOND_US)
    if first or not profile.buckets:
        return len(times) - first
    before, oldest = _before(profile, at_us, window_s)
    return len(times) + sum(before.counts[oldest:])


def _sum(profile: Profile, at_us: int, window_s: int) -> int:
    first = bisect_right(profile.times, at_us - window_s * SECOND_US)
    if first or not profile.buckets:
        return sum(profile.amounts[first:] if first else profile.amounts)
    before, oldest = _before(profile, at_us, window_s)
    return sum(profile.amounts) + sum(before.sums[oldest:])


def _before(profile: Profile, at_us: int, window_s: int) -> tuple[Buckets, int]:
    """Return the finest buckets that cover a window, and the place of the first one inside it."""
    window_us = window_s * SECOND_US
    for (length_us, keep), buckets in zip(RESOLUTIONS, profile.buckets, strict=True):
        if window_us <= length_us * (keep - 1):
            return buckets, bisect_left(buckets.numbers, (at_us - window_us + 1) // length_us)
    raise AssertionError(f"no resolution covers a window of {window_s} s")


def _keep(buckets: tuple[Buckets, ...], at_us: int, amount_minor: int, now_us: int) -> None:
    """Count a payment that has left the ring into its buckets, and drop those out of any window."""
    for (length_us, keep), each in zip(RESOLUTIONS, buckets, strict=True):
        number, numbers = at_us // length_us, each.numbers
        if numbers and numbers[-1] == number:
            each.counts[-1] += 1
            each.sums[-1] = min(each.sums[-1] + amount_minor, _SUM_MAX)
        else:
            numbers.append(number)
            each.counts.append(1)
            each.sums.append(amount_minor)
        over = bisect_right(numbers, now_us // length_us - keep)
        if over:
            del numbers[:over], each.counts[:over], each.sums[:over]


def _no_buckets() -> Buckets:
    return Buckets(array("I"), array("I"), array("q"))
