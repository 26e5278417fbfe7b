"""What a drill's task must have come to, told from its input log alone. Pure.

A few dictionaries and a loop per partition and topic; nothing of the engine. The two inputs touch
different state and outputs, so how they were interleaved makes no difference. A timer is the one
thing that depends on when it happened: one that nothing replaced must have fired exactly once, one
that was replaced or cancelled at most once, and none before its time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from loadtest.drills.streams_load import GARBAGE, HORIZON_S, decode_op

Pair = tuple[bytes, bytes]

REFUSED: Final = "what it causes cannot be written"


@dataclass(frozen=True, slots=True)
class Logged:
    """A record as it stands in a topic."""

    offset: int
    at_ms: int
    key: bytes
    value: bytes
    headers: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Memory:
    """What is known of keys, with the end of the generation that each was last put in."""

    times: dict[bytes, tuple[int, bool, int]] = field(default_factory=dict)
    at_s: int = 0

    def ask(self, key: bytes, at_s: int, kept: bool) -> int:
        """Return how often the key was asked for within memory, with this time."""
        times, was_kept, end = self.times.get(key, (0, False, 0))
        current = (at_s // HORIZON_S + 1) * HORIZON_S
        if not was_kept and at_s >= end + HORIZON_S:
            times, end = 0, current
        self.times[key] = (times + 1, kept, current if was_kept else end)
        return times + 1

    def difference(self, found: Mapping[bytes, bytes]) -> str:
        """Compare with a state whose keys begin with the end of their generation."""
        seen: dict[bytes, int] = {}
        for name, value in sorted(found.items()):
            end, (times, kept) = int.from_bytes(name[:4], "big"), json.loads(value)
            if kept or self.at_s < end + HORIZON_S:
                seen[name[4:]] = times
            elif end + 4 * HORIZON_S < self.at_s:
                return f"state known: {name!r} should have gone at {end + HORIZON_S}"
        wanted = {
            key: times
            for key, (times, kept, end) in self.times.items()
            if kept or self.at_s < end + HORIZON_S
        }
        return "" if seen == wanted else f"state known: {len(seen)} keys, not {len(wanted)}"


@dataclass(slots=True)
class Partition:
    """What one partition must have written and kept; `may_fire` says from when on, in ms."""

    out: list[Pair] = field(default_factory=list)
    side_out: list[Pair] = field(default_factory=list)
    dead: dict[int, tuple[str, Pair]] = field(default_factory=dict)
    totals: dict[bytes, bytes] = field(default_factory=dict)
    sides: dict[bytes, bytes] = field(default_factory=dict)
    known: Memory = field(default_factory=Memory)
    must_fire: dict[bytes, bytes] = field(default_factory=dict)
    may_fire: dict[Pair, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wrote:
    """What one partition has written and kept: topics by name, state by collection, timers left."""

    topics: Mapping[str, Sequence[Logged]]
    state: Mapping[int, Mapping[bytes, bytes]]
    timers_left: int
    store_differs: int


def expect(records: Sequence[Logged], sides: Sequence[Logged]) -> Partition:
    """Apply a partition's two input logs."""
    partition = Partition()
    totals: dict[bytes, tuple[int, int]] = {}
    log_time_us = 0
    for record in records:
        log_time_us = max(log_time_us, record.at_ms * 1000)
        reason = _apply(partition, totals, record, log_time_us)
        if reason is not None:
            partition.dead[record.offset] = (reason, (record.key, record.value))
    partition.known.at_s = log_time_us // 1_000_000
    partition.totals = {key: _json(*total) for key, total in totals.items()}
    sums: Counter[bytes] = Counter()
    for record in sides:
        sums[record.key] += int(record.value)
        partition.side_out.append((record.key, b"%d" % sums[record.key]))
    partition.sides = {key: b"%d" % total for key, total in sums.items()}
    return partition


