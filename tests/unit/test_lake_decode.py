"""Bytes to rows: nothing is dropped, and the bulk decoder never decides alone."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import fastavro
import pyarrow as pa
import pyruhvro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import wire
from schemas.topics import TOPICS
from streams.lake.bronze import decode as decoding
from streams.lake.bronze.decode import decode, reject_rows
from streams.lake.bronze.tables import arrow_fields, column_paths, table_of

DECODED = [name for name, topic in TOPICS.items() if topic.landing == "decoded"]
RAW = [name for name, topic in TOPICS.items() if topic.landing == "raw"]


@dataclass(frozen=True)
class Record:
    partition: int
    offset: int
    value: bytes | None
    timestamp: int = 1_700_000_000_000
    key: bytes | None = b"key"
    headers: tuple[tuple[str, bytes], ...] = ()


def values_of(avro: Any) -> st.SearchStrategy[Any]:
    """Values of an Avro type, each extreme included."""
    if isinstance(avro, list):
        return st.one_of(*(values_of(kind) for kind in avro))
    if isinstance(avro, dict):
        match avro["type"]:
            case "record":
                fields = {field["name"]: values_of(field["type"]) for field in avro["fields"]}
                return st.fixed_dictionaries(fields)
            case "array":
                return st.lists(values_of(avro["items"]), max_size=3)
            case "map":
                return st.dictionaries(TEXT, values_of(avro["values"]), max_size=3)
            case name:
                return values_of(name)
    return {
        "null": st.none(),
        "boolean": st.booleans(),
        "int": st.integers(-(2**31), 2**31 - 1),
        "long": st.integers(-(2**63), 2**63 - 1),
        "string": TEXT,
        "bytes": st.binary(max_size=8),
    }[avro]


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)


def records_of(topic: str) -> st.SearchStrategy[dict[str, Any]]:
    return values_of(json.loads(wire.writer_schema(wire.schema_id(topic))))


def sample(topic: str, **changes: Any) -> dict[str, Any]:
    """The plainest record of a topic, every optional field null."""
    plain: dict[str, Any] = {
        "string": "text",
        "int": 1,
        "long": 2,
        "boolean": True,
        "bytes": b"raw",
    }
    record = {}
    for field in json.loads(wire.writer_schema(wire.schema_id(topic)))["fields"]:
        kind = field["type"]
        if isinstance(kind, str):
            record[field["name"]] = plain[kind]
        elif isinstance(kind, dict):
            record[field["name"]] = [] if kind["type"] == "array" else {}
    return record | changes


def as_python(rows: pa.Table) -> list[dict[str, Any]]:
    """Rows without the log's columns, maps as dicts."""
    return [
        {
            name: dict(value) if isinstance(value, list) and _is_map(rows, name) else value
            for name, value in row.items()
            if not name.startswith("_")
        }
        for row in rows.to_pylist()
    ]


def _is_map(rows: pa.Table, name: str) -> bool:
    return bool(pa.types.is_map(rows.schema.field(name).type))


@pytest.mark.parametrize("topic", DECODED)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_a_topics_schema_allows_comes_back_equal(topic: str, data: st.DataObject) -> None:
    written = data.draw(st.lists(records_of(topic), min_size=1, max_size=4))
    records = [Record(0, i, wire.encode(topic, value)) for i, value in enumerate(written)]
    decoded = decode(topic, records)
    assert decoded.rejects == []
    assert decoded.rows.schema == table_of(topic).schema
    assert as_python(decoded.rows) == written


