"""What the ledger bench asks of the writer: seeded commands over a fixed set of accounts. Pure.

Every command is a transfer of one leg between customers; one in two hundred overdraws its source
and is refused. A mixed load has repeats, holds and captures beside that. The same shape and seed
give the same commands.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Any, Final, TypeVar

from ledger_writer import samples
from schemas import ids
from schemas.wire import encoder

PARTITIONS: Final = 4
COMMANDS: Final = "ledger.commands"
FUNDS_MINOR: Final = 1_000_000_000_000
AMOUNT_MINOR_MAX: Final = 100
OVERDRAWN_EVERY: Final = 200
REPEATED_EVERY: Final = 100
HELD_EVERY: Final = 50
POOR: Final = 4
"""Accounts of each partition that own nothing and are debited all the same."""

Name = TypeVar("Name")
Keyed = tuple[int, bytes, bytes]
"""Partition, key, value."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How commands spread: `skew` 0 is uniform, else the exponent of a Zipf law within each
    partition; `cross` is the share of transfers whose payee is at home on another partition.
    """

    accounts: int = 10_000
    skew: float = 0.0
    cross: float = 0.5
    mixed: bool = False

    def row(self) -> dict[str, Any]:
        """Return the columns that tell of it."""
        return {
            "accounts": self.accounts,
            "spread": f"Zipf {self.skew:g}" if self.skew else "uniform",
            "cross %": round(self.cross * 100),
            "mix": "mixed" if self.mixed else "transfers",
        }


@dataclass(frozen=True, slots=True)
class Opened:
    """One account of the load: its number, its id, its home and what it owns."""

    number: int
    account_id: str
    home: int
    posted_minor: int


class Load:
    """An endless sequence of commands; each call of `commands` goes on where the last one ended."""

    def __init__(self, shape: Shape, seed: int = 1) -> None:
        self.shape = shape
        self.opened = list(_accounts(shape.accounts))
        self._random = Random(seed)
        self._made = 0
        self._rich: list[list[str]] = [[] for _ in range(PARTITIONS)]
        self._poor: list[list[str]] = [[] for _ in range(PARTITIONS)]
        for each in self.opened:
            (self._rich if each.posted_minor else self._poor)[each.home].append(each.account_id)
        self._drawn = [drawer(rich, shape.skew, self._random) for rich in self._rich]
        self._last: list[dict[str, Any] | None] = [None] * PARTITIONS
        self._held: list[dict[str, Any] | None] = [None] * PARTITIONS

    def openings(self) -> Iterator[Keyed]:
        """Make the commands that open the accounts: those with funds may go as far below zero."""
        encode = encoder(COMMANDS)
        for each in self.opened:
            record = samples.open_account(each.account_id, min_balance_minor=-each.posted_minor)
            yield each.home, each.account_id.encode(), encode(record)

    def commands(self, count: int) -> Iterator[Keyed]:
        """Make the next `count` commands, partition after partition in turn."""
        encode = encoder(COMMANDS)
        for number in range(self._made, self._made + count):
            partition = number % PARTITIONS
            record = self._command(number, partition)
            yield partition, record["home_account"].encode(), encode(record)
        self._made += count

    def _command(self, number: int, partition: int) -> dict[str, Any]:
        turn = number // PARTITIONS
        if self.shape.mixed and (operation := self._operation(number, turn, partition)):
            return operation
        source = self._drawn[partition]()
        if turn % OVERDRAWN_EVERY == OVERDRAWN_EVERY - 1:
            source = self._random.choice(self._poor[partition])
        made = samples.transfer(f"bench-{number}", (source, self._payee(source, partition), 1))
        made["legs"][0]["amount_minor"] = self._random.randint(1, AMOUNT_MINOR_MAX)
        self._last[partition] = made
        return made

    def _operation(self, number: int, turn: int, partition: int) -> dict[str, Any] | None:
        """A repeat of the command before, a hold, or a capture of the hold before."""
        if turn % REPEATED_EVERY == 1:
            return self._last[partition]
        if turn % HELD_EVERY == 2:
            source = self._drawn[partition]()
            payee = self._payee(source, partition)
            self._held[partition] = samples.hold(f"bench-{number}", source, payee, 10)
            return self._held[partition]
        held = self._held[partition]
        if turn % HELD_EVERY == HELD_EVERY // 2 and held is not None:
            return samples.capture(f"bench-{number}", held, 10)
        return None

    def _payee(self, source: str, partition: int) -> str:
        home = partition
        if self._random.random() < self.shape.cross:
            home = (partition + self._random.randrange(1, PARTITIONS)) % PARTITIONS
        payee = self._drawn[home]()
        while payee == source:
            payee = self._random.choice(self._rich[home])
        return payee


def drawer(names: Sequence[Name], skew: float, random: Random) -> Callable[[], Name]:
    """Return a function that draws names: uniformly, or by Zipf's law, the first ones most."""
    if not skew:
        return lambda: random.choice(names)
    weights = list(itertools.accumulate(1 / rank**skew for rank in range(1, len(names) + 1)))
    return lambda: random.choices(names, cum_weights=weights)[0]


def _accounts(count: int) -> Iterator[Opened]:
    """`count` accounts with funds, spread evenly over the partitions, and a few without.

    Their ids are well-formed, and as random in their order as real ones, but not derived from a
    key: that takes a millisecond each.
    """
    rich = -(-count // PARTITIONS) * PARTITIONS
    for number in range(rich + POOR * PARTITIONS):
        slot = number % ids.SLOTS
        body = base64.b32encode(blake2b(b"%d" % number, digest_size=20).digest()).decode().lower()
        account_id = f"acct_c{slot:03x}_{body[: ids.IDENTITY_LENGTH]}"
        home = ids.partition_of(slot, PARTITIONS)
        yield Opened((number + 1) << 10 | home, account_id, home, FUNDS_MINOR * (number < rich))
