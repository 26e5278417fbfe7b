"""What a consumer makes of each record that it has fetched: as little as its reader needs.

aiokafka makes an object of twelve fields of every record, which takes longer than to read it. Its
public hooks come after that, so what it has fetched is told what to make when it is filed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from aiokafka import TopicPartition

Make = Callable[[TopicPartition, Any], Any]
"""From where a record lies, and the client's own view of it, to what `getmany` returns."""


class Raw(msgspec.Struct, gc=False):
    """A fetched record; `timestamp` in milliseconds."""

    topic: str
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


def raw(tp: TopicPartition, record: Any) -> Raw:
    """Make what a batch needs of a record; of most, which have no headers, one empty tuple."""
    headers = record.headers or ()
    return Raw(tp.topic, record.offset, record.timestamp, record.key, record.value, headers)


def change(_tp: TopicPartition, record: Any) -> tuple[bytes, bytes | None]:
    """Make what a restore needs of a changelog's record."""
    return record.key, record.value


def makes(consumer: Any, make: Make) -> None:
    """Have a consumer that was started, and has fetched nothing yet, return what `make` does."""
    fetcher = consumer._fetcher  # noqa: SLF001
    assert not fetcher._records, "records were fetched before"  # noqa: SLF001
    fetcher._records = _Filed(make)  # noqa: SLF001


class _Filed(OrderedDict[TopicPartition, Any]):
    """The fetcher's answers and errors by partition."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        self._make = make

    def __setitem__(self, tp: TopicPartition, result: Any) -> None:
        records = getattr(result, "_partition_records", None)
        if records is not None:
            records._consumer_record = self._make  # noqa: SLF001
        super().__setitem__(tp, result)
