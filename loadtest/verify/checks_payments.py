"""What must hold of payments and webhooks: one end each, told as the ledger decided it.

Pure data; the tables and the shape of a check are told in `checks`.
"""

from __future__ import annotations

from typing import Final

from loadtest.verify.checks import Check

PAYMENTS: Final = (
    Check(
        "requests_end_once",
        "every accepted request is decided once, and goes on only as its table of states allows",
        "select count(*) from creations where old",
        """
        with told as (
            select resource_id, count(*) filter (type = 'payment.accepted') as accepted,
                   count(*) filter (not mark and type <> 'payment.accepted'
                       and coalesce(status_before, 'accepted') = 'accepted') as ended,
                   count(*) filter (type = 'payment.settled') as settled,
                   count(*) as events, max(version) as version
              from story group by resource_id),
        allowed as (
            select * from (values
                (null, 'payment.accepted', 'accepted'), ('accepted', 'payment.settled', 'settled'),
                ('accepted', 'payment.rejected', 'rejected'),
                ('accepted', 'payment.authorized', 'authorized'),
                ('authorized', 'payment.captured', 'authorized'),
                ('authorized', 'payment.settled', 'settled'),
                ('authorized', 'payment.settled', 'partially_refunded'),
                ('authorized', 'payment.settled', 'refunded'),
                ('authorized', 'payment.voided', 'voided'),
                ('authorized', 'payment.expired', 'expired'),
                ('authorized', 'payment.refunded', 'authorized'),
                ('settled', 'payment.refunded', 'partially_refunded'),
                ('settled', 'payment.refunded', 'refunded'),
                ('partially_refunded', 'payment.refunded', 'partially_refunded'),
                ('partially_refunded', 'payment.refunded', 'refunded'),
                (null, 'account.opened', 'active'), (null, 'account.rejected', 'rejected'),
                ('active', 'account.frozen', 'frozen'), ('frozen', 'account.frozen', 'frozen'),
                ('active', 'account.unfrozen', 'active'),
                ('frozen', 'account.unfrozen', 'active'), ('frozen', 'account.unfrozen', 'frozen'),
                ('active', 'account.closed', 'closed'), ('frozen', 'account.closed', 'closed'),
                (null, 'transfer.posted', 'posted'), (null, 'transfer.rejected', 'rejected'))
                as t(before, type, after))
        select resource_id, coalesce(t.accepted, 0) as accepted, coalesce(t.ended, 0) as ended
          from creations a full join told t using (resource_id)
         where (coalesce(a.old, true) and a.alive > 0
                and coalesce(t.ended, 0) <> case when a.dry then 0 else 1 end)
            or t.ended > 1 or t.accepted > 1 or t.settled > 1 or t.events <> t.version
            or (t.ended = 1 and a.type = 'payment.create' and t.accepted <> 1)
            or a.resource_id is null
        union all
        select s.resource_id, s.version, -1
          from story s left join allowed w
            on coalesce(w.before, '') = coalesce(s.status_before, '') and w.type = s.type
           and w.after = s.status
         where not s.mark and w.type is null
        union all
        select resource_id, version, -2 from story
         where mark and not starts_with(type, 'account.')
           and status <> coalesce(status_before, 'accepted')""",
    ),
    Check(
        "payments_agree_with_ledger",
        "every event tells the outcome, the reason and the amounts so far that the ledger has",
        "select count(*) from story where type not in ('payment.accepted', 'payment.conflicted')",
        """
        with said as (
            select * from story
             where type <> 'payment.accepted' and not ends_with(type, '.conflicted')),
        ended as (
            select saga_id, identity, any_value(told_reason) as reason,
                   case any_value(type) when 'transfer.committed' then 'transfer.reversed'
                   else 'transfer.rejected' end as type
              from decided
             where type in ('transfer.committed', 'transfer.aborted') and not repeated
               and (told_extra -> '$.reversal') is not null
             group by all),
        found as (
            select s.*, o.partition, o.position, o.saga_id, o.step, o.told_type, o.told_reason,
                   f.amount_minor as part_minor, f.remaining_minor,
                   o.told_partition, o.told_position
              from said s
              left join decided o on o.partition = s.ledger_partition
                                 and o.position = s.ledger_position
              left join facts f on f.partition = o.partition and f.position = o.position
             where s.operation_id is null
            union all
            -- Of what several homes had to agree on, the ends tell what became of it.
            select s.*, o.partition, o.position, o.saga_id, o.step,
                   coalesce(ended.type, o.told_type), coalesce(ended.reason, o.told_reason),
                   f.amount_minor, f.remaining_minor, o.told_partition, o.told_position
              from said s
              left join decided o on o.saga_id = s.resource_id and o.identity = s.operation_id
                                 and o.step like '%-' || o.identity
                                 and not regexp_matches(o.step, '^(prepare|commit|abort)-')
              left join ended on ended.saga_id = o.saga_id and ended.identity = o.identity
              left join facts f on f.partition = o.partition and f.position = o.position
             where s.operation_id is not null),
        summed as (
            select *,
                   sum(case when mark then 0 when told_type = 'hold.posted' then part_minor
                            when told_type in ('transfer.posted', 'transfer.committed')
                            then amount_minor end) over w
                       as captured,
                   sum(case when told_type = 'transfer.reversed' and not mark then part_minor end)
                       over w as refunded,
                   count(*) filter (position is null) over w as unknown
              from found window w as (partition by resource_id order by version, _offset))
        select f.resource_id, f.type, f.told_type, f.reason, f.told_reason
          from summed f
          left join partitions p on p.partition = f.ledger_partition
          left join entries e on e.share = f.told_partition and e.position = f.told_position
                             and e.account_id = f.destination_account
         where case when f.operation_id is null or f.ledger_position is not null
                    then f.ledger_position < p.next_position
                    else f.old or f.position is not null end
           and (f.saga_id is distinct from f.resource_id
             or f.told_reason is distinct from f.reason
             or f.ledger_position is not null
                and (f.partition, f.position)
                    is distinct from (f.ledger_partition::int8, f.ledger_position)
             or not coalesce(case
                    when f.mark then f.told_type in
                        ('transfer.rejected', 'hold.rejected', 'account.rejected')
                    when f.type = 'payment.settled' then
                        case f.told_type when 'transfer.posted' then f.status_before = 'accepted'
                        when 'transfer.committed' then f.status_before = 'accepted'
                        when 'hold.posted' then f.remaining_minor = 0
                        when 'hold.voided' then f.captured > 0 end
                    when f.type = 'payment.rejected'
                        then f.told_type in
                            ('transfer.rejected', 'hold.rejected', 'transfer.aborted')
                    when f.type = 'transfer.posted'
                        then f.told_type in ('transfer.posted', 'transfer.committed')
                    when f.type = 'transfer.rejected'
                        then f.told_type in ('transfer.rejected', 'transfer.aborted')
                    when f.type = 'payment.authorized' then f.told_type = 'hold.placed'
                    when f.type = 'payment.captured'
                        then f.told_type = 'hold.posted' and f.remaining_minor > 0
                    when f.type = 'payment.voided'
                        then f.told_type = 'hold.voided' and f.step <> 'expire'
                    when f.type = 'payment.expired'
                        then f.told_type = 'hold.voided' and f.step = 'expire'
                    when f.type = 'payment.refunded' then f.told_type = 'transfer.reversed'
                    else f.told_type = f.type end, false)
             or f.type = 'payment.settled'
                and f.told_type in ('transfer.posted', 'transfer.committed')
                and (e.amount_minor, e.currency) is distinct from (f.amount_minor, f.currency)
             or starts_with(f.type, 'payment.') and f.unknown = 0 and (
                    coalesce(f.captured_minor, 0) <> coalesce(f.captured, 0)
                 or coalesce(f.refunded_minor, 0) <> coalesce(f.refunded, 0)
                 or coalesce(f.refunded, 0) > coalesce(f.captured, 0)
                 or coalesce(f.authorized_minor, 0) <> case
                        when f.capture = 'manual' and f.status not in ('accepted', 'rejected')
                        then f.amount_minor else 0 end
                 or f.status in ('voided', 'expired') and f.captured > 0
                 or f.status = 'settled' and f.refunded > 0
                 or f.status = 'refunded' and f.refunded <> f.captured
                 or f.status = 'partially_refunded' and f.refunded >= f.captured))
        union all
        select f.resource_id, f.type, null, f.reason, null from said f
         where f.ledger_position is null and f.operation_id is null
        union all
        select o.saga_id, o.step, o.told_type, null, o.told_reason
          from decided o
          left join (select distinct resource_id from creations) c on c.resource_id = o.saga_id
          left join found f on f.resource_id = o.saga_id
                           and f.partition = o.partition and f.position = o.position
         where o.old and o.retained and not o.dry and not o.repeated and f.resource_id is null
           and o.type <> 'transfer.prepared' and not starts_with(o.step, 'prepare-')
           and (o.step in ('commit-0', 'abort-0')
                or not starts_with(o.step, 'commit-') and not starts_with(o.step, 'abort-'))
           and (o.step in ('post', 'reject', 'place', 'open')
             or o.step = 'expire' and o.type = 'hold.voided'
             or o.step <> 'expire' and c.resource_id is not null)""",
    ),
    Check(
        "records_lie_where_their_key_says",
        "every keyed record carries its home account as key and lies in its slot's partition",
        """select (select count(*) from requests) + (select count(*) from commands)
                + (select count(*) from ledger_events) + (select count(*) from payment_events)""",
        """
        with keyed as (
            select 'payments.requests' as topic, _partition, _offset, _key, slot, home_account
              from requests
            union all
            select 'ledger.commands', _partition, _offset, _key, slot, home_account from commands
            union all
            select 'ledger.events', _partition, _offset, _key, slot, home_account
              from ledger_events
            union all
            select 'payments.events', _partition, _offset, _key, slot, home_account
              from payment_events)
        select k.topic, k._partition, k._offset, k.home_account
          from keyed k
          join (select topic, count(*) as partitions from bounds group by topic) b using (topic)
         where k.slot % b.partitions <> k._partition or decode(k._key) <> k.home_account""",
    ),
    Check(
        "webhooks_judged_once",
        "every verified delivery has exactly one verdict, and every event is accepted once",
        "select count(*) from webhook_deliveries where old",
        """
        select d._partition, d._offset, d.partner_event_id, count(e.event_id) as verdicts
          from webhook_deliveries d
          left join webhook_events e on e.received_partition = d._partition
                                    and e.received_offset = d._offset
          left join dead x on x.topic = 'webhooks.received' and x.partition = d._partition
                          and x.offset = d._offset
         where x.offset is null and d.old
         group by all having count(e.event_id) <> 1
        union all
        select -1, -1, source || ':' || partner_event_id,
               count(*) filter (type = 'webhook.accepted')
          from webhook_events
         group by source, partner_event_id
        having count(*) filter (type = 'webhook.accepted') <> 1""",
    ),
)
