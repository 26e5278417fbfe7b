"""Proves a run of the ledger from what it left: every outcome and every balance. Pure.

The commands of all partitions are replayed against the plain model, commit by commit in the order
in which Postgres made them visible (see `ledger_watch`). What a command comes to is determined by
that order, except for what its partition knew of the others: it looked at some moment between its
own last commit and this one. An outcome is *determined* if it is the model's at the moment of the
commit, *permitted* if it is the model's at an earlier look within that span (a refusal that was
right when it was made), and a difference otherwise. Everything else is compared for equality.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from loadtest.drills import ledger_words as words
from loadtest.drills.ledger_model import Model
from loadtest.drills.ledger_state import Eyes, Row
from loadtest.drills.ledger_words import Outcome, Place, Record
from schemas.errors import Poisoned
from schemas.wire import decode

EVENTS: Final = "ledger.events"
GENESIS: Final = bytes(32).hex()


@dataclass(frozen=True, slots=True)
class Logged:
    """A record as it stands in a topic."""

    offset: int
    at_ms: int
    key: bytes | None
    value: bytes
    headers: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: which positions it wrote for which span of offsets."""

    partition: int
    position: int
    next_position: int
    offset: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a run left: topics by partition, commits in order, and tables by name."""

    partitions: int
    commands: Mapping[int, Sequence[Logged]]
    events: Mapping[int, Sequence[Logged]]
    dead: Mapping[int, Sequence[Logged]]
    commits: Sequence[Commit]
    tables: Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(slots=True)
class Proof:
    """What was found. `events` are the distinct ones by place; `rows` what the model says."""

    model: Model
    counts: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    events: dict[Place, Record] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    log_time_us: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    poisoned: Counter[int] = field(default_factory=Counter)


def replay(evidence: Evidence) -> Proof:
    """Replay every commit; stops at the first difference, since all else would rest on it."""
    proof = Proof(Model(evidence.partitions))
    proof.differences += _read_events(evidence, proof)
    if not proof.differences:
        for difference in _Replay(evidence, proof).run():
            proof.differences.append(difference)
            break
    if not proof.differences:
        proof.differences += _dead_letters(evidence)
    return proof


def _read_events(evidence: Evidence, proof: Proof) -> Iterator[str]:
    """One event a position, never ahead of its order; repeats are the same bytes."""
    seen: dict[Place, bytes] = {}
    for partition, records in evidence.events.items():
        highest = 0
        for record in records:
            try:
                told = decode(EVENTS, record.value)
            except Poisoned as poison:
                yield f"event at {partition}/{record.offset}: {poison}"
                continue
            position = told["position"]
            place = partition, position
            if position > highest + 1:
                yield f"event {place} comes right after {highest}"
            if seen.setdefault(place, record.value) != record.value:
                yield f"event {place} was published with other bytes"
            if record.key != told["home_account"].encode():
                yield f"event {place} has the key {record.key!r}"
            proof.counts["events republished"] += place in proof.events
            proof.events.setdefault(place, told)
            highest = max(highest, position)


def _dead_letters(evidence: Evidence) -> Iterator[str]:
    """What has no meaning was dead-lettered, byte for byte, and nothing else was."""
    for partition, records in evidence.commands.items():
        wanted = {r.offset: (r.key, r.value) for r in records if words.meaning(r.value) is None}
        found = {
            int(r.headers["dlq.offset"]): (r.key, r.value) for r in evidence.dead.get(partition, ())
        }
        if wanted != found:
            yield f"dead letters of {partition}: {sorted(found)}, not {sorted(wanted)}"


class _Replay:
    """The walk over the commits."""

    def __init__(self, evidence: Evidence, proof: Proof) -> None:
        self._evidence = evidence
        self._proof = proof
        self._model = proof.model
        self._queues = {p: list(records) for p, records in evidence.commands.items()}
        self._position = dict.fromkeys(evidence.commands, 1)
        self._offset = dict.fromkeys(evidence.commands, 0)
        self._last: Counter[int] = Counter()

    def run(self) -> Iterator[str]:
        """Say what differs, in order."""
        for number, commit in enumerate(self._evidence.commits, 1):
            self._model.commit = number
            yield from self._commit(commit)
            yield from self._broken(commit.partition)
            self._last[commit.partition] = number
        for partition, left in self._queues.items():
            if left:
                yield f"{len(left)} commands of {partition} were never decided"
        extra = len(self._proof.events) - sum(self._position.values()) + len(self._position)
        if extra:
            yield f"{extra} events tell of no commit"

    def _commit(self, commit: Commit) -> Iterator[str]:
        partition, queue = commit.partition, self._queues[commit.partition]
        began = self._offset[partition], self._position[partition]
        if (commit.offset, commit.position) != began:
            yield f"a commit of {partition} goes on from {commit}, not from {began}"
        while queue and queue[0].offset < commit.next_offset:
            logged = queue.pop(0)
            record = words.meaning(logged.value)
            if record is None:
                self._proof.poisoned[partition] += 1
                continue
            place = partition, self._position[partition]
            self._position[partition] += 1
            now_us = max(self._proof.log_time_us[partition], logged.at_ms * 1000)
            self._proof.log_time_us[partition] = now_us
            yield from self._command(record, place, logged.offset, now_us)
        self._offset[partition] = commit.next_offset
        if self._position[partition] != commit.next_position:
            yield f"a commit of {partition} has other rows than commands: {commit}"

    def _command(self, record: Record, place: Place, offset: int, now_us: int) -> Iterator[str]:
        proof, model = self._proof, self._model
        found = proof.events.get(place)
        if found is None:
            yield f"{place} has no event"
            return
        actual = {name: it for name, it in found.items() if name not in words.TOLD_BY_OTHERS}
        proof.counts["commands"] += 1
        proof.outcomes[f"{found['type']} {found['reason'] or ''}".strip()] += 1
        first = model.first(record)
        if first is not None and _same(record, first.record):
            proof.counts["repeats"] += 1
            told = first.told | {"repeated": True}
            wanted = words.event(record, place, offset, now_us, told)
            if wanted != actual:
                yield _differs(place, record, wanted, actual)
            return
        for eyes in self._looks(place[0], found):
            outcome = model.decide(record, place[0], now_us, eyes)
            entries = self._entries(place[0], outcome)
            told = words.told_of(record, outcome, now_us, entries) | {"repeated": False}
            wanted = words.event(record, place, offset, now_us, told)
            if wanted == actual:
                now = eyes.rows == model.commit - 1
                proof.counts["determined" if now else "permitted"] += 1
                proof.counts["transfers"] += bool(outcome.moves)
                model.apply(Row(place, model.commit, record, told), outcome.moves)
                return
        latest = model.commit - 1
        outcome = model.decide(record, place[0], now_us, Eyes(latest, latest, latest))
        told = words.told_of(record, outcome, now_us, self._entries(place[0], outcome))
        wanted = words.event(record, place, offset, now_us, told | {"repeated": False})
        yield _differs(place, record, wanted, actual)

    def _looks(self, partition: int, found: Record) -> Iterator[Eyes]:
        """Return the moments at which this partition may have looked, the latest first.

        It looks for rows, then for accounts, then at balances. A closing counts as of its commit.
        """
        latest = self._model.commit - 1
        yield Eyes(latest, latest, latest)
        if found["type"] == "account.closed":
            return
        span = range(latest, self._last[partition] - 1, -1)
        for rows in span:
            for accounts in span:
                for balances in span:
                    if rows <= accounts <= balances and rows < latest:
                        yield Eyes(rows, accounts, balances)

    def _entries(self, partition: int, outcome: Outcome) -> list[Record]:
        after: dict[str, list[int]] = {}
        entries = []
        for move in outcome.moves:
            share = self._model.shares[move.account_id, partition]
            state = after.setdefault(move.account_id, [share.version, share.posted, share.held])
            state[0] += 1
            state[1] += move.amount_minor
            state[2] += move.held_minor
            entries.append(
                {
                    "account_id": move.account_id,
                    "share": partition,
                    "version": state[0],
                    "amount_minor": move.amount_minor,
                    "currency": self._model.accounts[move.account_id].currency,
                    "posted_minor": state[1],
                    "held_minor": state[2],
                }
            )
        return entries

    def _broken(self, partition: int) -> Iterator[str]:
        """Say which of the promises does not hold after this commit."""
        model, sums = self._model, Counter[str]()
        posted, held, set_aside = Counter[str](), Counter[str](), Counter[str]()
        for (account_id, _), share in model.shares.items():
            posted[account_id] += share.posted
            held[account_id] += share.held
        for hold in model.holds.values():
            set_aside[hold.leg["source"]] += hold.remaining
        for link in model.links.values():
            if link.kind == "debit" and link.state == "open":
                set_aside[link.leg["source"]] += link.leg["amount_minor"]
        for account in model.accounts.values():
            name = account.account_id
            sums[account.currency] += posted[name]
            available = posted[name] - held[name]
            if account.floor is not None and available < account.floor:
                yield f"{name} has {available} available after a commit of {partition}"
            if account.cap is not None and posted[name] > account.cap:
                yield f"{name} has {posted[name]}, above its cap"
            if account.closed and (posted[name] or held[name]):
                yield f"{name} is closed and has {posted[name]}, held {held[name]}"
            if held[name] != set_aside[name]:
                yield f"{name} holds {held[name]}, its holds come to {set_aside[name]}"
        if any(sums.values()):
            yield f"debits and credits differ: {dict(sums)}"


def _same(record: Record, first: Record) -> bool:
    return all(record[name] == first[name] for name in ("body_hash", "tenant", "saga_id"))


def _differs(place: Place, record: Record, wanted: Record, actual: Record) -> str:
    names = [name for name in wanted.keys() | actual.keys() if wanted.get(name) != actual.get(name)]
    shown = {name: (wanted.get(name), actual.get(name)) for name in sorted(names)}
    return f"{place} {record['type']} {record['saga_id']}: (model, ledger) {shown}"
