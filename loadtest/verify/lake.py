"""Read the lake's bronze tables through its catalog, with pyiceberg; nothing written.

Talks to the catalog database and to the files of the warehouse. A table that does not exist yet has
no rows.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError

from loadtest.verify.frames import REJECT_COLUMNS, bronze_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

_OFFSET: Final = "sink.offset."


def open_catalog(dsn: str, warehouse: str) -> Any:
    """Connect to the catalog."""
    uri = re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", dsn)
    return SqlCatalog("headrace", uri=uri, warehouse=warehouse, init_catalog_tables="false")


def next_offsets(catalog: Any, topic: str) -> dict[int, int]:
    """Return how far the lake says it has landed a topic: partition to next offset."""
    table = _load(catalog, topic, "")
    properties: Mapping[str, str] = {} if table is None else table.properties
    return {
        int(name.removeprefix(_OFFSET)): int(value)
        for name, value in properties.items()
        if name.startswith(_OFFSET)
    }


def bronze(catalog: Any, topic: str) -> pa.Table:
    """Return all rows of a topic's bronze table."""
    return _rows(_load(catalog, topic, ""), bronze_columns(topic))


def rejects(catalog: Any, topic: str) -> pa.Table:
    """Return where the records lie that landed as bytes because they do not decode."""
    return _rows(_load(catalog, topic, "__dlq"), REJECT_COLUMNS)


def _load(catalog: Any, topic: str, suffix: str) -> Any:
    try:
        return catalog.load_table(f"bronze.{topic.replace('.', '_')}{suffix}")
    except NoSuchTableError:
        return None


def _rows(table: Any, columns: dict[str, pa.DataType]) -> pa.Table:
    """A column that the table does not have yet is null."""
    if table is None:
        return pa.table({name: pa.array([], kind) for name, kind in columns.items()})
    present = {field.name for field in table.schema().fields}
    rows = table.scan(selected_fields=tuple(name for name in columns if name in present)).to_arrow()
    for name, kind in columns.items():
        if name not in present:
            rows = rows.append_column(name, pa.nulls(rows.num_rows, kind))
    return rows
