"""What must hold, as SQL over what was read: for each check, what is compared and what differs.

Pure data. `differing` selects the rows that break the rule; `compared` says how many things were
looked at. `old` marks what lay before the cut: what is under way is no fault. Tables:
`requests, commands, ledger_events, payment_events, webhook_deliveries, webhook_events` (the log),
`outcomes, entries, accounts, shares, balances, identities, holds, reversals, links, rooms,
partitions` (the ledger), `dead` (what was dead-lettered), `bounds` (first offset and cut of every
partition). Over them: `decided` (rows, a repeat with what it repeats), `facts` (what few rows tell
beside), `moves` (entries with the change of what is held), `story` (payment events with the status
before), and `linked` (transfers of several homes); what is dear, and read often, is made once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from loadtest.verify.linked import PRELUDE as LINKED


@dataclass(frozen=True, slots=True)
class Check:
    """One rule: `says` in plain words, and the two queries."""

    name: str
    says: str
    compared: str
    differing: str


LOG: Final = """
create view requests as select * from log_payments_requests where not _undecoded;
create view commands as select * from log_ledger_commands where not _undecoded;
create view ledger_events as select * from log_ledger_events where not _undecoded;
create view payment_events as select * from log_payments_events where not _undecoded;
create view webhook_deliveries as select * from log_webhooks_received where not _undecoded;
create view webhook_events as select * from log_webhooks_events where not _undecoded;
"""
"""The topics under their short names."""

_PRELUDE: Final = """
create macro slot_in(id) as ('0x' || regexp_extract(id, '_[ce]?([0-9a-f]{3})_', 1))::int;
create view decided as
select o.*, o.command_offset < b.cut as old, o.command_offset >= b.first as retained,
       coalesce((o.extra::json ->> '$.dry_run')::bool, false) as dry,
       coalesce(t.type, o.type) as told_type,
       coalesce(t.reason, o.reason,
                coalesce(t.extra, o.extra)::json ->> '$.linked.reason') as told_reason,
       coalesce(t.failed_leg, o.failed_leg,
                (coalesce(t.extra, o.extra)::json ->> '$.linked.failed_leg')::int8)
           as told_failed_leg,
       coalesce(t.extra, o.extra)::json as told_extra,
       coalesce(t.partition, o.partition) as told_partition,
       coalesce(t.position, o.position) as told_position
  from outcomes o
  join bounds b on b.topic = 'ledger.commands' and b.partition = o.partition
  left join outcomes t on t.partition = o.repeats_partition and t.position = o.repeats_position;
create table facts as
select partition, position, type, told_type, told_reason, saga_id, step, identity, command_offset,
       booked_at_us, old, retained, dry, repeated,
       told_extra ->> '$.hold.hold_id' as hold_id, told_extra ->> '$.hold.reason' as ended_as,
       coalesce(told_extra ->> '$.hold.amount_minor',
                told_extra ->> '$.reversal.amount_minor')::int8 as amount_minor,
       coalesce(told_extra ->> '$.hold.remaining_minor',
                told_extra ->> '$.reversal.remaining_minor')::int8 as remaining_minor,
       (told_extra ->> '$.hold.expires_at_us')::int8 as expires_at_us,
       told_extra ->> '$.reversal.original_id' as original_id,
       (told_extra ->> '$.reversal.leg')::int8 as original_leg,
       (told_extra ->> '$.reversal.partition')::int8 as original_partition,
       (told_extra ->> '$.reversal.position')::int8 as original_position,
       from_json(told_extra -> '$.reversal.legs', '[["BIGINT"]]') as legs,
       coalesce(from_json(told_extra -> '$.linked.parts', '["VARCHAR"]'), []) as parts,
       coalesce(list_transform(from_json(told_extra -> '$.linked.held', '["JSON"]'),
                               lambda side: (side ->> '$[0]')::int4), []) as leg_indexes,
       coalesce(list_transform(from_json(told_extra -> '$.linked.back', '["JSON"]'),
                               lambda leg: {'source': leg ->> '$[1]',
                                            'destination': leg ->> '$[2]',
                                            'amount_minor': (leg ->> '$[3]')::int8,
                                            'currency': leg ->> '$[4]'}), []) as back_legs,
       coalesce(list_transform(from_json(told_extra -> '$.linked.back', '["JSON"]'),
                               lambda leg: (leg ->> '$[0]')::int4), []) as back_indexes,
       told_extra ->> '$.account.account_id' as account_id,
       (told_extra ->> '$.account.debits_frozen')::bool as debits_frozen,
       (told_extra ->> '$.account.credits_frozen')::bool as credits_frozen,
       (told_extra ->> '$.account.closed')::bool as closed
  from decided;
create view moves as
select *, held_minor - lag(held_minor, 1, 0) over
           (partition by account_id, share order by version) as held_change
  from entries;
create view story as
select *, lag(case when not mark then status end ignore nulls) over
              (partition by resource_id order by version, _offset) as status_before
  from (select *, ends_with(type, '.conflicted') or ends_with(type, '_refused') as mark
          from payment_events);
create table creations as
select r.resource_id, bool_or(r.old) as old, count(*) filter (d.offset is null) as alive,
       arg_min(r.type, r._offset) filter (d.offset is null) as type,
       arg_min(r.dry_run, r._offset) filter (d.offset is null) as dry
  from requests r
  left join dead d on d.topic = 'payments.requests' and d.partition = r._partition
                  and d.offset = r._offset
 where r.type in ('payment.create', 'transfer.create', 'account.open')
 group by r.resource_id;
create table operations as
select r.resource_id, r.identity, bool_or(r.old) as old,
       count(*) filter (d.offset is null) as alive,
       arg_min(r.type, r._offset) filter (d.offset is null) as type
  from requests r
  left join dead d on d.topic = 'payments.requests' and d.partition = r._partition
                  and d.offset = r._offset
 where r.type in ('payment.capture', 'payment.void', 'payment.refund', 'transfer.reverse',
                  'account.freeze', 'account.unfreeze', 'account.close')
 group by r.resource_id, r.identity;
create view sides as
select share, position, list({
           'account_id': account_id, 'share': share::int, 'version': version,
           'amount_minor': amount_minor, 'currency': currency, 'posted_minor': posted_minor,
           'held_minor': held_minor
       } order by ordinal) as entries
  from entries group by share, position;
"""

PRELUDE: Final = LOG + _PRELUDE + LINKED
"""What the checks' queries rest on."""
