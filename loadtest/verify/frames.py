"""What was read, as Arrow tables that SQL can compare. Pure.

A record is decoded by fastavro with the schema it was written with, and nothing else: the services'
own codecs and the lake's bulk decoder are what is being checked. Column types follow the Avro
schema; a column that a record's version does not have is null, as in the lake.
"""

from __future__ import annotations

import io
import json
import struct
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import fastavro
import pyarrow as pa

from schemas.errors import Poisoned
from schemas.topics import TOPICS
from schemas.wire import FRAME_BYTES, schema_id, schema_id_of, writer_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from loadtest.kafka_log import Log, Offsets

DEAD_LETTERS: Final = ".dlq"
UNDECODED: Final = "_undecoded"
"""True for a record that does not decode; its columns are null."""

HEADERS: Final = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
_LOG_COLUMNS: Final = {
    "_partition": pa.int32(),
    "_offset": pa.int64(),
    "_timestamp_ms": pa.int64(),
    "_key": pa.binary(),
}
REJECT_COLUMNS: Final = {
    "partition": pa.int32(),
    "offset": pa.int64(),
    "value": pa.binary(),
}
_PRIMITIVES: Final[dict[str, pa.DataType]] = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "bytes": pa.binary(),
}
_DECODE_ERRORS: Final = (
    Poisoned, EOFError, ValueError, IndexError, KeyError, TypeError, StopIteration, OverflowError,
    MemoryError, struct.error,
)  # fmt: skip


def table_name(topic: str) -> str:
    """Name the SQL table of a topic: `payments.requests` is `log_payments_requests`."""
    return f"log_{topic.replace('.', '_')}"


def bronze_name(topic: str) -> str:
    """Name a topic's SQL table here: `payments.requests` is `bronze_payments_requests`."""
    return f"bronze_{topic.replace('.', '_')}"


def rejects_name(topic: str) -> str:
    """Name the SQL table of what of a topic did not decode."""
    return f"rejects_{topic.replace('.', '_')}"


def bronze_columns(topic: str) -> dict[str, pa.DataType]:
    """Return the columns that a topic's bronze table is compared by."""
    if TOPICS[topic].landing == "raw":
        return _LOG_COLUMNS | {"_headers": HEADERS, "value": pa.binary()}
    return _LOG_COLUMNS | dict(field_types(topic))


def bounds_table(first: Offsets, cut: Offsets) -> pa.Table:
    """Return where each partition of the log begins, and where the comparison ends."""
    places = list(cut)
    return pa.table(
        {
            "topic": pa.array([topic for topic, _ in places], pa.string()),
            "partition": pa.array([partition for _, partition in places], pa.int32()),
            "first": pa.array([first[place] for place in places], pa.int64()),
            "cut": pa.array([cut[place] for place in places], pa.int64()),
        }
    )


def dead_table(logs: Mapping[str, Log]) -> pa.Table:
    """Return which records were dead-lettered, as the headers of the dead letters tell."""
    found = []
    for topic, log in logs.items():
        if topic.endswith(DEAD_LETTERS):
            for headers in log.headers:
                told = dict(headers)
                place = int(told["dlq.partition"]), int(told["dlq.offset"])
                found.append((topic.removesuffix(DEAD_LETTERS), *place))
    return pa.table(
        {
            "topic": pa.array([topic for topic, _, _ in found], pa.string()),
            "partition": pa.array([partition for _, partition, _ in found], pa.int32()),
            "offset": pa.array([offset for _, _, offset in found], pa.int64()),
        }
    )


def log_table(log: Log, cut: Offsets) -> pa.Table:
    """Return a topic's records: log columns, whether each lies before the cut, then its fields."""
    old = [
        offset < cut.get((log.topic, partition), 0)
        for partition, offset in zip(log.partitions, log.offsets, strict=True)
    ]
    columns: dict[str, pa.Array] = {
        "_partition": pa.array(log.partitions, pa.int32()),
        "_offset": pa.array(log.offsets, pa.int64()),
        "_timestamp_ms": pa.array(log.timestamps_ms, pa.int64()),
        "_key": pa.array(log.keys, pa.binary()),
        "old": pa.array(old, pa.bool_()),
    }
    if TOPICS[log.topic].landing == "raw":
        headers = [[{"key": k, "value": v} for k, v in pairs] for pairs in log.headers]
        columns["_headers"] = pa.array(headers, HEADERS)
        columns["value"] = pa.array(log.values, pa.binary())
        return pa.table(columns)
    records = decoded(log)
    columns[UNDECODED] = pa.array([record is None for record in records], pa.bool_())
    return pa.table(columns | record_columns(log.topic, records))


def record_columns(topic: str, records: list[dict[str, Any] | None]) -> dict[str, pa.Array]:
    """Turn decoded records into columns of their schema's types."""
    columns: dict[str, pa.Array] = {}
    for name, kind in field_types(topic).items():
        values: Iterable[Any] = (record.get(name) if record else None for record in records)
        if pa.types.is_map(kind):
            values = (None if value is None else list(value.items()) for value in values)
        columns[name] = pa.array(list(values), kind)
    return columns


def decoded(log: Log) -> list[dict[str, Any] | None]:
    """Return the log's records, each decoded once however often this is asked."""
    log.records += [decode(value) for value in log.values[len(log.records) :]]
    return log.records


def decode(value: bytes | None) -> dict[str, Any] | None:
    """Decode a record with its writer's schema; None where it does not decode."""
    if value is None:
        return None
    body = io.BytesIO(value)
    body.seek(FRAME_BYTES)
    try:
        record = fastavro.schemaless_reader(body, _parsed(schema_id_of(value)), None)
    except _DECODE_ERRORS:
        return None
    whole = body.tell() == len(value) and isinstance(record, dict)
    return record if whole else None


@cache
def field_types(topic: str) -> Mapping[str, pa.DataType]:
    """Return the Arrow type of each field of a topic's schema today."""
    return {field["name"]: _arrow(field["type"]) for field in avro_fields(topic)}


def avro_fields(topic: str) -> list[dict[str, Any]]:
    """Return the fields of a topic's schema today."""
    fields: list[dict[str, Any]] = json.loads(writer_schema(schema_id(topic)))["fields"]
    return fields


def _arrow(avro: Any) -> pa.DataType:
    if isinstance(avro, list):
        return _arrow(next(kind for kind in avro if kind != "null"))
    if isinstance(avro, str):
        return _PRIMITIVES[avro]
    match avro["type"]:
        case "record":
            return pa.struct([(field["name"], _arrow(field["type"])) for field in avro["fields"]])
        case "array":
            return pa.list_(_arrow(avro["items"]))
        case "map":
            return pa.map_(pa.string(), _arrow(avro["values"]))
        case name:
            return _arrow(name)


@cache
def _parsed(number: int) -> Any:
    return fastavro.parse_schema(json.loads(writer_schema(number)), named_schemas={})
