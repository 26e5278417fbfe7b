"""What must hold of the read model: it shows every event, entry and transfer, and nothing else.

Pure data; the tables and the shape of a check are told in `checks`.
"""

from __future__ import annotations

from typing import Final

from loadtest.verify.checks import Check

VIEWS: Final = (
    Check(
        "views_tell_every_event",
        "each payment's timeline is exactly its events, and its status the newest of them",
        "select count(*) from view_timeline",
        """
        with told as (
            select resource_id as payment_id, version, occurred_at_us as at_us,
                   split_part(type, '.', 2) as event, reason, event_id, old, status, mark,
                   authorized_minor, captured_minor, refunded_minor
              from story where type like 'payment.%'),
        newest as (
            select p.payment_id, arg_max(t.status, t.version) as status,
                   max_by({'reason': t.reason, 'authorized': t.authorized_minor,
                       'captured': t.captured_minor, 'refunded': t.refunded_minor},
                       t.version) as now
              from view_payments p
              join told t on t.payment_id = p.payment_id and t.version <= p.version
             where not t.mark group by p.payment_id),
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
            or (p.reason, p.authorized_minor, p.captured_minor, p.refunded_minor) is distinct from
               (n.now.reason, n.now.authorized, n.now.captured, n.now.refunded)""",
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
           and (a.tenant, a.kind, a.currency) is distinct from (v.tenant, v.kind, v.currency)
        union all
        select v.account_id, f.partition, f.position, 'flags differ'
          from facts f join view_accounts v using (account_id)
         where f.type in ('account.frozen', 'account.unfrozen', 'account.closed')
           and not f.repeated
           and (f.old and v.changed_position < f.position
             or v.changed_position = f.position
                and (v.debits_frozen, v.credits_frozen, v.status) is distinct from
                    (f.debits_frozen, f.credits_frozen, case when f.closed then 'closed'
                        when f.debits_frozen or f.credits_frozen then 'frozen'
                        else 'active' end))
        union all
        select account_id, -1, changed_position, 'was never flagged' from view_accounts
         where changed_position = 0 and (status <> 'active' or debits_frozen or credits_frozen)""",
    ),
    Check(
        "views_show_every_transfer",
        "each transfer and reversal is shown once, as the ledger decided it",
        "select count(*) from view_transfers",
        """
        with firsts as (
            -- Of several homes, the transfer's own says how it ended.
            select o.partition, o.position, o.transfer_id, o.tenant, o.told_reason as reason,
                   o.told_failed_leg as failed_leg, o.old, f.original_id,
                   case when o.type in ('transfer.rejected', 'transfer.aborted') then 'rejected'
                   else 'posted' end as status,
                   case when o.type in ('transfer.reversed', 'transfer.committed')
                        then f.amount_minor end as reversed_minor
              from decided o join facts f using (partition, position)
             where (o.type in ('transfer.posted', 'transfer.reversed')
                 or o.type = 'transfer.rejected' and not starts_with(o.step, 'prepare-')
                                                 and not starts_with(o.step, 'commit-')
                 or o.type in ('transfer.committed', 'transfer.aborted')
                    and o.partition = home_of(o.transfer_id))
               and not o.repeated and not o.dry and starts_with(o.transfer_id, 'tr_')
            qualify row_number() over (partition by o.transfer_id order by o.position) = 1),
        kept as (select *, home_of(transfer_id)::int8 as home from view_transfers),
        moved as (
            select o.transfer_id, o.old, e.share, e.version, e.account_id, e.amount_minor,
                   e.currency, e.posted_minor, e.held_minor, s.leg
              from decided o
              join entries e on e.share = o.partition and e.position = o.position
              left join link_sides s on s.partition = o.partition and s.position = o.position
                                    and s.ordinal // 2 = e.ordinal // 2
             where o.type in ('transfer.posted', 'transfer.reversed', 'transfer.committed')
               and not o.repeated and starts_with(o.transfer_id, 'tr_')),
        shown as (
            select transfer_id, side.*
              from (select transfer_id, unnest(from_json(entries, '[{"leg": "BIGINT",
                        "account_id": "VARCHAR", "share": "BIGINT", "version": "BIGINT",
                        "amount_minor": "BIGINT", "currency": "VARCHAR",
                        "posted_minor": "BIGINT", "held_minor": "BIGINT"}]')) as side
                      from view_transfers)),
        published as (
            select transfer_id, side.account_id, side.share, side.version
              from (select transfer_id, unnest(entries) as side from ledger_events
                     where type in ('transfer.posted', 'transfer.reversed',
                                    'transfer.committed')))
        select transfer_id, f.position, v.status, 'differs from the ledger' as difference
          from firsts f full join kept v using (transfer_id)
          left join partitions p on p.partition = v.home
         where v.transfer_id is null and f.old
            or f.transfer_id is null and v.ledger_position > 0
               and v.ledger_position < p.next_position
            or v.ledger_position = 0 and (f.old or v.status <> 'posted')
            or f.transfer_id is not null and v.transfer_id is not null
               and (f.tenant, f.reason, f.failed_leg, f.original_id, f.reversed_minor, f.status)
                   is distinct from (v.tenant, v.reason, v.failed_leg, v.original_id,
                    v.reversed_minor, v.status)
            or v.ledger_position > 0 and f.position <> v.ledger_position
        union all
        select transfer_id, -1, any_value(status), 'more than once'
          from view_transfers group by transfer_id having count(*) > 1
        union all
        select m.transfer_id, m.version, m.account_id, 'entry is not shown'
          from moved m left join shown s using (transfer_id, account_id, share, version)
         where s.transfer_id is null and m.old
            or s.transfer_id is not null
               and (m.amount_minor, m.currency, m.posted_minor, m.held_minor, m.leg)
                   is distinct from
                   (s.amount_minor, s.currency, s.posted_minor, s.held_minor, s.leg)
        union all
        select transfer_id, s.version, account_id, 'entry is not of the transfer'
          from shown s
          anti join moved using (transfer_id, account_id, share, version)
          anti join published using (transfer_id, account_id, share, version)
        union all
        select transfer_id, version, account_id, 'entry is shown more than once'
          from shown group by transfer_id, account_id, share, version having count(*) > 1""",
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
