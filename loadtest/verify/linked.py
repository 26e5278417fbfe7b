"""Views over what several homes agree on, as the journal's rows tell of it. Pure data.

What they agree on (`agreed_on`) is a transfer, or one reversal. `linked` are the rows that prepare,
commit or abort a part of it; `agreements` those of the first home, which names the others (`parts`)
and, of a reversal, the legs; `link_sides` what each holds, promises, moves or gives up of a leg;
`linked_moves` the legs as they were posted, with both of their accounts by the entries. `place_of`
is the partition that posts a transfer's leg: the home of its source if that is guarded, else of its
destination if that is, else of the transfer. A reversal's is posted by whom rows say: its owner.
"""

from __future__ import annotations

from typing import Final

PRELUDE: Final = """
create macro home_of(id) as
    slot_in(id) % (select count(*) from bounds where topic = 'ledger.commands');
create macro place_of(source, destination, saga_id) as
    home_of(case when starts_with(source, 'acct_c') then source
                 when starts_with(destination, 'acct_c') then destination else saga_id end);
create macro agreement(saga_id, identity, is_reversal) as
    case when is_reversal then concat(saga_id, '/', identity) else saga_id end;
create table linked as
select partition, position, type, agreement(saga_id, identity, reversal is not null) as agreed_on,
       saga_id, step, command_offset, old, retained, told, reversal is not null as is_reversal,
       (reversal ->> '$.partition')::int8 as original_partition,
       (reversal ->> '$.position')::int8 as original_position,
       from_json(reversal -> '$.legs', '[["BIGINT"]]') as returned
  from (select *, told_extra -> '$.linked' as told, told_extra -> '$.reversal' as reversal
          from decided)
 where type in ('transfer.prepared', 'transfer.committed', 'transfer.aborted') and not repeated
   and not dry;
create view agreements as
select l.agreed_on, l.partition, l.position, l.is_reversal, l.original_partition,
       l.original_position, f.parts, (l.told ->> '$.legs')::int8 as legs_total,
       case when l.is_reversal then f.back_legs else c.legs end as legs,
       f.back_indexes as original_legs
  from linked l
  join facts f using (partition, position)
  left join commands c on c._partition = l.partition and c._offset = l.command_offset
 where len(f.parts) > 0;
create table link_sides as
with held as (
    select *, unnest(from_json(told -> '$.held', '["JSON"]')) as side,
           generate_subscripts(from_json(told -> '$.held', '["JSON"]'), 1) - 1 as n
      from linked),
reserved as (
    select *, unnest(from_json(told -> '$.reserved', '["JSON"]')) as side from linked)
select h.partition, h.position, h.type, h.agreed_on, 'debit' as kind, e.ordinal,
       (side ->> '$[0]')::int8 as leg, (side ->> '$[1]')::int8 as amount_minor,
       e.account_id as source, side ->> '$[2]' as destination, e.currency
  from held h
  left join entries e on e.share = h.partition and e.position = h.position
       and e.ordinal = h.n * case h.type when 'transfer.committed' then 2 else 1 end
union all
select partition, position, type, agreed_on, 'credit', null,
       (side ->> '$[0]')::int8, (side ->> '$[1]')::int8,
       side ->> '$[2]', side ->> '$[3]', side ->> '$[4]'
  from reserved;
create view linked_moves as
select s.agreed_on, s.leg, s.partition, s.position, s.source, c.account_id as destination,
       s.currency, c.amount_minor
  from link_sides s
  join entries c on c.share = s.partition and c.position = s.position
                and c.ordinal = s.ordinal + 1
 where s.type = 'transfer.committed' and s.kind = 'debit';
"""
