"""Bytes of the log to Arrow rows of a bronze table; what does not decode is rejected, never
dropped.

Rows out plus rejects equal records in, in log order. The bulk decoder (Rust) is trusted only where
encoding its rows again gives the very bytes that came in; every other record is read by fastavro,
one at a time, which decides alone. Records are read with the schema they were written with: a
column they do not have is null. Pure.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Protocol

import fastavro
import pyarrow as pa
import pyruhvro

from schemas.errors import Poisoned
from schemas.wire import FRAME_BYTES, lock, schema_id_of, writer_schema
from streams.lake.bronze.tables import (
    LOG_COLUMNS,
    RAW_COLUMNS,
    REJECT_SCHEMA,
    BronzeTable,
    table_of,
)

_DECODE_ERRORS: Final = (
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    StopIteration,
    OverflowError,
    MemoryError,
    struct.error,
)


class LogRecord(Protocol):
    """A record as the Kafka client hands it over."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that does not decode, and why."""

    record: LogRecord
    error: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """`rows` fit the table's schema; len(rows) + len(rejects) is the number of records."""

    rows: pa.Table
    rejects: list[Reject]


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one schema id: payload columns, and the index of each row's record."""

    payload: pa.Table
    kept: list[int]


def decode(topic: str, records: Sequence[LogRecord]) -> Decoded:
    """Turn records of one topic into rows of its table."""
    table = table_of(topic)
    if table.rejects is None:
        return Decoded(_raw(records), [])
    rejected: dict[int, str] = {}
    parts = [
        _decode_group(table, schema_id, indexes, records, rejected)
        for schema_id, indexes in _by_schema_id(topic, records, rejected).items()
    ]
    rows = _assemble(table, [part for part in parts if part.kept], records)
    rejects = [Reject(records[index], rejected[index]) for index in sorted(rejected)]
    assert rows.num_rows + len(rejects) == len(records), "a record is a row or a reject"
    return Decoded(rows, rejects)


