"""What must hold, as SQL over what was read: for each check, what is compared and what differs.

Pure data. `differing` selects the rows that break the rule, with what is needed to find them; no
row is agreement. `compared` says how many things were looked at. `old` marks what lay before the
cut, so that a payment under way on a running stack is not mistaken for a fault. Tables:
`requests, commands, ledger_events, payment_events, webhook_deliveries, webhook_events` (the log),
`outcomes, entries, accounts, shares, balances, identities, partitions` (the ledger), `dead`
(what was dead-lettered), `bounds` (first offset and cut of every partition).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Check:
    """One rule: `says` in plain words, and the two queries."""

    name: str
    says: str
    compared: str
    differing: str


PRELUDE: Final = """
create view requests as select * from log_payments_requests where not _undecoded;
create view commands as select * from log_ledger_commands where not _undecoded;
create view ledger_events as select * from log_ledger_events where not _undecoded;
create view payment_events as select * from log_payments_events where not _undecoded;
create view webhook_deliveries as select * from log_webhooks_received where not _undecoded;
create view webhook_events as select * from log_webhooks_events where not _undecoded;
create view decided as
select o.*, o.command_offset < b.cut as old, o.command_offset >= b.first as retained,
       coalesce(t.type, o.type) as told_type, coalesce(t.reason, o.reason) as told_reason,
       coalesce(t.partition, o.partition) as told_partition,
       coalesce(t.position, o.position) as told_position
  from outcomes o
  join bounds b on b.topic = 'ledger.commands' and b.partition = o.partition
  left join outcomes t on t.partition = o.repeats_partition and t.position = o.repeats_position;
create view finals as
select * from payment_events
 where type in ('payment.settled', 'payment.rejected', 'account.opened', 'account.rejected');
create view sides as
select share, position, list({
           'account_id': account_id, 'share': share::int, 'version': version,
           'amount_minor': amount_minor, 'currency': currency, 'posted_minor': posted_minor,
           'held_minor': held_minor
       } order by ordinal) as entries
  from entries group by share, position;
"""
