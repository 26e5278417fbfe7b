"""Where a payment's time goes, hop by hop, from the timestamps of its records in Kafka.

A record's timestamp is set when it is emitted (the request's when the gateway had read it), in
milliseconds, so a hop is exact to about one. The first record of each kind counts. Runs on an
in-memory database; reads nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import duckdb
import pyarrow as pa

from loadtest.proof.figures import HOPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_QUERY: Final = """
with request as (select resource_id as id, min(_timestamp_ms) as ms
                   from log_payments_requests group by 1),
command as (select saga_id as id, min(_timestamp_ms) as ms from log_ledger_commands group by 1),
event as (select saga_id as id, min(_timestamp_ms) as ms from log_ledger_events group by 1),
final as (select resource_id as id, min(_timestamp_ms) as ms from log_payments_events
           where type in ('payment.settled', 'payment.rejected') group by 1),
hops as (
    select request.ms - client.sent_ms as client_to_request,
           command.ms - request.ms as request_to_command,
           event.ms - command.ms as command_to_ledger_event,
           final.ms - event.ms as ledger_event_to_payment_event,
           client.seen_ms - final.ms as payment_event_to_seen
      from client join request using (id) join command using (id) join event using (id)
      join final using (id)),
named as (unpivot hops on columns(*) into name hop value ms)
select hop, round(quantile_disc(ms, 0.5), 1), round(quantile_disc(ms, 0.95), 1),
       round(quantile_disc(ms, 0.99), 1), round(avg(ms), 2)
  from named group by hop
"""


def per_hop_ms(
    tables: Mapping[str, pa.Table], clients: Iterable[tuple[str, float, float]]
) -> dict[str, dict[str, float]]:
    """Return quantiles and mean per hop, of payments given as (id, sent, seen) in epoch seconds."""
    rows = list(clients)
    client = pa.table(
        {
            "id": pa.array([row[0] for row in rows], pa.string()),
            "sent_ms": pa.array([row[1] * 1000 for row in rows], pa.float64()),
            "seen_ms": pa.array([row[2] * 1000 for row in rows], pa.float64()),
        }
    )
    with duckdb.connect() as database:
        database.register("client", client)
        for name, table in tables.items():
            if name.startswith("log_"):
                database.register(name, table)
        found = database.execute(_QUERY).fetchall()
    by_hop = {
        hop: {"p50": p50, "p95": p95, "p99": p99, "mean": mean}
        for hop, p50, p95, p99, mean in found
    }
    return {hop: by_hop[hop] for hop in HOPS if hop in by_hop}
