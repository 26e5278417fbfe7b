"""What must hold of payments and webhooks: one end each, told and shown as the ledger decided it.

Pure data; the tables and the shape of a check are told in `checks`.
"""

from __future__ import annotations

from typing import Final

from loadtest.verify.checks import Check

PAYMENTS: Final = (
    Check(
        "requests_end_once",
        "every accepted request has exactly one final event, and nothing happens after it",
        "select count(distinct resource_id) from requests where old",
        """
        with asked as (
            select resource_id, bool_or(old) as old, any_value(type) as type,
                   count(*) filter (d.offset is null) as alive
              from requests r
              left join dead d on d.topic = 'payments.requests' and d.partition = r._partition
                              and d.offset = r._offset
             group by resource_id),
        told as (
            select resource_id, count(*) filter (type = 'payment.accepted') as accepted,
                   count(*) filter (type in ('payment.settled', 'payment.rejected',
                       'account.opened', 'account.rejected')) as ended,
                   count(*) as events, max(version) as version
              from payment_events group by resource_id)
        select resource_id, coalesce(t.accepted, 0) as accepted, coalesce(t.ended, 0) as ended
          from asked a full join told t using (resource_id)
         where (coalesce(a.old, true) and a.alive > 0 and coalesce(t.ended, 0) <> 1)
            or t.ended > 1 or t.accepted > 1 or t.events <> t.version
            or (t.ended = 1 and a.type = 'payment.create' and t.accepted <> 1)
            or a.resource_id is null""",
    ),
    Check(
        "payments_agree_with_ledger",
        "every final event tells the outcome, the reason and the amounts that the ledger has",
        "select count(*) from finals",
        """
        select f.resource_id, f.type, o.told_type, f.reason, o.told_reason
          from finals f
          join partitions p on p.partition = f.ledger_partition
          left join decided o on o.partition = f.ledger_partition
                             and o.position = f.ledger_position
          left join entries e on e.share = o.told_partition and e.position = o.told_position
                             and e.account_id = f.destination_account
         where f.ledger_position < p.next_position
           and (o.saga_id is distinct from f.resource_id
             or o.told_type is distinct from case f.type
                    when 'payment.settled' then 'transfer.posted'
                    when 'payment.rejected' then 'transfer.rejected' else f.type end
             or o.told_reason is distinct from f.reason
             or f.type = 'payment.settled'
                and (e.amount_minor, e.currency) is distinct from (f.amount_minor, f.currency))
        union all
        select f.resource_id, f.type, null, f.reason, null from finals f
         where f.ledger_position is null
        union all
        select o.saga_id, null, o.told_type, null, o.told_reason
          from decided o left join finals f on f.resource_id = o.saga_id
         where o.old and o.retained and f.resource_id is null""",
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

VIEWS: Final = (
    Check(
        "views_tell_every_event",
        "each payment's timeline is exactly its events, and its status the newest of them",
        "select count(*) from view_timeline",
        """
        with told as (
            select resource_id as payment_id, version, occurred_at_us as at_us,
                   split_part(type, '.', 2) as event, reason, event_id, old, status
              from payment_events where type like 'payment.%'),
        newest as (
            select p.payment_id, arg_max(t.status, t.version) as status,
                   arg_max(t.reason, t.version) as reason
              from view_payments p
              join told t on t.payment_id = p.payment_id and t.version <= p.version
             where t.event <> 'conflicted' group by p.payment_id),
        reached as (select payment_id, max(version) as version from view_timeline group by 1)
        select payment_id, version, event, 'not shown' as difference
          from told t anti join view_timeline v using (payment_id, version)
         where t.old
        union all
        select v.payment_id, v.version, v.event, 'differs from the log'
          from view_timeline v left join told t using (payment_id, version)
         where (v.event, v.event_id, v.reason, v.at_us)
               is distinct from (t.event, t.event_id, t.reason, t.at_us)
        union all
        select p.payment_id, p.version, p.status, 'is not the newest status'
          from view_payments p
          left join newest n using (payment_id) left join reached r using (payment_id)
         where (p.status, p.version) is distinct from (n.status, r.version)
            or p.reason is distinct from n.reason""",
    ),
    Check(
        "views_show_the_ledger",
        "accounts, entries and balances that clients read are those of the ledger",
        "select count(*) from view_entries",
        """
        with kept as (
            select e.account_id, e.share, e.version, e.amount_minor, e.posted_minor, e.held_minor,
                   e.currency, e.position
              from entries e join decided o on o.partition = e.share and o.position = e.position
             where o.old),
        shown as (
            select v.account_id, v.share, v.version, v.amount_minor, v.posted_minor, v.held_minor,
                   v.currency, v.ledger_position
              from view_entries v join partitions p on p.partition = v.share
             where v.ledger_position < p.next_position),
        known as (
            select e.account_id, e.share, e.version, e.amount_minor, e.posted_minor, e.held_minor,
                   e.currency, e.position from entries e),
        last as (
            select account_id, share, max(version) as version,
                   arg_max(posted_minor, version) as posted_minor,
                   arg_max(held_minor, version) as held_minor
              from view_entries group by account_id, share)
        select account_id, share, version, 'not shown' as difference
          from (from kept except from shown)
        union all
        select account_id, share, version, 'not in the ledger'
          from (from shown except from known)
        union all
        select account_id, share, l.version, 'balance is not the last entry'
          from last l full join view_shares v using (account_id, share)
         where (l.version, l.posted_minor, l.held_minor)
               is distinct from (v.version, v.posted_minor, v.held_minor)
        union all
        select a.account_id, -1, -1, 'account differs'
          from decided o
          join accounts a on a.account_id = o.saga_id
          left join view_accounts v on v.account_id = a.account_id
         where o.old and o.type = 'account.opened'
           and (a.tenant, a.kind, a.currency) is distinct from (v.tenant, v.kind, v.currency)""",
    ),
    Check(
        "views_count_webhooks",
        "each partner's event is shown once, with every delivery counted",
        "select count(*) from view_webhooks",
        """
        with told as (
            select source, partner_event_id, count(*) as deliveries, bool_and(old) as old
              from webhook_events group by all)
        select source, partner_event_id, t.deliveries, v.deliveries as shown
          from told t full join view_webhooks v using (source, partner_event_id)
         where coalesce(t.old, true) and t.deliveries is distinct from v.deliveries""",
    ),
)
