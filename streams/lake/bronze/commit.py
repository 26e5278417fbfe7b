"""The one module that changes bronze tables: records and the offsets after them become one
snapshot.

Invariant: a table's rows are the committed records below its offsets, each once. Every commit
compares the offsets with the batch on the metadata whose head the commit requires to be current; so
a stale owner is refused (Fenced), and after an unknown outcome the table itself says what it holds.
A topic with undecodable records has two tables: its rejects are committed first and carry offsets
of their own, and `open_table` reads back those of a half-landed batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, Or
from pyiceberg.table import Table
from sqlalchemy.exc import SQLAlchemyError

from schemas import logs
from schemas.errors import Fenced, Unavailable
from streams.lake.bronze import landing
from streams.lake.bronze.decode import Decoded, decode, reject_rows
from streams.lake.bronze.landing import Batch, Chunk
from streams.lake.bronze.tables import (
    NAMESPACE,
    REJECT_SCHEMA,
    BronzeTable,
    column_paths,
    table_of,
)

SNAPSHOTS_MAX: Final = 20
SNAPSHOTS_KEPT: Final = 10
"""A commit's cost grows with the snapshots in the metadata: past the one, expire down to the other.
"""
_SWAPS_MAX: Final = 5

CRASH_POINTS: Final = ("before_rejects", "between_tables", "before_commit", "after_commit")

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Landed:
    """What one commit did."""

    rows: int
    rejects: int
    seconds: float


@dataclass(slots=True)
class OpenTable:
    """A topic's tables as this process last saw them; used by one thread at a time.

    `rejects_seen` are the rejects' own offsets, `rejected` holds offsets at or past the table's own
    that the table of rejects already has. `step` is called at each crash point.
    """

    spec: BronzeTable
    main: Table
    rejects: Table | None
    rejects_seen: dict[int, int]
    rejected: dict[int, frozenset[int]]
    step: Step

    @property
    def offsets(self) -> dict[int, int]:
        """The next offset to land, per partition that has landed anything."""
        return landing.offsets_of(self.main.properties)

    def land(self, batch: Batch) -> Landed:
        """Land a batch, or raise: Fenced when another owner has, Unavailable when it is unknown.

        After either, nothing that this object holds is to be trusted: open the table again.
        """
        assert batch.chunks, "a commit moves an offset"
        began = time.perf_counter()
        decoded = decode(self.spec.topic, landing.unrejected(batch, self.rejected))
        with _faults(self.spec.name):
            self._land_rejects(batch, decoded)
            self.step("before_commit")
            properties = landing.lost_properties(batch.lost)
            _swap(self.main, batch, decoded.rows, properties)
            self.step("after_commit")
            self.rejected = landing.still_ahead(self.rejected, batch)
            for table in filter(None, (self.main, self.rejects)):
                _expire(table)
        seconds = time.perf_counter() - began
        return Landed(decoded.rows.num_rows, len(decoded.rejects), seconds)

    def _land_rejects(self, batch: Batch, decoded: Decoded) -> None:
        if not decoded.rejects:
            return
        assert self.rejects is not None, "only a decoded topic has rejects"
        self.step("before_rejects")
        # Their own offsets lag (they move only here) or lead (a crash fell between the tables), but
        # they must be those that this owner has seen: remembered, for the metadata at hand
        # may hold another owner's by now (expiry brings it up to date).
        seen = self.rejects_seen
        chunks = tuple(
            Chunk(c.partition, seen.get(c.partition), max(c.next, seen.get(c.partition, 0)), ())
            for c in batch.chunks
        )
        rows = reject_rows(self.spec.topic, decoded.rejects)
        own = Batch(batch.topic, chunks)
        _swap(self.rejects, own, rows, {})
        self.rejects_seen |= own.next
        self.step("between_tables")


def open_table(catalog: Catalog, topic: str, step: Step = lambda _: None) -> OpenTable:
    """Create a topic's tables or bring them up to date; read what they hold. Raises Unavailable."""
    spec = table_of(topic)
    with _faults(spec.name):
        catalog.create_namespace_if_not_exists(NAMESPACE)
        main = _ensure(catalog, spec.name, spec.schema, spec.properties)
        if spec.rejects is None:
            return OpenTable(spec, main, None, {}, {}, step)
        rejects = _ensure(catalog, spec.rejects, REJECT_SCHEMA, spec.properties)
        seen = landing.offsets_of(rejects.properties)
        return OpenTable(spec, main, rejects, seen, _half_landed(main, rejects), step)


