"""Which of the records read are applied together, and how far they reach. Pure.

Records below a partition's claim were applied before (they were fetched twice, or by an owner
before us) and are passed over. A batch that holds a value that can't be written is halved until the
record stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import Corrupt, Poisoned
from streams.views.rows import Event

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Item:
    """One decoded record, with the record it came from."""

    partition: Partition
    offset: int
    event: Event
    record: Any


@dataclass(slots=True)
class Batch:
    """`ends` holds the next offset of each partition once the items are applied and the letters
    sent.
    """

    items: list[Item] = field(default_factory=list)
    letters: list[tuple[Any, str]] = field(default_factory=list)
    ends: dict[Partition, int] = field(default_factory=dict)

    def add(
        self, partition: Partition, records: Sequence[Any], decode: Callable[[bytes], Event]
    ) -> None:
        """Take a partition's records, in log order, apart into items and dead letters."""
        for record in records:
            try:
                event = decode(record.value or b"")
            except Poisoned as error:
                self.letters.append((record, str(error)))
            else:
                self.items.append(Item(partition, record.offset, event, record))
        if records:
            self.ends[partition] = records[-1].offset + 1

    def halves(self) -> tuple[Batch, Batch]:
        """Split in log order; the first half ends behind its own last records."""
        assert len(self.items) > 1
        middle = len(self.items) // 2
        first, second = self.items[:middle], self.items[middle:]
        return Batch(first, [], {item.partition: item.offset + 1 for item in first}), Batch(
            second, [], self.ends
        )


def fresh(records: Sequence[Any], next_offset: int | None) -> Sequence[Any]:
    """Drop what was applied already."""
    if next_offset is None or not records or records[0].offset >= next_offset:
        return records
    return [record for record in records if record.offset >= next_offset]


def start_at(stored: int | None, log_first: int, log_end: int) -> tuple[int, int]:
    """Say where to read on, and how many offsets the log has dropped before they were applied.

    Raises Corrupt when the tables are ahead of the log: it was replaced, or has lost its end.
    """
    if stored is None:
        return log_first, 0
    if stored > log_end:
        raise Corrupt(f"the views end at offset {stored}, the log at {log_end}")
    return max(stored, log_first), max(0, log_first - stored)


def moved(claims: Mapping[Partition, int | None], ends: Mapping[Partition, int]) -> bool:
    """Tell whether offsets only rise; they never fall but by our own fault."""
    return all((claims.get(partition) or 0) <= end for partition, end in ends.items())