@pytest.mark.parametrize("topic", [t for t in DECODED if not table_of(t).holds_bytes])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_bulk_decoder_and_fastavro_give_the_same_rows(topic: str, data: st.DataObject) -> None:
    written = data.draw(st.lists(records_of(topic), min_size=1, max_size=4))
    records = [Record(0, i, wire.encode(topic, value)) for i, value in enumerate(written)]
    fast = decode(topic, records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_bulk", lambda *_: None)
        slow = decode(topic, records)
    assert fast.rows.equals(slow.rows)


@pytest.mark.parametrize("topic", [t for t in DECODED if not table_of(t).holds_bytes])
def test_the_bulk_decoder_takes_every_schema_without_bytes(topic: str) -> None:
    body = wire.encode(topic, sample(topic))[wire.FRAME_BYTES :]
    assert decoding._bulk([body, body], wire.writer_schema(wire.schema_id(topic))) is not None


def test_topics_that_carry_bytes_never_reach_the_bulk_decoder() -> None:
    assert {topic for topic in DECODED if table_of(topic).holds_bytes} == {
        "webhooks.received",
        "webhooks.quarantine",
    }


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=40), st.none(), st.integers(0, 60)), max_size=6),
    st.sampled_from(DECODED),
)
def test_any_bytes_become_a_row_or_a_reject_in_log_order(
    values: list[bytes | int | None], topic: str
) -> None:
    whole = wire.encode(topic, sample(topic))
    # an integer stands for a good record cut short at that many bytes
    bytes_of = [whole[:value] if isinstance(value, int) else value for value in values]
    framed = [
        whole[:5] + value if value and index % 2 else value for index, value in enumerate(bytes_of)
    ]
    records = [Record(index % 3, index, value) for index, value in enumerate([*framed, whole])]
    decoded = decode(topic, records)
    landed = decoded.rows["_offset"].to_pylist()
    rejected = [reject.record.offset for reject in decoded.rejects]
    assert landed == sorted(landed)
    assert rejected == sorted(rejected)
    assert sorted(landed + rejected) == list(range(len(records)))
    assert landed[-1] == len(records) - 1


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda good: None, "no Confluent frame"),
        (lambda good: b"", "no Confluent frame"),
        (lambda good: b"{}", "no Confluent frame"),
        (lambda good: b"\x00\x00\x00\x03\xe7" + good[5:], "schema id 999"),
        (
            lambda good: wire.encode("gateway.replies", sample("gateway.replies")),
            f"schema id {wire.schema_id('gateway.replies')}",
        ),
        (lambda good: good[:-1], "do not decode"),
        (lambda good: good + b"\x00", "1 bytes follow"),
        (lambda good: good[:5] + b"\xff" * 12, "do not decode"),
    ],
)
def test_a_bad_record_is_rejected_with_its_reason_and_the_good_ones_stay(
    spoil: Any, why: str
) -> None:
    topic = "payments.events"
    good = wire.encode(topic, sample(topic, resource_id="pay"))
    records = [Record(1, 7, good), Record(1, 8, spoil(good)), Record(1, 9, good)]
    decoded = decode(topic, records)
    assert decoded.rows["_offset"].to_pylist() == [7, 9]
    [reject] = decoded.rejects
    assert why in reject.error
    [row] = reject_rows(topic, decoded.rejects).to_pylist()
    assert row["topic"] == topic
    assert (row["partition"], row["offset"], row["value"]) == (1, 8, records[1].value)
    assert why in row["error"]


def test_an_int_beyond_its_type_is_a_reject_not_a_failed_batch() -> None:
    topic = "payments.events"
    good = wire.encode(topic, sample(topic, slot=1))
    wide = fastavro.parse_schema(
        json.loads(wire.writer_schema(wire.schema_id(topic)).replace('"int"', '"long"')),
        named_schemas={},
    )
    out = io.BytesIO()
    fastavro.schemaless_writer(out, wide, sample(topic, slot=2**40))
    decoded = decode(topic, [Record(0, 0, good), Record(0, 1, good[:5] + out.getvalue())])
    assert decoded.rows["_offset"].to_pylist() == [0]
    assert len(decoded.rejects) == 1


