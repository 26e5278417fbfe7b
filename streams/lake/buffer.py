"""What has been read of one topic and not landed yet: when it is due, and what one commit takes of
it. Pure.

A commit takes at most `rows_max` records, partition after partition; of a partition that it takes
whole it lands up to the reader's position, which counts the markers behind the last record too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from streams.lake.bronze.decode import LogRecord
from streams.lake.bronze.landing import Batch, Chunk


@dataclass(slots=True)
class Buffer:
    """One topic's unlanded records. `stored` is where its table ends, per partition."""

    topic: str
    stored: dict[int, int]
    lost: dict[int, tuple[int, int]] = field(default_factory=dict)
    rows: int = 0
    bytes: int = 0
    since: float = 0.0
    _records: dict[int, list[LogRecord]] = field(default_factory=dict)

    def add(self, partition: int, records: Sequence[LogRecord], now: float) -> None:
        """Take what was read of a partition, in log order."""
        if not self.rows:
            self.since = now
        self._records.setdefault(partition, []).extend(records)
        self.rows += len(records)
        self.bytes += sum(len(record.value or b"") for record in records)

    def due(self, now: float, interval_s: float, rows_max: int) -> bool:
        """Tell whether it is time to land: a full batch, or the oldest record has waited."""
        return bool(self.rows) and (self.rows >= rows_max or now - self.since >= interval_s)

    @property
    def weight(self) -> tuple[int, int]:
        """Order buffers by how much memory landing them frees; an empty one comes last."""
        return self.bytes, self.rows

    def idle(self, partition: int) -> bool:
        """Tell whether nothing of this partition waits to land."""
        return not self._records.get(partition)

    def cut(self, positions: Mapping[int, int], rows_max: int, now: float) -> Batch:
        """Take the next batch out, given the reader's position in each partition."""
        chunks, room = [], rows_max
        for partition, position in sorted(positions.items()):
            held = self._records.get(partition, [])
            taken, left = held[:room], held[room:]
            first = self.stored.get(partition)
            end = position if not left else (taken[-1].offset + 1 if taken else first)
            if taken or (first is not None and end is not None and end > first):
                assert end is not None
                chunks.append(Chunk(partition, first, end, taken))
                self._records[partition] = left
                room -= len(taken)
        batch = Batch(self.topic, tuple(chunks), self.lost)
        self._account_for(batch, now)
        return batch

    def landed(self, batch: Batch) -> None:
        """Note that the table holds a batch."""
        self.stored |= batch.next

    def _account_for(self, batch: Batch, now: float) -> None:
        taken = batch.records
        self.rows -= len(taken)
        self.bytes -= sum(len(record.value or b"") for record in taken)
        self.since, self.lost = now, {}
        assert self.rows >= 0
        assert self.bytes >= 0
