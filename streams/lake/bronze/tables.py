"""What the table of a topic looks like: its name, its columns (Avro to Arrow) and its properties.

Every column may be null, nested ones too, so that any added field is a metadata change. Columns
that start with `_` come from the log (partition, offset, time, key), the rest from the record as it
was written. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import pyarrow as pa

from schemas.topics import TOPICS, Topic
from schemas.wire import schema_id, writer_schema

NAMESPACE: Final = "bronze"

HEADERS: Final = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
LOG_COLUMNS: Final = (
    pa.field("_partition", pa.int32()),
    pa.field("_offset", pa.int64()),
    pa.field("_timestamp_ms", pa.int64()),
    pa.field("_key", pa.binary()),
    pa.field("_schema_id", pa.int32()),
)
RAW_COLUMNS: Final = (pa.field("_headers", HEADERS), pa.field("value", pa.binary()))
REJECT_SCHEMA: Final = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp_ms", pa.int64()),
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("headers", HEADERS),
        ("error", pa.string()),
    ]
)

# The compare-and-swap decides what may be retried, the library never; merged manifests and few
# metadata files keep planning and commits flat however many commits a table has seen.
_PROPERTIES: Final = {
    "commit.retry.num-retries": "0",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "5",
    "write.parquet.compression-codec": "zstd",
    "write.delete.isolation-level": "snapshot",
    "write.update.isolation-level": "snapshot",
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


@dataclass(frozen=True, slots=True)
class BronzeTable:
    """One topic's place in the lake. `rejects` names the table of what does not decode."""

    topic: str
    name: str
    rejects: str | None
    schema: pa.Schema
    holds_bytes: bool
    properties: dict[str, str]


@cache
def table_of(topic: str) -> BronzeTable:
    """Return the table of a topic of the topic table."""
    row = TOPICS[topic]
    name = f"{NAMESPACE}.{topic.replace('.', '_').replace('-', '_')}"
    raw = row.landing == "raw"
    avro = None if raw else json.loads(writer_schema(schema_id(topic)))
    payload = RAW_COLUMNS if avro is None else arrow_fields(avro)
    return BronzeTable(
        topic=topic,
        name=name,
        rejects=None if raw else f"{name}__dlq",
        schema=pa.schema([*LOG_COLUMNS, *payload]),
        holds_bytes=avro is not None and _holds_bytes(avro),
        properties=_PROPERTIES | _facts(row),
    )


def arrow_fields(record: dict[str, Any]) -> list[pa.Field]:
    """Map an Avro record's fields to Arrow, all of them nullable."""
    return [pa.field(field["name"], _arrow_type(field["type"])) for field in record["fields"]]


def column_paths(fields: Iterator[pa.Field] | pa.Schema, prefix: str = "") -> set[str]:
    """Name every column, nested ones too, as Iceberg does: `legs.element.source`."""
    paths: set[str] = set()
    for field in fields:
        paths |= _paths(prefix + field.name, field.type)
    return paths


def _paths(path: str, kind: pa.DataType) -> set[str]:
    if pa.types.is_struct(kind):
        return {path} | column_paths(iter(kind), f"{path}.")
    if pa.types.is_list(kind):
        return {path} | _paths(f"{path}.element", kind.value_type)
    if pa.types.is_map(kind):
        return (
            {path} | _paths(f"{path}.key", kind.key_type) | _paths(f"{path}.value", kind.item_type)
        )
    return {path}


def _arrow_type(avro: Any) -> pa.DataType:
    if isinstance(avro, list):
        kinds = [kind for kind in avro if kind != "null"]
        if len(kinds) != 1:
            raise ValueError(f"a union may hold null and one other type, not {avro}")
        return _arrow_type(kinds[0])
    if isinstance(avro, str):
        return _PRIMITIVES[avro]
    match avro["type"]:
        case "record":
            return pa.struct(arrow_fields(avro))
        case "array":
            return pa.list_(_arrow_type(avro["items"]))
        case "map":
            return pa.map_(pa.string(), _arrow_type(avro["values"]))
        case "enum":
            return pa.string()
        case name:
            return _arrow_type(name)


def _holds_bytes(avro: Any) -> bool:
    """Tell whether the fast decoder must not see this schema: it can't read bytes."""
    if isinstance(avro, list):
        return any(_holds_bytes(part) for part in avro)
    if isinstance(avro, dict):
        parts = [avro.get("type"), avro.get("items"), avro.get("values"), avro.get("fields")]
        return any(_holds_bytes(part) for part in parts if part is not None)
    return avro in {"bytes", "fixed"}


def _facts(topic: Topic) -> dict[str, str]:
    """What governs the data, kept with it: retention, residency and owner."""
    return {
        "headrace.topic": topic.name,
        "headrace.owner": topic.owner,
        "headrace.residency": topic.residency,
        "headrace.retention-ms": str(topic.retention_ms),
    }