def test_a_panic_of_the_bulk_decoder_falls_back_and_other_base_exceptions_do_not() -> None:
    topic = "payments.events"
    records = [Record(0, 0, wire.encode(topic, sample(topic)))]
    panic = type("PanicException", (BaseException,), {})
    for error, expected in ((panic("rust"), 1), (KeyboardInterrupt(), None)):
        with pytest.MonkeyPatch.context() as patch:

            def explode(*_: Any, error: BaseException = error) -> None:
                raise error

            patch.setattr(pyruhvro, "deserialize_array", explode)
            if expected is None:
                with pytest.raises(KeyboardInterrupt):
                    decode(topic, records)
            else:
                assert decode(topic, records).rows.num_rows == expected


def test_a_bulk_decoder_that_loses_rows_is_not_believed() -> None:
    topic = "payments.events"
    records = [Record(0, i, wire.encode(topic, sample(topic, version=i))) for i in range(3)]
    real = pyruhvro.deserialize_array
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyruhvro, "deserialize_array", lambda bodies, text: real(bodies[:-1], text))
        decoded = decode(topic, records)
    assert decoded.rows["version"].to_pylist() == [0, 1, 2]


@pytest.mark.parametrize("topic", RAW)
def test_raw_topics_land_byte_for_byte_with_their_headers(topic: str) -> None:
    headers = (("dlq.reason", b"why"), ("dlq.reason", b"\xff\x00"))
    records = [
        Record(0, 3, b"\x00anything", headers=headers),
        Record(0, 4, None, key=None),
    ]
    decoded = decode(topic, records)
    first, second = decoded.rows.to_pylist()
    assert first["value"] == b"\x00anything"
    assert [(h["key"], h["value"]) for h in first["_headers"]] == list(headers)
    assert (second["value"], second["_key"], second["_headers"]) == (None, None, [])
    assert decoded.rejects == []


def test_records_of_an_older_schema_land_with_null_in_newer_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = "webhooks.events"
    newest = json.loads(wire.writer_schema(wire.schema_id(topic)))
    older = dict(newest, fields=[f for f in newest["fields"] if f["name"] != "deliveries"])
    real = wire.writer_schema
    texts = {99: json.dumps(older)}
    monkeypatch.setattr(decoding, "writer_schema", lambda i: texts.get(i) or real(i))
    monkeypatch.setattr(decoding, "_ids_of", lambda _: {99, wire.schema_id(topic)})
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(older, named_schemas={}), sample(topic))
    old = b"\x00" + (99).to_bytes(4, "big") + out.getvalue()
    new = wire.encode(topic, sample(topic, deliveries=5))
    decoded = decode(topic, [Record(0, 0, new), Record(0, 1, old), Record(0, 2, new)])
    assert decoded.rows["_offset"].to_pylist() == [0, 1, 2]
    assert decoded.rows["deliveries"].to_pylist() == [5, None, 5]
    assert decoded.rows["_schema_id"].to_pylist() == [
        wire.schema_id(topic),
        99,
        wire.schema_id(topic),
    ]


def test_every_topic_has_its_own_table_and_every_column_may_be_null() -> None:
    names = [table_of(topic).name for topic in TOPICS]
    rejects = [table_of(topic).rejects for topic in DECODED]
    assert len({*names, *rejects}) == len(names) + len(rejects)
    for topic in TOPICS:
        assert all(field.nullable for field in table_of(topic).schema)
        assert table_of(topic).properties["commit.retry.num-retries"] == "0"


def test_column_paths_are_named_as_iceberg_names_them() -> None:
    entries = pa.list_(pa.struct([("x", pa.int32())]))
    schema = pa.schema([("a", pa.int64()), ("e", entries), ("m", pa.map_(pa.string(), pa.int64()))])
    assert column_paths(schema) == {"a", "e", "e.element", "e.element.x", "m", "m.key", "m.value"}


def test_a_union_of_two_types_is_refused() -> None:
    with pytest.raises(ValueError, match="one other type"):
        arrow_fields({"fields": [{"name": "a", "type": ["null", "int", "string"]}]})
