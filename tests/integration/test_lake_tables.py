"""Real Iceberg tables on a local catalog: they are made, they grow, they stay small."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from schemas import wire
from schemas.errors import Fenced, Unavailable
from streams.lake.bronze import commit, tables
from streams.lake.bronze.commit import open_table
from streams.lake.bronze.landing import Batch, Chunk
from streams.lake.bronze.tables import table_of
from streams.lake.catalog import open_catalog
from tests.unit.test_lake_decode import sample

TOPIC = "webhooks.events"


@dataclass(frozen=True)
class Record:
    partition: int
    offset: int
    value: bytes | None
    timestamp: int = 1_700_000_000_000
    key: bytes | None = b"key"
    headers: tuple[tuple[str, bytes], ...] = ()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = open_catalog(f"sqlite:///{tmp_path}/catalog.db", tmp_path.as_uri())
    yield opened
    opened.close()


def batch(first: int | None, end: int) -> Batch:
    """Good records on partition 0, one an offset."""
    value = wire.encode(TOPIC, sample(TOPIC))
    start = first or 0
    return Batch(TOPIC, (Chunk(0, first, end, [Record(0, i, value) for i in range(start, end)]),))


def test_a_table_is_made_with_every_column_and_what_governs_it(catalog: Catalog) -> None:
    table = open_table(catalog, TOPIC).main
    assert table.metadata.format_version == 2
    assert set(table.schema().column_names) == tables.column_paths(table_of(TOPIC).schema)
    assert not any(field.required for field in table.schema().fields)
    assert table.properties["commit.retry.num-retries"] == "0"
    assert table.properties["headrace.residency"] == "home"


def test_a_table_grows_when_the_schema_has_and_old_rows_read_null(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = table_of(TOPIC)
    smaller = pa.schema([f for f in today.schema if f.name != "deliveries"])
    older = tables.BronzeTable(
        today.topic, today.name, today.rejects, smaller, holds_bytes=False, properties={"a": "b"}
    )
    monkeypatch.setattr(commit, "table_of", lambda topic: older)
    old = open_table(catalog, TOPIC)
    commit._swap(old.main, Batch(TOPIC, (Chunk(0, None, 1, ()),)), smaller_rows(smaller), {})
    monkeypatch.undo()
    new = open_table(catalog, TOPIC)
    assert new.main.properties["commit.retry.num-retries"] == "0"
    new.land(batch(1, 3))
    rows = new.main.scan(selected_fields=("_offset", "deliveries")).to_arrow().to_pylist()
    assert sorted((row["_offset"], row["deliveries"]) for row in rows) == [
        (0, None),
        (1, 1),
        (2, 1),
    ]


def smaller_rows(schema: pa.Schema) -> pa.Table:
    row = dict.fromkeys(schema.names) | {"_partition": 0, "_offset": 0}
    return pa.Table.from_pylist([row], schema=schema)


def test_a_table_that_knows_more_columns_than_we_do_still_takes_our_rows(catalog: Catalog) -> None:
    newer = open_table(catalog, TOPIC).main
    with newer.update_schema() as update:
        update.union_by_name(pa.schema([("added_later", pa.string())]))
    table = open_table(catalog, TOPIC)
    table.land(batch(None, 2))
    assert table.main.scan().to_arrow().num_rows == 2


def test_snapshots_stay_few_and_every_row_stays(catalog: Catalog) -> None:
    table = open_table(catalog, TOPIC)
    for i in range(commit.SNAPSHOTS_MAX + 5):
        table.land(batch(i or None, i + 1))
    loaded = catalog.load_table(table_of(TOPIC).name)
    assert len(loaded.snapshots()) <= commit.SNAPSHOTS_MAX
    assert loaded.scan().count() == commit.SNAPSHOTS_MAX + 5
    folder = Path(str(loaded.location()).removeprefix("file://")) / "metadata"
    assert len(list(folder.glob("*.metadata.json"))) <= 8


def test_a_tagged_snapshot_is_never_expired(catalog: Catalog) -> None:
    table = open_table(catalog, TOPIC)
    table.land(batch(None, 1))
    snapshot = table.main.current_snapshot()
    table.main.manage_snapshots().create_tag(snapshot.snapshot_id, "audit").commit()
    for i in range(1, commit.SNAPSHOTS_MAX + 3):
        table.land(batch(i, i + 1))
    tagged = catalog.load_table(table_of(TOPIC).name).scan(snapshot_id=snapshot.snapshot_id)
    assert tagged.to_arrow().num_rows == 1


def test_the_offsets_stand_in_the_snapshot_too(catalog: Catalog) -> None:
    table = open_table(catalog, TOPIC)
    table.land(batch(None, 7))
    summary: Any = catalog.load_table(table_of(TOPIC).name).current_snapshot().summary
    assert summary["sink.offset.0"] == "7"


def test_a_stale_owner_is_refused_and_the_table_unchanged(catalog: Catalog) -> None:
    stale, owner = open_table(catalog, TOPIC), open_table(catalog, TOPIC)
    owner.land(batch(None, 4))
    with pytest.raises(Fenced, match="was advanced by another owner"):
        stale.land(batch(None, 3))
    assert open_table(catalog, TOPIC).main.scan().count() == 4


def test_a_batch_of_nothing_but_rejects_moves_the_table_too(catalog: Catalog) -> None:
    table = open_table(catalog, TOPIC)
    landed = table.land(Batch(TOPIC, (Chunk(0, None, 3, [Record(0, 1, b"bad")]),)))
    assert (landed.rows, landed.rejects) == (0, 1)
    again = open_table(catalog, TOPIC)
    assert again.offsets == {0: 3}
    assert again.rejected == {}


def test_one_owner_lands_rejects_batch_after_batch(catalog: Catalog) -> None:
    table = open_table(catalog, TOPIC)
    for i in range(3):
        table.land(Batch(TOPIC, (Chunk(0, i or None, i + 1, [Record(0, i, b"bad")]),)))
    assert table.rejects is not None
    assert sorted(table.rejects.scan().to_arrow()["offset"].to_pylist()) == [0, 1, 2]


def test_a_catalog_that_does_not_answer_is_unavailable_not_fatal(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="catalog"):
        open_catalog(f"sqlite:///{tmp_path}/no/such/folder.db", tmp_path.as_uri())


def test_topics_without_a_decoder_need_no_table_of_rejects(catalog: Catalog) -> None:
    assert open_table(catalog, "payments.changelog").rejects is None
    assert json.loads(wire.writer_schema(wire.schema_id(TOPIC)))["name"] == "WebhookEvent"
