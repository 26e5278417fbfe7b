"""Record batches in the making: a partition's records in the bytes that a broker stores.

Compiled (`fast.pyx`) where that was built and the processor computes the checksum: a third of what
the client's encoder costs, which takes its place elsewhere, without the object that the client
wraps around it. One batch is bounded in bytes; more records make several, in order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final, Protocol

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from streams.engine.context import Out
from streams.engine.faults import Refused

try:
    _fast: Any = import_module("streams.engine.fast")
except ImportError:  # built without a C compiler
    _fast = None

BATCH_BYTES: Final = 512 * 1024
"""Bytes of one record batch."""

COMPILED: Final[bool] = _fast is not None and _fast.CHECKSUMS

_MAGIC: Final = 2
_PLAIN: Final = 0
_TRANSACTIONAL: Final = 1
_UNKNOWN: Final = -1
_NO_HEADERS: Final[list[tuple[str, bytes | None]]] = []

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
"""First offset, length from the leader's epoch on, that epoch, magic, checksum; and what that is
of: attributes, last offset, first and last time, producer and its epoch, first number, records.
"""
_LENGTH_FROM: Final = 12
_CHECKSUM: Final = struct.Struct(">I")
_CHECKSUM_AT: Final = 17
_CHECKSUM_FROM: Final = 21
_ATTRIBUTES: Final = 0x10
"""Of a transaction, not compressed, with the time that it was made."""


class Unsent(Protocol):
    """A batch of `records` records that has no number yet; it is built once."""

    records: int

    def build(self, producer_id: int, epoch: int, first: int) -> bytearray:
        """Return its bytes, as this producer's records from the `first` on."""


def pack(outs: Iterable[Out], at_ms: int, *, compiled: bool = COMPILED) -> list[Unsent]:
    """Put records into batches, one at least; Refused when one is not made of bytes.

    `compiled=False` asks for the client's encoder; both give the same bytes.
    """
    try:
        if not compiled:
            return _packed_by_client(outs, at_ms)
        packed = _fast.pack(outs, _HEADER.size, BATCH_BYTES)
    except (TypeError, ValueError, UnicodeError) as error:
        raise Refused(f"not bytes: {error}") from error
    return [_Packed(data, records, at_ms) for data, records in packed]


class _Packed:
    """Records behind room for the header."""

    __slots__ = ("_at_ms", "_data", "records")

    def __init__(self, data: bytearray, records: int, at_ms: int) -> None:
        self._data = data
        self._at_ms = at_ms
        self.records = records

    def build(self, producer_id: int, epoch: int, first: int) -> bytearray:
        data, records = self._data, self.records
        at_ms = self._at_ms if records else _UNKNOWN
        size, last = len(data) - _LENGTH_FROM, max(records - 1, 0)
        own = (producer_id, epoch, first, records)
        _HEADER.pack_into(
            data, 0, 0, size, _UNKNOWN, _MAGIC, 0, _ATTRIBUTES, last, at_ms, at_ms, *own
        )
        _CHECKSUM.pack_into(data, _CHECKSUM_AT, _fast.checksum(data, _CHECKSUM_FROM))
        return data


class _Built:
    """Records in the client's builder."""

    __slots__ = ("_builder", "records")

    def __init__(self, builder: DefaultRecordBatchBuilder, records: int) -> None:
        self._builder = builder
        self.records = records

    def build(self, producer_id: int, epoch: int, first: int) -> bytearray:
        self._builder.set_producer_state(producer_id, epoch, first)
        built: bytearray = self._builder.build()
        return built


def _packed_by_client(outs: Iterable[Out], at_ms: int) -> list[Unsent]:
    batches: list[Unsent] = []
    builder, count = _builder(), 0
    append = builder.append
    for key, value, given in outs:
        headers = list(given) if given else _NO_HEADERS
        if append(count, at_ms, key, value, headers) is None:
            batches.append(_Built(builder, count))
            builder, count = _builder(), 0
            append = builder.append
            taken = append(count, at_ms, key, value, headers)
            assert taken is not None, "an empty batch takes any record"
        count += 1
    batches.append(_Built(builder, count))
    return batches


def _builder() -> DefaultRecordBatchBuilder:
    return DefaultRecordBatchBuilder(
        _MAGIC, _PLAIN, _TRANSACTIONAL, _UNKNOWN, _UNKNOWN, 0, BATCH_BYTES
    )
