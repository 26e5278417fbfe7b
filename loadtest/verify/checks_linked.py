"""What must hold of what several homes agree on: all of them post their part, or none.

Pure data; the tables and the shape of a check are told in `checks`, the views over them in
`linked`. A command that lies behind the cut may still be under way; its absence is no fault.
"""

from __future__ import annotations

from typing import Final

from loadtest.verify.checks import Check

LINKED: Final = (
    Check(
        "homes_agree",
        "what several homes agree on is posted whole, each leg once as asked, or not at all",
        "select count(distinct agreed_on) from linked",
        """
        with parts as (
            select distinct agreed_on, home_of(account) as partition
              from (select agreed_on, unnest(parts) as account from agreements)),
        done as (
            select agreed_on, partition, count(*) filter (type = 'transfer.prepared') as prepared,
                   count(*) filter (type = 'transfer.committed') as committed,
                   count(*) filter (type = 'transfer.aborted') as aborted
              from linked group by all),
        asked as (
            select agreement(saga_id, identity, original_id is not null) as agreed_on, _partition,
                   type, legs, original_legs, old
              from commands
             where type in ('transfer.prepare', 'transfer.commit', 'transfer.abort')),
        late as (select distinct agreed_on, _partition as partition from asked where not old),
        told as (
            select agreed_on, type from linked
            union all
            select agreed_on, case type when 'transfer.commit' then 'transfer.committed'
                              else 'transfer.aborted' end
              from asked where type in ('transfer.commit', 'transfer.abort')),
        ends as (
            select agreed_on, bool_or(type = 'transfer.committed') as committed,
                   bool_or(type = 'transfer.aborted') as aborted
              from told group by agreed_on),
        by_part as (
            select p.agreed_on, p.partition, coalesce(d.prepared, 0) as prepared,
                   coalesce(d.committed, 0) as committed, coalesce(d.aborted, 0) as aborted,
                   l.agreed_on is not null as late
              from parts p
              left join done d using (agreed_on, partition)
              left join late l using (agreed_on, partition)),
        whole as (
            select agreed_on from by_part group by agreed_on having bool_and(committed > 0))
        select agreed_on, partition, 'ended more than once, or unprepared' as difference from done
         where prepared > 1 or committed + aborted > 1 or committed > prepared
        union all
        select agreed_on, partition, 'is not one of the homes that must agree'
          from done anti join parts using (agreed_on, partition)
        union all
        select agreed_on, -1, 'committed at one home and aborted at another'
          from ends where committed and aborted
        union all
        select agreed_on, p.partition, 'not committed here, as it was elsewhere'
          from by_part p join ends e using (agreed_on)
         where e.committed and p.committed = 0 and not p.late
        union all
        select agreed_on, p.partition, 'not aborted here, as it was elsewhere'
          from by_part p join ends e using (agreed_on)
         where e.aborted and p.aborted < p.prepared and not p.late
        union all
        select agreed_on, any_value(partition), format('leg {} was posted more than once', leg)
          from linked_moves group by agreed_on, leg having count(*) > 1
        union all
        select agreed_on, l.partition, format('leg {} was not posted', leg)
          from (select *, unnest(range(legs_total)) as leg from agreements) l
          semi join whole using (agreed_on)
          anti join linked_moves using (agreed_on, leg)
        union all
        select agreed_on, m.partition, format('leg {} is not as asked', m.leg)
          from linked_moves m join agreements a using (agreed_on)
         where a.legs is not null
           and (m.source, m.destination, m.amount_minor, m.currency) is distinct from
               (a.legs[m.leg + 1].source, a.legs[m.leg + 1].destination,
                a.legs[m.leg + 1].amount_minor, a.legs[m.leg + 1].currency)
        union all
        select agreed_on, c._partition, 'was asked for other legs than the home was'
          from asked c join agreements a using (agreed_on)
         where a.legs is not null
           and (c.legs is distinct from a.legs
             or a.is_reversal and c.original_legs is distinct from a.original_legs)""",
    ),
    Check(
        "links_follow_rows",
        "what is kept of each part is what its rows come to, and no more than a cap is promised",
        "select count(*) from links",
        """
        with ended as (
            select concat(agreed_on, '/', leg) as link_id, kind, partition,
                   any_value(source) filter (type = 'transfer.prepared') as source,
                   any_value(destination) filter (type = 'transfer.prepared') as destination,
                   any_value(currency) filter (type = 'transfer.prepared') as currency,
                   any_value(amount_minor) filter (type = 'transfer.prepared') as amount_minor,
                   arg_max(type, position) as type, count(distinct amount_minor) as amounts
              from link_sides group by agreed_on, leg, kind, partition),
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
        select concat(m.agreed_on, '/', m.leg), 'credit', m.partition, null, 'no room was promised'
          from linked_moves m
          join accounts a on a.account_id = m.destination and a.max_balance_minor is not null
          left join links k on k.link_id = concat(m.agreed_on, '/', m.leg) and k.kind = 'credit'
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
