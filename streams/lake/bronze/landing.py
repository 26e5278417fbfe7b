"""Which records a commit lands, and between which offsets. Pure.

A batch says for each partition: the table's next offset is `first`, these are the committed records
from there, and after them it is `next`. Offsets have gaps (transaction markers, compaction), so
`next` is the reader's position, never a count. A batch lands only on a table whose offsets are
still the batch's firsts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from schemas.errors import Corrupt
from streams.lake.bronze.decode import LogRecord

_OFFSET: Final = "sink.offset."
_LOST: Final = "sink.lost."


@dataclass(frozen=True, slots=True)
class Chunk:
    """One partition's part of a batch; `first` is None where its table holds nothing of it yet."""

    partition: int
    first: int | None
    next: int
    records: Sequence[LogRecord]

    def __post_init__(self) -> None:
        assert self.first is None or self.first <= self.next, "offsets only rise"


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit of a topic lands; `lost` maps partitions to ranges the log no longer has."""

    topic: str
    chunks: tuple[Chunk, ...]
    lost: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def records(self) -> list[LogRecord]:
        """All records, partition after partition, in log order within each."""
        return [record for chunk in self.chunks for record in chunk.records]

    @property
    def next(self) -> dict[int, int]:
        """The offsets that the table holds after it."""
        return {chunk.partition: chunk.next for chunk in self.chunks}


def offsets_of(properties: Mapping[str, str]) -> dict[int, int]:
    """Read the next offset to land, per partition, from a table's properties."""
    return {
        int(name.removeprefix(_OFFSET)): int(value)
        for name, value in properties.items()
        if name.startswith(_OFFSET)
    }


def offset_properties(offsets: Mapping[int, int]) -> dict[str, str]:
    """Write next offsets as table properties."""
    return {f"{_OFFSET}{partition}": str(offset) for partition, offset in offsets.items()}


def lost_properties(lost: Mapping[int, tuple[int, int]]) -> dict[str, str]:
    """Write ranges of offsets that were gone before they could land:
    `sink.lost.<partition>.<first>`.
    """
    return {f"{_LOST}{partition}.{first}": str(end) for partition, (first, end) in lost.items()}


def continues(stored: Mapping[int, int], batch: Batch) -> bool:
    """Tell whether the batch begins exactly where the table ends, in each of its partitions."""
    return all(stored.get(chunk.partition) == chunk.first for chunk in batch.chunks)


def unrejected(batch: Batch, rejected: Mapping[int, frozenset[int]]) -> list[LogRecord]:
    """Drop what already stands in the table of rejects (a crash fell between the two tables)."""
    if not rejected:
        return batch.records
    nothing: frozenset[int] = frozenset()
    return [
        record
        for chunk in batch.chunks
        for record in chunk.records
        if record.offset not in rejected.get(chunk.partition, nothing)
    ]


def still_ahead(rejected: Mapping[int, frozenset[int]], batch: Batch) -> dict[int, frozenset[int]]:
    """Keep the rejects that lie beyond what the batch has landed."""
    ends = batch.next
    ahead = {
        partition: frozenset(offset for offset in offsets if offset >= ends.get(partition, 0))
        for partition, offsets in rejected.items()
    }
    return {partition: offsets for partition, offsets in ahead.items() if offsets}


def start_at(stored: int | None, log_first: int, log_end: int) -> int:
    """Say where to read on, given the log's bounds; above `stored`, the offsets between are lost.

    Raises Corrupt when the table is ahead of the log: the log was replaced or has lost its end, and
    other records would land under offsets that the table already holds.
    """
    if stored is None:
        return log_first
    if stored > log_end:
        raise Corrupt(f"the table ends at offset {stored}, the log at {log_end}")
    return max(stored, log_first)