def reject_rows(topic: str, rejects: Sequence[Reject]) -> pa.Table:
    """Turn rejects into rows of the topic's table of rejects: the bytes, and why."""
    records = [reject.record for reject in rejects]
    columns = [
        pa.repeat(topic, len(rejects)),
        pa.array([record.partition for record in records], pa.int32()),
        pa.array([record.offset for record in records], pa.int64()),
        pa.array([record.timestamp for record in records], pa.int64()),
        pa.array([record.key for record in records], pa.binary()),
        pa.array([record.value for record in records], pa.binary()),
        _headers(records),
        pa.array([reject.error for reject in rejects], pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=REJECT_SCHEMA)


def _by_schema_id(
    topic: str, records: Sequence[LogRecord], rejected: dict[int, str]
) -> dict[int, list[int]]:
    """Group the indexes of framed records by schema id; put the others into `rejected`."""
    known = _ids_of(topic)
    groups: dict[int, list[int]] = {}
    for index, record in enumerate(records):
        try:
            schema_id = schema_id_of(record.value or b"")
        except Poisoned as error:
            rejected[index] = str(error)
            continue
        if schema_id in known:
            groups.setdefault(schema_id, []).append(index)
        else:
            rejected[index] = f"schema id {schema_id} is not one of {topic}'s"
    return groups


def _decode_group(
    table: BronzeTable,
    schema_id: int,
    indexes: list[int],
    records: Sequence[LogRecord],
    rejected: dict[int, str],
) -> _Part:
    bodies = [_body(records[index]) for index in indexes]
    payload = None if table.holds_bytes else _bulk(bodies, writer_schema(schema_id))
    if payload is not None:
        return _Part(payload, indexes)
    target = _payload_schema(table)
    kept, values = [], []
    for index, body in zip(indexes, bodies, strict=True):
        try:
            values.append(_read(body, schema_id))
            kept.append(index)
        except Poisoned as error:
            rejected[index] = str(error)
    try:
        return _Part(pa.Table.from_pylist(values, schema=target), kept)
    except (pa.ArrowInvalid, OverflowError):
        return _convert_each(values, kept, target, rejected)


def _bulk(bodies: list[bytes], schema: str) -> pa.Table | None:
    """Decode all bodies at once; None when any of them is not exactly one record."""
    try:
        batch = pyruhvro.deserialize_array(bodies, schema)
        again = pyruhvro.serialize_record_batch(batch, schema, 1)
    except ValueError:
        return None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how Rust's panic arrives in Python
            raise
        return None
    if not again[0].equals(pa.array(bodies, pa.binary())):
        return None
    return pa.Table.from_batches([batch])


def _read(body: bytes, schema_id: int) -> dict[str, Any]:
    """Read exactly one record with the schema it was written with; Poisoned otherwise."""
    source = io.BytesIO(body)
    try:
        record = fastavro.schemaless_reader(source, _parsed(schema_id), None)
    except _DECODE_ERRORS as error:
        raise Poisoned(f"the bytes do not decode with schema {schema_id}: {error}") from error
    if source.tell() != len(body):
        raise Poisoned(f"{len(body) - source.tell()} bytes follow the record")
    assert isinstance(record, dict)
    return record


def _convert_each(
    values: list[dict[str, Any]], kept: list[int], target: pa.Schema, rejected: dict[int, str]
) -> _Part:
    """Find the values that Arrow can't hold (an int beyond 32 bits) by converting one by one."""
    fitting, indexes = [], []
    for value, index in zip(values, kept, strict=True):
        try:
            fitting.append(pa.Table.from_pylist([value], schema=target))
            indexes.append(index)
        except (pa.ArrowInvalid, OverflowError) as error:
            rejected[index] = f"a value is out of its type's range: {error}"
    return _Part(pa.concat_tables([target.empty_table(), *fitting]), indexes)


def _assemble(table: BronzeTable, parts: list[_Part], records: Sequence[LogRecord]) -> pa.Table:
    """Join the parts' payloads in log order and put the log's columns before them."""
    kept = [index for part in parts for index in part.kept]
    target = _payload_schema(table)
    payload = pa.concat_tables([target.empty_table(), *(_fit(p.payload, target) for p in parts)])
    if len(parts) > 1:
        order = sorted(range(len(kept)), key=kept.__getitem__)
        payload, kept = payload.take(order), sorted(kept)
    chosen = [records[index] for index in kept]
    schema_ids = pa.array([schema_id_of(record.value or b"") for record in chosen], pa.int32())
    columns = [*_log_columns(chosen), schema_ids, *payload.columns]
    return pa.Table.from_arrays(columns, schema=table.schema)


def _fit(payload: pa.Table, target: pa.Schema) -> pa.Table:
    """Give a payload today's columns: what its writer did not know is null."""
    names = set(payload.column_names)
    columns = [
        payload[field.name].cast(field.type)
        if field.name in names
        else pa.nulls(payload.num_rows, field.type)
        for field in target
    ]
    return pa.Table.from_arrays(columns, schema=target)


def _raw(records: Sequence[LogRecord]) -> pa.Table:
    columns = [
        *_log_columns(records),
        pa.nulls(len(records), pa.int32()),
        _headers(records),
        pa.array([record.value for record in records], pa.binary()),
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema([*LOG_COLUMNS, *RAW_COLUMNS]))


def _log_columns(records: Sequence[LogRecord]) -> list[pa.Array]:
    return [
        pa.array([record.partition for record in records], pa.int32()),
        pa.array([record.offset for record in records], pa.int64()),
        pa.array([record.timestamp for record in records], pa.int64()),
        pa.array([record.key for record in records], pa.binary()),
    ]


def _headers(records: Sequence[LogRecord]) -> pa.Array:
    """Headers in their order, their values byte-exact."""
    rows = [[{"key": key, "value": value} for key, value in record.headers] for record in records]
    return pa.array(rows, REJECT_SCHEMA.field("headers").type)


def _payload_schema(table: BronzeTable) -> pa.Schema:
    return pa.schema(list(table.schema)[len(LOG_COLUMNS) :])


def _body(record: LogRecord) -> bytes:
    assert record.value is not None
    return record.value[FRAME_BYTES:]


@cache
def _ids_of(topic: str) -> frozenset[int]:
    return frozenset(version["id"] for version in lock()[f"{topic}-value"])


@cache
def _parsed(schema_id: int) -> Any:
    return fastavro.parse_schema(json.loads(writer_schema(schema_id)), named_schemas={})
