"""What must hold of transfers that several homes agree on: all of them post their part, or none.

Pure data; the tables and the shape of a check are told in `checks`, the views over them in
`linked`. A command that lies behind the cut may still be under way; its absence is no fault.
"""

from __future__ import annotations

from typing import Final

from loadtest.verify.checks import Check

LINKED: Final = (
    Check(
        "homes_agree",
        "a transfer over several homes is posted whole, each leg once as asked, or not at all",
        "select count(distinct saga_id) from linked",
        """
        with parts as (
            select distinct saga_id, home_of(account) as partition
              from (select saga_id, unnest(from_json(told -> '$.parts', '["VARCHAR"]')) as account
                      from linked where step = 'post')),
        done as (
            select saga_id, partition, count(*) filter (type = 'transfer.prepared') as prepared,
                   count(*) filter (type = 'transfer.committed') as committed,
                   count(*) filter (type = 'transfer.aborted') as aborted
              from linked group by all),
        late as (
            select distinct saga_id, _partition as partition from commands
             where type in ('transfer.prepare', 'transfer.commit', 'transfer.abort') and not old),
        told as (
            select saga_id, type from linked
            union all
            select saga_id, case type when 'transfer.commit' then 'transfer.committed'
                            else 'transfer.aborted' end
              from commands where type in ('transfer.commit', 'transfer.abort')),
        ends as (
            select saga_id, bool_or(type = 'transfer.committed') as committed,
                   bool_or(type = 'transfer.aborted') as aborted
              from told group by saga_id),
        by_part as (
            select p.saga_id, p.partition, coalesce(d.prepared, 0) as prepared,
                   coalesce(d.committed, 0) as committed, coalesce(d.aborted, 0) as aborted,
                   l.saga_id is not null as late
              from parts p
              left join done d using (saga_id, partition)
              left join late l using (saga_id, partition)),
        asked as (
            select l.saga_id, c.legs
              from linked l
              join commands c on c._partition = l.partition and c._offset = l.command_offset
             where l.step = 'post' and l.retained),
        whole as (
            select saga_id from by_part group by saga_id having bool_and(committed > 0))
        select saga_id, partition, 'ended more than once, or unprepared' as difference from done
         where prepared > 1 or committed + aborted > 1 or committed > prepared
        union all
        select saga_id, partition, 'is not one of the homes that must agree'
          from done anti join parts using (saga_id, partition)
        union all
        select saga_id, -1, 'committed at one home and aborted at another'
          from ends where committed and aborted
        union all
        select saga_id, p.partition, 'not committed here, as it was elsewhere'
          from by_part p join ends e using (saga_id)
         where e.committed and p.committed = 0 and not p.late
        union all
        select saga_id, p.partition, 'not aborted here, as it was elsewhere'
          from by_part p join ends e using (saga_id)
         where e.aborted and p.aborted < p.prepared and not p.late
        union all
        select saga_id, any_value(partition), format('leg {} was posted more than once', leg)
          from linked_moves group by saga_id, leg having count(*) > 1
        union all
        select saga_id, l.partition, format('leg {} was not posted', leg)
          from (select *, unnest(range((told ->> '$.legs')::int8)) as leg
                  from linked where step = 'post') l
          semi join whole using (saga_id)
          anti join linked_moves using (saga_id, leg)
        union all
        select saga_id, m.partition, format('leg {} is not as asked', m.leg)
          from linked_moves m join asked a using (saga_id)
         where (m.source, m.destination, m.amount_minor, m.currency) is distinct from
               (a.legs[m.leg + 1].source, a.legs[m.leg + 1].destination,
                a.legs[m.leg + 1].amount_minor, a.legs[m.leg + 1].currency)
        union all
        select saga_id, c._partition, 'was asked for other legs than the home was'
          from commands c join asked a using (saga_id)
         where c.type in ('transfer.prepare', 'transfer.commit', 'transfer.abort')
           and c.legs is distinct from a.legs""",
    ),
    Check(
        "links_follow_rows",
        "what is kept of each part is what its rows come to, and no more than a cap is promised",
        "select count(*) from links",
        """
        with ended as (
            select concat(saga_id, '/', leg) as link_id, kind, partition,
                   any_value(source) filter (type = 'transfer.prepared') as source,
                   any_value(destination) filter (type = 'transfer.prepared') as destination,
                   any_value(currency) filter (type = 'transfer.prepared') as currency,
                   any_value(amount_minor) filter (type = 'transfer.prepared') as amount_minor,
                   arg_max(type, position) as type, count(distinct amount_minor) as amounts
              from link_sides group by saga_id, leg, kind, partition),
        derived as (
            select link_id, kind, partition, source, destination, currency, amount_minor,
                   case type when 'transfer.prepared' then 'open'
                   else split_part(type, '.', 2) end as state
              from ended),
        promised as (
            -- What another partition has credited stays promised, as its home can't see it.
            select c.destination as account_id, sum(c.amount_minor) as promised_minor
              from links c left join links d on d.link_id = c.link_id and d.kind = 'debit'
             where c.kind = 'credit' and (c.state = 'open' or c.state = 'committed'
                   and d.partition is distinct from c.partition)
             group by all),
        kept as (
            select link_id, kind, partition, source, destination, currency, amount_minor, state
              from links)
        select link_id, kind, partition, state, 'rows say this' as difference
          from (from derived except all from kept)
        union all
        select link_id, kind, partition, state, 'is stored'
          from (from kept except all from derived)
        union all
        select link_id, kind, partition, type, 'ended with another amount'
          from ended where amounts <> 1
        union all
        select concat(m.saga_id, '/', m.leg), 'credit', m.partition, null, 'no room was promised'
          from linked_moves m
          join accounts a on a.account_id = m.destination and a.max_balance_minor is not null
          left join links k on k.link_id = concat(m.saga_id, '/', m.leg) and k.kind = 'credit'
                           and k.partition = home_of(m.destination)
         where k.link_id is null
        union all
        select account_id, 'room', r.promised_minor, null, 'is not what is promised'
          from rooms r full join promised p using (account_id)
         where coalesce(r.promised_minor, 0) <> coalesce(p.promised_minor, 0)
        union all
        select a.account_id, 'room', s.posted_minor + r.promised_minor, null, 'is above the cap'
          from accounts a join rooms r using (account_id)
          left join shares s on s.account_id = a.account_id and s.share = home_of(a.account_id)
         where coalesce(s.posted_minor, 0) + r.promised_minor > a.max_balance_minor""",
    ),
)