def _apply(
    partition: Partition, totals: dict[bytes, tuple[int, int]], record: Logged, at_us: int
) -> str | None:
    """Apply one record; returns why it can't be, if it can't."""
    if record.value == GARBAGE:
        return "DecodeError"
    op, key = decode_op(record.value), record.key
    if op.kind == "bad":
        return "ValueError: this record can never be handled"
    if op.kind == "big":
        return REFUSED
    count, total = totals.get(key, (0, 0))
    totals[key] = (count + 1, total + op.amount)
    said = _json(record.offset, count + 1, total + op.amount, at_us if op.timed else 0)
    partition.out.append((key, said))
    if op.kind == "know":
        asked = partition.known.ask(key, at_us // 1_000_000, op.amount % 4 == 0)
        partition.out.append((key, _json(record.offset, asked)))
    if op.kind == "drop":
        del totals[key]
    if op.kind in {"cancel", "drop"}:
        partition.must_fire.pop(key, None)
    if op.kind == "arm":
        partition.must_fire[key] = b"%d" % record.offset
        partition.may_fire[key, b"%d" % record.offset] = record.at_ms + op.after_us // 1000
    return None


def differences(expected: Partition, wrote: Wrote) -> list[str]:
    """Say how what was written differs from what must have been."""
    found = [
        _sequence("out", expected.out, wrote.topics["out"]),
        _sequence("side.out", expected.side_out, wrote.topics["side.out"]),
        _sequence("small", [], wrote.topics["small"]),
        _equal("totals", expected.totals, wrote.state.get(1, {})),
        _equal("sides", expected.sides, wrote.state.get(2, {})),
        expected.known.difference(wrote.state.get(4, {})),
        _equal("armed", {}, wrote.state.get(3, {})),
        _fired(expected, wrote.topics["fired"]),
        _dead(expected, wrote.topics["in.dlq"]),
        _sequence("side.dlq", [], wrote.topics["side.dlq"]),
    ]
    if wrote.timers_left:
        found.append(f"{wrote.timers_left} timers are left in the state")
    if wrote.store_differs:
        found.append(f"the local store differs from its changelog in {wrote.store_differs} keys")
    return [each for each in found if each]


def checked(expected: Partition) -> int:
    """Return how many things `differences` compares."""
    lists = (expected.out, expected.side_out, expected.dead, expected.may_fire)
    return sum(map(len, lists)) + len(expected.totals) + len(expected.sides)


def prefix_differences(expected: Partition, out: Sequence[Logged], passed: int) -> list[str]:
    """Say how a partition that had to stop at its first poisoned record differs from that.

    `passed` is the offset committed: everything before it, and nothing else, has its output.
    """
    first = min(expected.dead, default=None)
    found = []
    if first is not None and passed > first:
        found.append(f"passed over the poisoned record at {first}, up to {passed}")
    written = [(record.key, record.value) for record in out]
    wanted = [pair for pair in expected.out if json.loads(pair[1])[0] < passed]
    if written != wanted:
        found.append(f"out: {len(written)} records for the {len(wanted)} before {passed}")
    return found


def _sequence(name: str, wanted: Sequence[Pair], found: Sequence[Logged]) -> str:
    pairs = [(record.key, record.value) for record in found]
    if pairs == list(wanted):
        return ""
    lost, extra = Counter(wanted) - Counter(pairs), Counter(pairs) - Counter(wanted)
    if not lost and not extra:
        return f"{name}: the order differs"
    return f"{name}: {lost.total()} lost {_some(lost)}, {extra.total()} too many {_some(extra)}"


def _equal(name: str, wanted: Mapping[bytes, bytes], found: Mapping[bytes, bytes]) -> str:
    keys = [key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)]
    if not keys:
        return ""
    shown = [(key, wanted.get(key), found.get(key)) for key in sorted(keys)[:3]]
    return f"state {name}: {len(keys)} keys differ (key, wanted, found): {shown}"


def _fired(expected: Partition, found: Sequence[Logged]) -> str:
    fired = Counter((record.key, record.value) for record in found)
    missing = [pair for pair in expected.must_fire.items() if pair not in fired]
    twice = [pair for pair, times in fired.items() if times > 1]
    wrong = [pair for pair in fired if pair not in expected.may_fire]
    early = [
        (record.key, record.value)
        for record in found
        if record.at_ms < expected.may_fire.get((record.key, record.value), 0)
    ]
    if not missing and not twice and not wrong and not early:
        return ""
    return (
        f"timers: not fired {missing[:3]}, fired twice {twice[:3]}, never set {wrong[:3]},"
        f" fired early {early[:3]}"
    )


def _dead(expected: Partition, found: Sequence[Logged]) -> str:
    offsets = [int(record.headers.get("dlq.offset", b"-1")) for record in found]
    if Counter(offsets) != Counter(expected.dead.keys()):
        return f"dead letters: {sorted(offsets)} instead of {sorted(expected.dead)}"
    for record, offset in zip(found, offsets, strict=True):
        reason, pair = expected.dead[offset]
        given = record.headers.get("dlq.reason", b"").decode()
        if reason not in given or (record.key, record.value) != pair:
            return f"dead letter {offset}: {given!r} {record.value!r}, not {reason!r} {pair}"
    return ""


def _some(pairs: Counter[Pair]) -> list[Pair]:
    return list(pairs)[:3]


def _json(*values: int) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode()
