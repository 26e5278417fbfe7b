"""Durable timers: which are due, and how one fires.

Pure. A pending timer is state under its name; firing takes it out of the state and writes it to
the task's timers topic, in one transaction, from where it comes back as a record. The due-order
entries only help to find due timers: one that does not match its timer's state (set again,
cancelled) is stale and is dropped without effect.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from streams.engine import keys
from streams.engine.context import Context
from streams.engine.task import Task


@dataclass(frozen=True, slots=True)
class Fired:
    """Which due-order entries were worked off, and how many timers fired."""

    entries: tuple[bytes, ...] = ()
    timers: int = 0


def fire(task: Task, context: Context, due: Iterable[bytes]) -> Fired:
    """Have the timers of these due-order entries fire with the batch in `context`."""
    entries = tuple(due)
    timers = 0
    for entry in entries:
        timer_key = keys.timer_key_of(entry)
        value = context.pending_timer(timer_key)
        if value is None or keys.time_of(value) != keys.due_of(entry):
            continue
        key = timer_key[:2] + keys.name_of(timer_key)
        context.send(task.timers_topic, context.partition, (key, value, ()))
        context.remove_timer(timer_key)
        timers += 1
    context.seal()
    return Fired(entries, timers)
