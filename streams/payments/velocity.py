"""Risk velocity: how often and how much an account has sent within a sliding window. Pure.

One record per account: a ring of the last 64 (time, amount), from which short windows are exact,
and rings of buckets (second, minute, hour, day) for what the ring no longer covers, exact to one
bucket. Time is log time. Payments that a rule refused are not counted, so an account comes back as
its window moves on. Rules are versioned data (YAML); a rule in shadow mode is evaluated and
reported, and refuses nothing.
"""

from __future__ import annotations

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


class RuleSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Versioned rules, evaluated in order."""

    version: int
    rules: tuple[Rule, ...]


class Profile(msgspec.Struct, array_like=True):
    """What is kept of one account: recent payments, newest last, and a bucket list per resolution.

    A bucket is [number since the epoch, count, sum]; lists are in order of time.
    """

    recent: list[tuple[int, int]]
    buckets: list[list[list[int]]]


class Verdict(msgspec.Struct, frozen=True):
    """Which rules were broken: those that refuse, and those that only watch."""

    enforced: tuple[Rule, ...]
    shadowed: tuple[Rule, ...]


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
    return Profile([], [[] for _ in RESOLUTIONS])


def check(
    profile: Profile, rules: RuleSet, at_us: int, amount_minor: int, currency: str
) -> Verdict:
    """Judge a payment of `amount_minor` at `at_us` as if it were counted already."""
    broken = [rule for rule in rules.rules if _breaks(profile, rule, at_us, amount_minor, currency)]
    return Verdict(
        tuple(rule for rule in broken if rule.mode == "enforce"),
        tuple(rule for rule in broken if rule.mode == "shadow"),
    )


def add(profile: Profile, at_us: int, amount_minor: int) -> None:
    """Count a payment in. `at_us` is log time: never before what was counted last."""
    profile.recent.append((at_us, amount_minor))
    if len(profile.recent) > RING_MAX:
        del profile.recent[0]
    for (length_us, keep), buckets in zip(RESOLUTIONS, profile.buckets, strict=True):
        number = at_us // length_us
        if buckets and buckets[-1][0] == number:
            buckets[-1][1] += 1
            buckets[-1][2] += amount_minor
        else:
            buckets.append([number, 1, amount_minor])
            while buckets[0][0] <= number - keep:
                del buckets[0]


def count_and_sum(profile: Profile, at_us: int, window_s: int) -> tuple[int, int]:
    """Return how many payments the window (at - window, at] holds, and their sum in minor units.

    Exact while the ring covers the window; else from the finest buckets that do, whose oldest
    counts whole.
    """
    since_us = at_us - window_s * SECOND_US
    recent = profile.recent
    if len(recent) < RING_MAX or recent[0][0] <= since_us:
        inside = [amount for when, amount in recent if when > since_us]
        return len(inside), sum(inside)
    for (length_us, keep), buckets in zip(RESOLUTIONS, profile.buckets, strict=True):
        if window_s * SECOND_US <= length_us * (keep - 1):
            first = (since_us + 1) // length_us
            held = [bucket for bucket in buckets if bucket[0] >= first]
            return sum(bucket[1] for bucket in held), sum(bucket[2] for bucket in held)
    raise AssertionError(f"no resolution covers a window of {window_s} s")


def _breaks(profile: Profile, rule: Rule, at_us: int, amount_minor: int, currency: str) -> bool:
    if rule.currency is not None and rule.currency != currency:
        return False
    count, total = count_and_sum(profile, at_us, rule.window_s)
    over_count = rule.count_max is not None and count + 1 > rule.count_max
    over_sum = rule.sum_minor_max is not None and total + amount_minor > rule.sum_minor_max
    return over_count or over_sum
