"""What the ledger drills feed: seeded commands on few accounts, many of them meant to be refused.

Accounts are few and moments are close, so that partitions meet: freezes and closings race credits
from elsewhere, keys are used twice, accounts are named before they are opened. Weights are drawn
per seed, so that each run is a storm of its own kind. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from ledger_writer import samples
from loadtest.drills.ledger_cast import FOREIGN_CURRENCY, Cast
from schemas.ids import partition_of
from schemas.wire import encode

Record = dict[str, Any]

COMMANDS: Final = "ledger.commands"
AMOUNT_MINOR_MAX: Final = 160
FUND_MINOR_MAX: Final = 300
FIRST_MINOR: Final = 250
REPEAT, CONFLICT, POISON, MISROUTED, SKEW = 0.05, 0.04, 0.01, 0.005, 0.02
SKEW_MS: Final = 60_000
STEADY: Final = {"fund": 4.0, "pay": 6.0, "hold": 1.5}
SWARM: Final = {
    "legs": 3.0, "exchange": 2.0, "reject": 0.6, "try": 1.0, "capture": 5.0,
    "void": 1.5, "expire": 2.0, "reverse": 4.0, "freeze": 0.8, "unfreeze": 1.6, "close": 0.8,
    "open": 0.8, "cross": 1.0,
}  # fmt: skip
"""How often each kind is drawn, at most; a seed leaves some out."""


@dataclass(frozen=True, slots=True)
class Fed:
    """A record to write."""

    partition: int
    key: bytes
    value: bytes
    at_ms: int


@dataclass(slots=True)
class Load:
    """Makes a run's records, one after the other; the same for the same seed and start."""

    seed: int
    partitions: int
    start_ms: int
    kinds: dict[str, float] = field(default_factory=dict)
    _rng: Random = field(default_factory=Random)
    _made: list[Record] = field(default_factory=list)
    _placed: list[Record] = field(default_factory=list)
    _paid: list[Record] = field(default_factory=list)
    _at_ms: int = 0

    def records(self, count: int, favored: dict[str, float]) -> Iterator[Fed]:
        """Open the accounts, then `count` commands and what goes with some of them."""
        rng = self._rng = Random(self.seed)
        self._at_ms = self.start_ms
        drawn = {
            kind: rng.choice((0.0, rng.uniform(0.2, 1) * most)) for kind, most in SWARM.items()
        }
        self.kinds = STEADY | drawn | favored
        cast = Cast.of(self.partitions)
        yield from (self._fed(record) for record in cast.opening)
        for payer in cast.payers:
            made = samples.transfer(f"{payer}-first", (rng.choice(cast.banks), payer, FIRST_MINOR))
            self._paid.append(made)
            yield self._fed(made)
        for number in range(count):
            yield from self._some(number, cast)

    def _some(self, number: int, cast: Cast) -> Iterator[Fed]:
        rng = self._rng
        record = self._command(f"{self.seed}-{number}", cast)
        self._made.append(record)
        if rng.random() < POISON:
            yield self._poison(record)
        if rng.random() < MISROUTED:
            yield self._fed(record, rng.randrange(self.partitions))
        else:
            yield self._fed(record)
        if record["type"] in {"account.close", "account.freeze"}:
            yield from self._racing(record["account_id"], number, cast)

    def _racing(self, account_id: str, number: int, cast: Cast) -> Iterator[Fed]:
        """Credit an account from every other partition at the moment that it is stopped."""
        for each in cast.payers[: self.partitions]:
            if each != account_id:
                key = f"{self.seed}-{number}-late-{each}"
                bank = self._rng.choice(cast.banks)
                made = samples.transfer(key, (bank, account_id, 1), home=each)
                self._paid.append(made)
                yield self._fed(made)

    def _command(self, key: str, cast: Cast) -> Record:
        rng = self._rng
        if self._made and rng.random() < REPEAT:
            again = rng.choice(self._made)
            return again if rng.random() < 0.7 else {**again, "attempt": again["attempt"] + 1}
        if self._made and rng.random() < CONFLICT:
            key = f"{self.seed}-{rng.randrange(len(self._made))}"
        kind = rng.choices(list(self.kinds), list(self.kinds.values()))[0]
        if kind in {"capture", "void", "expire"} and not self._placed:
            kind = "hold"
        made = self._maker(kind)(key, cast)
        if made["type"] in {"transfer.post", "hold.place"} and not made["dry_run"]:
            self._paid.append(made)
        if made["type"] == "hold.place":
            self._placed.append(made)
        return made

    # -- kinds of commands -----------------------------------------------------------------------

    def _maker(self, kind: str) -> Callable[[str, Cast], Record]:
        maker: Callable[[str, Cast], Record] = getattr(self, f"_{kind}")
        return maker

    def _amount(self) -> int:
        return self._rng.randint(1, AMOUNT_MINOR_MAX)

    def _extras(self) -> Record:
        """Some fields that few commands have."""
        rng = self._rng
        more: Record = {}
        if rng.random() < 0.1:
            more["reference"] = f"order {rng.randrange(50)}"
        if rng.random() < 0.1:
            more["metadata"] = {"shop": f"Zürich {rng.randrange(9)}", 'with "quotes"': "\\"}
        if rng.random() < 0.1:
            more["effective_at_us"] = (self.start_ms - rng.randrange(10**9)) * 1000
        return more

    def _fund(self, key: str, cast: Cast) -> Record:
        rng = self._rng
        if rng.random() < 0.15:
            movement = rng.choice(cast.dollar_banks), rng.choice(cast.dollars)
        else:
            movement = rng.choice(cast.banks), rng.choice(cast.payers * 4 + cast.late)
        made = samples.transfer(key, (*movement, rng.randint(1, FUND_MINOR_MAX)))
        currency = FOREIGN_CURRENCY if movement[0] in cast.dollar_banks else samples.CURRENCY
        return _in(currency, made)

    def _pay(self, key: str, cast: Cast) -> Record:
        rng = self._rng
        anyone = cast.payers * 6 + cast.banks + cast.late + cast.strangers + cast.dollars
        payer, payee = rng.choice(cast.payers), rng.choice(anyone)
        return samples.transfer(key, (payer, payee, self._amount()), **self._extras())

    def _legs(self, key: str, cast: Cast) -> Record:
        """Several legs out of accounts of one home; some pass money on."""
        rng = self._rng
        payer = rng.choice(cast.payers)
        movements = [(payer, rng.choice(cast.payers), self._amount())]
        for _ in range(rng.randint(1, 4)):
            source = rng.choice([payer, payer, movements[-1][1], *cast.banks])
            movements.append((source, rng.choice(cast.payers + cast.banks), self._amount()))
        return samples.transfer(key, *movements, **self._extras())

    def _exchange(self, key: str, cast: Cast) -> Record:
        """Euros for dollars through two banks: legs of one currency each, all or nothing."""
        rng = self._rng
        euros, dollars = rng.choice(cast.payers), rng.choice(cast.dollars)
        made = samples.transfer(
            key,
            (euros, rng.choice(cast.banks), self._amount()),
            (rng.choice(cast.dollar_banks), dollars, self._amount()),
        )
        if rng.random() < 0.9:
            made["legs"][1]["currency"] = FOREIGN_CURRENCY
        return made

    def _cross(self, key: str, cast: Cast) -> Record:
        """Name a home that is another account's."""
        rng = self._rng
        payer, payee, home = (rng.choice(cast.payers) for _ in range(3))
        source = rng.choice([payer, *cast.banks])
        return samples.transfer(key, (source, payee, self._amount()), home=home)

    def _reject(self, key: str, cast: Cast) -> Record:
        return samples.reject(key, self._rng.choice(cast.payers), "velocity_limit")

    def _try(self, key: str, cast: Cast) -> Record:
        made = self._rng.choice((self._pay, self._legs, self._hold))(key, cast)
        return {**made, "dry_run": True}

    def _hold(self, key: str, cast: Cast) -> Record:
        rng = self._rng
        expires_at_us = rng.choice((None, (self._at_ms + rng.randint(0, 200)) * 1000))
        payer = rng.choice(cast.payers * 3 + cast.banks)
        payee = rng.choice(cast.payers * 3 + cast.banks)
        return samples.hold(key, payer, payee, self._amount(), expires_at_us=expires_at_us)

    def _capture(self, key: str, cast: Cast) -> Record:
        del cast
        part = self._rng.choice((None, self._rng.randint(1, 40)))
        return samples.capture(key, self._lately(self._placed), part)

    def _void(self, key: str, cast: Cast) -> Record:
        del cast
        return samples.void(key, self._lately(self._placed))

    def _expire(self, key: str, cast: Cast) -> Record:
        del key, cast
        return samples.expire(self._lately(self._placed), self._rng.randint(1, 3))

    def _reverse(self, key: str, cast: Cast) -> Record:
        del cast
        rng, original = self._rng, self._lately(self._paid)
        leg = rng.randrange(len(original["legs"]))
        if rng.random() < 0.5:
            part = self._amount() if rng.random() < 0.3 else None  # several legs: whole, or refused
            return samples.reverse(key, original, part)
        part = rng.choice((None, self._amount()))
        return samples.reverse(key, original, part, original_leg=leg)

    def _freeze(self, key: str, cast: Cast) -> Record:
        return self._flags("account.freeze", key, cast)

    def _unfreeze(self, key: str, cast: Cast) -> Record:
        return self._flags("account.unfreeze", key, cast)

    def _flags(self, kind: str, key: str, cast: Cast) -> Record:
        rng = self._rng
        ways: Record = {"debits": rng.choice((None, True)), "credits": rng.choice((None, True))}
        return samples.flags(
            kind, key, rng.choice(cast.payers * 2 + cast.banks + cast.late), **ways
        )

    def _close(self, key: str, cast: Cast) -> Record:
        account_id = self._rng.choice(cast.payers + cast.late + cast.doomed * 2)
        return samples.flags("account.close", key, account_id)

    def _open(self, key: str, cast: Cast) -> Record:
        del key
        rng = self._rng
        wrong: Record = rng.choice(
            ({}, {}, {}, {"currency": "EUX"}, {"min_balance_minor": 5}, {"max_balance_minor": -1})
        )
        return samples.open_account(rng.choice(cast.late + cast.payers[:2]), **wrong)

    def _lately(self, made: list[Record]) -> Record:
        """Choose among all, more often among the last."""
        rng = self._rng
        return rng.choice(made[-6:] if rng.random() < 0.7 else made)

    # -- records ---------------------------------------------------------------------------------

    def _fed(self, record: Record, partition: int | None = None) -> Fed:
        home = partition_of(record["slot"], self.partitions)
        key = record["home_account"].encode()
        at_ms = self._tick()
        return Fed(home if partition is None else partition, key, encode(COMMANDS, record), at_ms)

    def _poison(self, record: Record) -> Fed:
        rng = self._rng
        value = encode(COMMANDS, record | rng.choice(SPOILED))
        value = rng.choice((value, value, b"not a command", b"", value[:-3]))
        return Fed(rng.randrange(self.partitions), b"poison", value, self._tick())

    def _tick(self) -> int:
        """Return the next record's time: one millisecond on, and now and then far off."""
        self._at_ms += 1
        far = self._rng.random() < SKEW
        return self._at_ms + (self._rng.randint(-SKEW_MS, SKEW_MS) if far else 0)


SPOILED: Final[tuple[Record, ...]] = (
    {"type": "transfer.conjure"},
    {"type": "transfer.post", "legs": []},
    {"attempt": 0},
    {"body_hash": "not a hash"},
    {"tenant": "a\0b"},
    {"home_account": "nobody"},
    {"step": ""},
    {"saga_id": ""},
)
"""What makes a command meaningless, whatever it was before."""


def _in(currency: str, record: Record) -> Record:
    for leg in record["legs"]:
        leg["currency"] = currency
    return record
