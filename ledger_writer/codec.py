"""The codecs of every command: compiled ones where they were built, else the pure ones they equal.

Compiled ones (`fast.pyx`) repeat rules that other modules state, so they are used only as long as
none of these files has changed since they were held against each other: `TWINS`, by `STAMP`. After
a change, make `fast.pyx` follow, run `python -m ledger_writer.codec`, and build. Pure.
"""

from __future__ import annotations

import warnings
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ledger_writer import event, packing
from ledger_writer.columns import stored
from ledger_writer.command import read_command
from schemas.wire import decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ledger_writer.model import Command, Row

FOLDER: Final = Path(__file__).parent
STAMP_FILE: Final = FOLDER / "fast_stamp.pxi"
TWINS: Final = (
    *("fast.pyx", "fast_fields.pxi", "../schemas/fast_runtime.pxi"),
    *("command.py", "model.py", "columns.py", "packing.py", "event.py"),
    *("../schemas/ids.py", "../schemas/avro/ledger.commands.avsc"),
    "../schemas/avro/ledger.events.avsc",
)
"""What the compiled codecs are made of, and what they must agree with."""


def stamp() -> str:
    """Return a hash over the twins as they are now."""
    found = sha256()
    for name in TWINS:
        found.update(sha256((FOLDER / name).read_bytes()).digest())
    return found.hexdigest()


def pure_read(value: bytes | None, offset: int, timestamp_ms: int) -> Command:
    """Return the command in a record of `ledger.commands`; Poisoned when it has no meaning."""
    return read_command(decoder(event.COMMANDS)(value), offset, timestamp_ms)


def pure_packed_rows(row_type: int, rows: Sequence[Row]) -> bytes:
    """Return rows as an array of `ledger.new_row`, whose number is `row_type`."""
    return packing.packed_rows(row_type, [stored(row) for row in rows])


def _compiled() -> Any:
    try:
        fast: Any = import_module("ledger_writer.fast")
    except ImportError:  # built without a C compiler
        return None
    if stamp() == fast.STAMP:
        return fast
    warnings.warn(
        "ledger_writer.fast was built from other sources and is not used: run deploy/setup.sh",
        RuntimeWarning,
        stacklevel=2,
    )
    return None


FAST: Final = _compiled()
"""The compiled module, None where there is none of today's sources."""

read: Callable[[bytes | None, int, int], Command] = FAST.read if FAST else pure_read
packed_rows: Callable[[int, Sequence[Row]], bytes] = FAST.packed_rows if FAST else pure_packed_rows
packed_numbers: Callable[[Sequence[int]], bytes] = (
    FAST.packed_numbers if FAST else packing.packed_numbers
)
event_bytes: Callable[[Row], bytes] = FAST.event_bytes if FAST else event.event_bytes


def main() -> None:
    """Write the stamp."""
    STAMP_FILE.write_text(f'STAMP = "{stamp()}"\n')
    print(f"wrote {STAMP_FILE}")


if __name__ == "__main__":
    main()
