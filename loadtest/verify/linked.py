"""Views over transfers that several homes agree on, as the journal's rows tell of them. Pure data.

`linked` are the rows that prepare, commit or abort a part; `link_sides` what each holds, promises,
moves or gives up of a leg; `linked_moves` the legs as they were posted, with both of their accounts
by the entries. `place_of` is the partition that posts a leg: the home of its source if that is
guarded, else of its destination if that is, else of the transfer.
"""

from __future__ import annotations

from typing import Final

PRELUDE: Final = """
create macro home_of(id) as
    slot_in(id) % (select count(*) from bounds where topic = 'ledger.commands');
create macro place_of(source, destination, saga_id) as
    home_of(case when starts_with(source, 'acct_c') then source
                 when starts_with(destination, 'acct_c') then destination else saga_id end);
create table linked as
select partition, position, type, saga_id, step, command_offset, old, retained,
       told_extra -> '$.linked' as told
  from decided
 where type in ('transfer.prepared', 'transfer.committed', 'transfer.aborted') and not repeated
   and not dry;
create table link_sides as
with held as (
    select *, unnest(from_json(told -> '$.held', '["JSON"]')) as side,
           generate_subscripts(from_json(told -> '$.held', '["JSON"]'), 1) - 1 as n
      from linked),
reserved as (
    select *, unnest(from_json(told -> '$.reserved', '["JSON"]')) as side from linked)
select h.partition, h.position, h.type, h.saga_id, 'debit' as kind, e.ordinal,
       (side ->> '$[0]')::int8 as leg, (side ->> '$[1]')::int8 as amount_minor,
       e.account_id as source, side ->> '$[2]' as destination, e.currency
  from held h
  left join entries e on e.share = h.partition and e.position = h.position
       and e.ordinal = h.n * case h.type when 'transfer.committed' then 2 else 1 end
union all
select partition, position, type, saga_id, 'credit', null,
       (side ->> '$[0]')::int8, (side ->> '$[1]')::int8,
       side ->> '$[2]', side ->> '$[3]', side ->> '$[4]'
  from reserved;
create view linked_moves as
select s.saga_id, s.leg, s.partition, s.position, s.source, c.account_id as destination, s.currency,
       c.amount_minor
  from link_sides s
  join entries c on c.share = s.partition and c.position = s.position
                and c.ordinal = s.ordinal + 1
 where s.type = 'transfer.committed' and s.kind = 'debit';
"""
