"""What must hold of reversals: of no leg more than it moved, whoever pays it back. Pure data."""

from __future__ import annotations

from typing import Final

from loadtest.verify.checks import Check

REVERSALS: Final = (
    Check(
        "reversals_within_the_original",
        "of each leg never more was paid back than it moved, and as much as is kept of it",
        "select count(*) from facts where type = 'transfer.reversed' and not repeated",
        """
        with back as (
            -- What is prepared counts until it is aborted.
            select partition, position, original_partition, original_position, leg[1] as leg,
                   leg[2] as amount_minor, case type when 'transfer.aborted' then -1 else 1 end
                       as sign
              from (select *, unnest(legs) as leg from facts
                     where type in ('transfer.reversed', 'transfer.prepared', 'transfer.aborted')
                       and not repeated)),
        moved as (
            select e.share as original_partition, e.position as original_position,
                   e.ordinal // 2 as leg, d.account_id as source, e.account_id as destination,
                   e.currency, e.amount_minor
              from entries e join outcomes o on o.partition = e.share and o.position = e.position
              join entries d on d.share = e.share and d.position = e.position
                            and d.ordinal = e.ordinal - 1
             where o.type = 'transfer.posted' and e.ordinal % 2 = 1
            union all
            select f.partition, f.position, 0, h.source, h.destination, h.currency,
                   h.captured_minor
              from facts f join holds h using (hold_id)
             where f.type = 'hold.placed' and not f.repeated and not f.dry
            union all
            select l.partition, l.position, m.leg, m.source, m.destination, m.currency,
                   m.amount_minor
              from agreements l join linked_moves m using (agreed_on)
             where not l.is_reversal),
        summed as (
            select original_partition, original_position, leg, count(distinct partition) as owners,
                   any_value(partition) as partition, sum(sign * amount_minor) as reversed_minor,
                   min(amount_minor) as least_minor
              from back group by all),
        agreed as (
            select b.*, original_legs[n] as leg, legs[n] as back
              from (select *, unnest(generate_series(1, len(legs))) as n from agreements
                     where is_reversal) b)
        select original_partition, original_position, leg, s.reversed_minor, m.amount_minor
          from summed s
          left join moved m using (original_partition, original_position, leg)
          full join reversals r using (original_partition, original_position, leg)
         where m.amount_minor is null or s.reversed_minor > m.amount_minor or s.least_minor <= 0
            or s.owners <> 1
            or (s.reversed_minor, s.partition) is distinct from (r.reversed_minor, r.partition)
        union all
        select original_partition, original_position, leg, a.back.amount_minor, m.amount_minor
          from agreed a left join moved m using (original_partition, original_position, leg)
         where (a.back.source, a.back.destination, a.back.currency)
               is distinct from (m.destination, m.source, m.currency)
        union all
        select f.partition, f.position, f.original_leg, f.amount_minor, c.amount_minor
          from facts f
          left join commands c on c._partition = f.partition and c._offset = f.command_offset
          left join outcomes o on o.partition = f.original_partition
                              and o.position = f.original_position
         where f.type = 'transfer.reversed' and not f.repeated
           and (o.transfer_id is distinct from f.original_id or o.repeated or f.remaining_minor < 0
             or f.amount_minor <> list_sum(list_transform(f.legs, lambda leg: leg[2]))
             or f.original_leg is not null
                and list_transform(f.legs, lambda leg: leg[1]) <> [f.original_leg]
             or f.retained and ((c.original_id, c.original_leg) is distinct from
                                (f.original_id, f.original_leg)
                             or c.amount_minor <> f.amount_minor))""",
    ),
)
