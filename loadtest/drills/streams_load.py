"""What the drills feed: seeded operations on few keys, some of them poison. Pure.

Keys are few, so that state is overwritten, deleted and set again within a run, and so that timers
are replaced and cancelled while they are on their way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import msgspec

from schemas.ids import partition_of, slot_of_key

SMALL_BYTES_MAX: Final = 4 * 1024
"""What the topic `small` takes."""
BIG_BYTES: Final = 3 * SMALL_BYTES_MAX
STARTS_AT_MS: Final = 1_700_000_000_000
SKEW_MS: Final = 2 * 86_400_000
HORIZON_S: Final = 2
"""How long a key is known at least, in log time; a run goes through several generations of it."""
DELAYS_US: Final = (50_000, 600_000, 2_500_000)
"""Timers are short, to fire amid the faults, or long, to be replaced before they fire."""
LONG_US: Final = 2_000_000
GARBAGE: Final = b"\xff not an operation"


class Op(msgspec.Struct, frozen=True):
    """One operation. `timed` asks for log time in what it causes; `after_us` is an arm's delay."""

    kind: str
    amount: int
    after_us: int = 0
    timed: bool = False


@dataclass(frozen=True, slots=True)
class Mix:
    """The load of a run: how many records, on how many keys, and how many of each kind in 1,000.

    `timed` gives records made-up timestamps, which jump back and forth by up to `skew_ms`; then
    there are no timers and no second input, so that log time follows from the input alone. `know`
    asks what is remembered of a key. With `long_timers` most are replaced before they are due.
    """

    records: int
    keys: int
    partitions: int
    side: int = 250
    arm: int = 100
    cancel: int = 20
    drop: int = 40
    bad: int = 8
    garbage: int = 4
    big: int = 0
    know: int = 0
    long_timers: bool = False
    timed: bool = False
    skew_ms: int = 0


@dataclass(frozen=True, slots=True)
class Fed:
    """A record to write; `at_ms` None is now."""

    side: bool
    partition: int
    key: bytes
    value: bytes
    at_ms: int | None


encode_op: Final = msgspec.json.Encoder().encode
decode_op: Final = msgspec.json.Decoder(Op).decode


def feed(seed: int, mix: Mix) -> Iterator[Fed]:
    """Make a run's records; the same for the same seed and mix."""
    rng = Random(seed)
    for number in range(mix.records):
        key = f"key-{rng.randrange(mix.keys)}"
        partition = partition_of(slot_of_key(key), mix.partitions)
        at_ms = None
        if mix.timed:
            at_ms = STARTS_AT_MS + number * 7 + rng.randint(-mix.skew_ms, mix.skew_ms)
        if not mix.timed and rng.randrange(1_000) < mix.side:
            yield Fed(True, partition, key.encode(), b"%d" % rng.randrange(1_000), at_ms)
        else:
            yield Fed(False, partition, key.encode(), _value(rng, mix), at_ms)


def _value(rng: Random, mix: Mix) -> bytes:
    kinds = {"garbage": mix.garbage, "bad": mix.bad, "big": mix.big, "drop": mix.drop}
    kinds["know"] = mix.know
    if not mix.timed:
        kinds |= {"arm": mix.arm, "cancel": mix.cancel}
    shares = [*kinds.values(), 1_000 - sum(kinds.values())]
    kind = rng.choices([*kinds, "add"], shares)[0]
    if kind == "garbage":
        return GARBAGE
    after_us = 0
    if kind == "arm":
        after_us = LONG_US if mix.long_timers else rng.randrange(rng.choice(DELAYS_US))
    return encode_op(Op(kind, rng.randrange(1, 10_000), after_us, mix.timed))