def _swap(table: Table, batch: Batch, rows: pa.Table, properties: dict[str, str]) -> None:
    """Append rows and set offsets in one snapshot, if the table still ends where the batch begins.

    An append always makes a snapshot, even of no rows, and requires the head it was compared with
    to be current: so no commit of offsets slips past another. Only maintenance makes a retry worth
    while.
    """
    offsets = landing.offset_properties(batch.next)
    for _ in range(_SWAPS_MAX):
        if not landing.continues(landing.offsets_of(table.properties), batch):
            raise Fenced(f"{table.name()} was advanced by another owner")
        transaction = table.transaction()
        try:
            transaction.append(rows, snapshot_properties=offsets)
            transaction.set_properties(offsets | properties)
            transaction.commit_transaction()
        except CommitFailedException:
            table.refresh()
        else:
            return
    raise Unavailable(f"{table.name()}: {_SWAPS_MAX} commits in a row met another one")


def _expire(table: Table) -> None:
    """Drop the oldest snapshots when there are too many; heads of branches and tags stay."""
    snapshots = sorted(table.metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)
    if len(snapshots) <= SNAPSHOTS_MAX:
        return
    held = {ref.snapshot_id for ref in table.metadata.refs.values()}
    old = [s.snapshot_id for s in snapshots[:-SNAPSHOTS_KEPT] if s.snapshot_id not in held]
    try:
        table.maintenance.expire_snapshots().by_ids(old).commit()
    except (CommitFailedException, ValueError) as error:
        # Another commit or expiry came between (a snapshot that is gone is a ValueError). Nothing
        # depends on this one: the next commit tries again.
        logs.get().info("expiry gave way", table=".".join(table.name()), why=str(error)[:200])
        table.refresh()


def _ensure(catalog: Catalog, name: str, schema: pa.Schema, properties: dict[str, str]) -> Table:
    """Load a table, made or evolved so that it has these columns and properties."""
    try:
        table = catalog.load_table(name)
    except NoSuchTableError:
        try:
            return catalog.create_table(name, schema, properties=properties)
        except TableAlreadyExistsError:
            table = catalog.load_table(name)
    if not column_paths(schema) <= set(table.schema().column_names):
        with table.update_schema() as update:
            update.union_by_name(schema)
        logs.get().info("columns added", table=name)
    if any(table.properties.get(key) != value for key, value in properties.items()):
        with table.transaction() as transaction:
            transaction.set_properties(properties)
    return table


def _half_landed(main: Table, rejects: Table) -> dict[int, frozenset[int]]:
    """Find rejects at or past the main table's offsets: their batch landed in one table only."""
    landed, ahead = landing.offsets_of(main.properties), landing.offsets_of(rejects.properties)
    partitions = [p for p, offset in ahead.items() if offset > landed.get(p, -1)]
    if not partitions:
        return {}
    terms: list[Any] = [
        And(EqualTo("partition", p), GreaterThanOrEqual("offset", landed.get(p, -1)))
        for p in partitions
    ]
    wanted = terms[0] if len(terms) == 1 else Or(*terms)
    rows = rejects.scan(row_filter=wanted, selected_fields=("partition", "offset")).to_arrow()
    found: dict[int, set[int]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["partition"], set()).add(row["offset"])
    return {partition: frozenset(offsets) for partition, offsets in found.items()}


@contextmanager
def _faults(table: str) -> Iterator[None]:
    """Turn a fault of the catalog or the warehouse, whose outcome is unknown, into Unavailable."""
    try:
        yield
    except (CommitFailedException, SQLAlchemyError, OSError) as error:
        raise Unavailable(f"{table}: {type(error).__name__}: {error}") from error
