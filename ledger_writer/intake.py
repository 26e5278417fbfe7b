"""Turns records of the log into commands and dead letters. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ledger_writer import codec
from ledger_writer.model import Command
from ledger_writer.port import Record
from schemas.errors import Poisoned

if TYPE_CHECKING:
    from collections.abc import Sequence

TRACEPARENT: Final = "traceparent"


class Intake(msgspec.Struct, frozen=True):
    """One batch as it was taken. `traceparents` by offset, of those records that had one."""

    commands: list[Command]
    dead: list[tuple[Record, str]]
    traceparents: dict[int, bytes]
    next_offset: int


def read_records(records: Sequence[Record]) -> Intake:
    """Read every record; offsets may have gaps, so the next one follows the last one seen."""
    read = codec.read
    commands: list[Command] = []
    dead: list[tuple[Record, str]] = []
    traceparents: dict[int, bytes] = {}
    for record in records:
        try:
            command = read(record.value, record.offset, record.timestamp_ms)
        except Poisoned as poison:
            dead.append((record, str(poison)))
            continue
        commands.append(command)
        for name, value in record.headers:
            if name == TRACEPARENT:
                traceparents[record.offset] = value
    return Intake(commands, dead, traceparents, records[-1].offset + 1)
