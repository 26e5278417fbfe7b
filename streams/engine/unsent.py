"""Record batches in the making: a partition's records in the bytes that a broker stores.

The client's encoder without the object that the client wraps around it, which would cost a call
for every record. One batch is bounded in bytes; more records make several, in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from streams.engine.context import Out
from streams.engine.faults import Refused

BATCH_BYTES: Final = 512 * 1024
"""Bytes of one record batch."""

_MAGIC: Final = 2
_PLAIN: Final = 0
_TRANSACTIONAL: Final = 1
_UNKNOWN: Final = -1
_NO_HEADERS: Final[list[tuple[str, bytes | None]]] = []


class Unsent:
    """A batch of `records` records that has no number yet; it is built once."""

    __slots__ = ("_builder", "records")

    def __init__(self, builder: DefaultRecordBatchBuilder, records: int) -> None:
        self._builder = builder
        self.records = records

    def build(self, producer_id: int, epoch: int, first: int) -> bytearray:
        """Return its bytes, as this producer's records from the `first` on."""
        self._builder.set_producer_state(producer_id, epoch, first)
        built: bytearray = self._builder.build()
        return built


def pack(outs: Iterable[Out], at_ms: int) -> list[Unsent]:
    """Put records into batches, one at least; Refused when one is not made of bytes."""
    batches = []
    builder, count = _builder(), 0
    append = builder.append
    try:
        for key, value, given in outs:
            headers = list(given) if given else _NO_HEADERS
            if append(count, at_ms, key, value, headers) is None:
                batches.append(Unsent(builder, count))
                builder, count = _builder(), 0
                append = builder.append
                taken = append(count, at_ms, key, value, headers)
                assert taken is not None, "an empty batch takes any record"
            count += 1
    except (TypeError, ValueError, UnicodeError) as error:
        raise Refused(f"not bytes: {error}") from error
    batches.append(Unsent(builder, count))
    return batches


def _builder() -> DefaultRecordBatchBuilder:
    return DefaultRecordBatchBuilder(
        _MAGIC, _PLAIN, _TRANSACTIONAL, _UNKNOWN, _UNKNOWN, 0, BATCH_BYTES
    )
