"""Run the checks over what was read: tables in, verdicts out. The database is in memory only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import duckdb

from loadtest.verify import chain
from loadtest.verify.checks import LOG, PRELUDE, Check
from loadtest.verify.checks_lake import lake_check
from loadtest.verify.checks_ledger import LEDGER
from loadtest.verify.checks_linked import LINKED
from loadtest.verify.checks_operations import OPERATIONS
from loadtest.verify.checks_payments import PAYMENTS
from loadtest.verify.checks_reversals import REVERSALS
from loadtest.verify.checks_views import VIEWS
from schemas.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import pyarrow as pa

CHECKS: Final = (
    *LEDGER, *LINKED, *OPERATIONS, *REVERSALS, *PAYMENTS, *VIEWS,
    *(lake_check(topic) for topic in TOPICS),
)  # fmt: skip
CHAIN: Final = "hash_chain"

EXAMPLES_MAX: Final = 5
"""How many differing rows a verdict shows."""


SMALL: Final = 100_000
"""Rows below which a second thread costs more than it does."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found. `examples` are some of the differing rows."""

    name: str
    says: str
    count: int
    differences: int
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Tell whether the rule holds."""
        return self.differences == 0


def run(tables: Mapping[str, pa.Table], only: Collection[str] = ()) -> Iterator[Verdict]:
    """Yield the verdict of every check, or of those named, in order."""
    threads = 1 if sum(table.num_rows for table in tables.values()) < SMALL else 2
    with duckdb.connect(config={"threads": threads}) as database:
        for name, table in tables.items():
            database.register(name, table)
        database.execute(PRELUDE)
        for check in CHECKS:
            if not only or check.name in only:
                yield _verdict(database, check)
    if not only or CHAIN in only:
        yield _chain(tables)


def counts(tables: Mapping[str, pa.Table]) -> dict[str, list[tuple[Any, ...]]]:
    """Count what happened to payments and webhooks, as the log tells it."""
    with duckdb.connect() as database:
        for name, table in tables.items():
            database.register(name, table)
        database.execute(LOG)
        return {name: database.execute(query).fetchall() for name, query in _COUNTS.items()}


_COUNTS: Final = {
    "events": "select type, count(distinct resource_id) from payment_events group by type",
    "reasons": "select reason, count(*) from payment_events where type = 'payment.rejected' "
    "group by reason order by 2 desc, 1",
    "contested": "select distinct idempotency_key from payment_events "
    "where type = 'payment.conflicted' or reason = 'idempotency_key_reused'",
    "webhooks": "select type, count(*) from webhook_events group by type",
    "deliveries": "select partner_event_id, count(*) from webhook_events group by 1",
    "quarantined": "select distinct partner_event_id from log_webhooks_quarantine",
}


def _verdict(database: duckdb.DuckDBPyConnection, check: Check) -> Verdict:
    (count,) = database.execute(check.compared).fetchone() or (0,)
    found = database.execute(check.differing)
    names = [column[0] for column in found.description or ()]
    rows = found.fetchall()
    examples = [dict(zip(names, row, strict=True)) for row in rows[:EXAMPLES_MAX]]
    return Verdict(check.name, check.says, count, len(rows), examples)


def _chain(tables: Mapping[str, pa.Table]) -> Verdict:
    count, found = chain.broken(
        tables["outcomes"], tables["entries"], tables["journal"], tables["partitions"]
    )
    says = "each row's hash seals all rows before it, and the fence holds the last one"
    return Verdict(CHAIN, says, count, len(found), found)
