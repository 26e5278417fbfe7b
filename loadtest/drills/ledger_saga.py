"""Brings what several homes must agree on to its end, as the streams' sagas do. Pure.

Fed with the ledger's events in order, it answers with commands: asks the other homes to prepare;
once all have, commits at each; when one refuses, or it gives up waiting, aborts at each. What it
asks twice is a repeat. What is only tried is asked of each home, and that is all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from loadtest.drills.ledger_words import agreed_on
from schemas.ids import command_id, slot_of

Record = dict[str, Any]


@dataclass(slots=True)
class _Saga:
    """A transfer or a reversal under way: which homes must agree, and which have."""

    asked: Record
    parts: list[str]
    agreed: set[int] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Sagas:
    """`asked` are the transfers that were asked for, by saga, and the reversals, by saga and
    identity; `open` those under way.

    `gives_up` is asked once a transfer: whether it is late, before any home has answered.
    """

    gives_up: Callable[[], bool] = lambda: False
    asked: dict[str, Record] = field(default_factory=dict)
    tried: dict[tuple[str, str], Record] = field(default_factory=dict)
    open: dict[str, _Saga] = field(default_factory=dict)
    _seen: dict[int, int] = field(default_factory=dict)

    def note(self, record: Record) -> None:
        """Remember what is asked for, as long as it is the first under its id."""
        if record["type"] == "transfer.post" and record["dry_run"]:
            self.tried[record["saga_id"], record["body_hash"]] = record
        elif record["type"] in {"transfer.post", "transfer.reverse"}:
            self.asked.setdefault(agreed_on(record), record)

    def answers(self, event: Record) -> Iterator[Record]:
        """Return the commands that follow from an event; one seen before is passed over."""
        partition, position = event["ledger_partition"], event["position"]
        if position <= self._seen.get(partition, 0):
            return
        self._seen[partition] = position
        name, kind = agreed_on(event), event["type"]
        if event["dry_run"]:
            yield from self._try(event)
            return
        if kind == "transfer.prepared" and event.get("parts") and not event["repeated"]:
            yield from self._begin(event)
        saga = self.open.get(name)
        if saga is None:
            return
        _, step, attempt = event["command_id"].split("/")
        if step.startswith("prepare") and attempt == "1" and not event["repeated"]:
            yield from self._prepared(saga, event)
        elif step.startswith(("commit", "abort")):
            saga.waiting.discard(event["home_account"])
            if not saga.waiting:
                del self.open[name]

    def _begin(self, event: Record) -> Iterator[Record]:
        name = agreed_on(event)
        asked = self.asked[name]
        if event["original_id"]:
            told = {key: event[key] for key in ("legs", "original_legs")}
            asked = {**asked, **told, "original_leg": None, "amount_minor": None}
        self.open[name] = saga = _Saga(asked, event["parts"], {event["ledger_partition"]})
        for number, part in enumerate(saga.parts[1:], 1):
            yield _asking("prepare", saga.asked, part, number)
        if self.gives_up():
            yield from _ending("abort", saga, {"reason": "homes_unavailable"})

    def _try(self, event: Record) -> Iterator[Record]:
        for number, part in enumerate(event["parts"]):
            if number:
                asked = self.tried[event["saga_id"], event["body_hash"]]
                yield _asking("prepare", asked, part, number)

    def _prepared(self, saga: _Saga, event: Record) -> Iterator[Record]:
        if saga.waiting:
            return  # it is ending already
        how, told = "commit", {}
        if event["type"] == "transfer.prepared":
            saga.agreed.add(event["ledger_partition"])
            if len(saga.agreed) < len(saga.parts):
                return
        else:
            how = "abort"
            told = {"reason": event["reason"], "failed_leg": event["failed_leg"]}
        yield from _ending(how, saga, told)


def _ending(how: str, saga: _Saga, told: Record) -> Iterator[Record]:
    saga.waiting = set(saga.parts)
    for number, part in enumerate(saga.parts):
        yield _asking(how, saga.asked, part, number) | told


def _asking(how: str, of: Record, part: str, number: int) -> Record:
    step = f"{how}-{number}" + (f"-{of['identity']}" if of["original_id"] else "")
    return {
        **of,
        "type": f"transfer.{how}",
        "step": step,
        "attempt": 1,
        "command_id": command_id(of["saga_id"], step, 1),
        "home_account": part,
        "slot": slot_of(part),
    }
