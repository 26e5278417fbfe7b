"""What must hold of the ledger: one outcome a command, money conserved, balances that add up.

Pure data; the tables and the shape of a check are told in `checks`.
"""

from __future__ import annotations

from typing import Final

from loadtest.verify.checks import Check

LEDGER: Final = (
    Check(
        "commands_decided_once",
        "every committed command has exactly one outcome in the journal, and no outcome lacks one",
        "select count(*) from log_ledger_commands where old",
        """
        with found as (
            select partition, command_offset, count(*) as n, any_value(command_id) as command_id,
                   any_value(identity) as identity, any_value(body_hash) as body_hash
              from outcomes group by partition, command_offset)
        select c._partition, c._offset, c.command_id, coalesce(f.n, 0) as outcomes
          from log_ledger_commands c
          left join found f on f.partition = c._partition and f.command_offset = c._offset
          left join dead d on d.topic = 'ledger.commands' and d.partition = c._partition
                          and d.offset = c._offset
         where c.old and (coalesce(f.n, 0) + (d.offset is not null)::int <> 1
               or f.n = 1 and (c.command_id, c.identity, c.body_hash)
                  is distinct from (f.command_id, f.identity, f.body_hash))
        union all
        select o.partition, o.command_offset, o.command_id, -1
          from decided o
          left join commands c on c._partition = o.partition and c._offset = o.command_offset
         where o.old and o.retained and c._offset is null""",
    ),
    Check(
        "entries_follow_commands",
        "what was decided moved and held exactly what its command said; a refusal moved nothing",
        "select count(*) from decided where old",
        """
        with begun as (
            select o.partition, o.position, o.type, unnest(c.legs) as leg
              from decided o
              join commands c on c._partition = o.partition and c._offset = o.command_offset
             where o.type in ('transfer.posted', 'hold.placed') and not o.repeated and o.retained
               and not c.dry_run),
        holding as (
            select f.partition, f.position, f.type, f.amount_minor, h.source, h.destination,
                   h.currency
              from facts f join holds h using (hold_id)
             where f.type in ('hold.posted', 'hold.voided') and not f.repeated and f.retained),
        back as (
            select partition, position, original_partition, original_position, leg[1] as index,
                   leg[2] as amount_minor
              from (select *, unnest(legs) as leg from facts
                     where type = 'transfer.reversed' and not repeated and retained)),
        linked_legs as (
            select o.*, unnest(c.legs) as leg
              from linked o
              join commands c on c._partition = o.partition and c._offset = o.command_offset
             where o.retained and not o.is_reversal),
        returned as (
            select l.partition, l.position, l.type, r[2] as amount_minor,
                   b.legs[list_position(b.original_legs, r[1])] as leg
              from (select *, unnest(returned) as r from linked where retained and is_reversal) l
              join agreements b using (agreed_on)),
        placed as (
            select l.partition, l.position, l.type, l.leg,
                   case l.type when 'transfer.prepared' then 1 else -1 end as sign
              from linked_legs l
              left join linked p on p.agreed_on = l.agreed_on and p.partition = l.partition
                                and p.type = 'transfer.prepared'
             where place_of(leg.source, leg.destination, l.saga_id) = l.partition
               and (l.type <> 'transfer.aborted' or p.position < l.position)
            union all
            select partition, position, type,
                   {'source': leg.source, 'destination': leg.destination,
                    'amount_minor': amount_minor, 'currency': leg.currency},
                   case type when 'transfer.prepared' then 1 else -1 end
              from returned),
        captured as (
            select b.*, h.source, h.destination, h.currency
              from back b
              join facts p on p.partition = b.original_partition
                          and p.position = b.original_position and p.type = 'hold.placed'
              join holds h using (hold_id)),
        wanted as (
            select partition, position, leg.source as account_id, leg.currency as currency,
                   case type when 'hold.placed' then 0 else -leg.amount_minor end as amount_minor,
                   case type when 'hold.placed' then leg.amount_minor else 0 end as held_minor
              from begun
            union all
            select partition, position, leg.destination, leg.currency, leg.amount_minor, 0
              from begun where type = 'transfer.posted'
            union all
            select partition, position, source, currency,
                   case type when 'hold.posted' then -amount_minor else 0 end, -amount_minor
              from holding
            union all
            select partition, position, destination, currency, amount_minor, 0
              from holding where type = 'hold.posted'
            union all
            select b.partition, b.position, e.account_id, e.currency,
                   case e.ordinal % 2 when 0 then b.amount_minor else -b.amount_minor end, 0
              from back b
              join facts p on p.partition = b.original_partition
                          and p.position = b.original_position
                          and p.type not in ('hold.placed', 'transfer.prepared')
              join entries e on e.share = b.original_partition
                            and e.position = b.original_position
                            and e.ordinal // 2 = b.index
            union all
            select partition, position, source, currency, amount_minor, 0 from captured
            union all
            select partition, position, destination, currency, -amount_minor, 0 from captured
            union all
            select partition, position, leg.source, leg.currency,
                   case type when 'transfer.committed' then -leg.amount_minor else 0 end,
                   sign * leg.amount_minor
              from placed
            union all
            select partition, position, leg.destination, leg.currency, leg.amount_minor, 0
              from placed where type = 'transfer.committed'
            union all
            select b.partition, b.position, unnest([m.source, m.destination]), m.currency,
                   unnest([b.amount_minor, -b.amount_minor]), 0
              from back b
              join linked p on p.partition = b.original_partition
                           and p.position = b.original_position
              join linked_moves m on m.agreed_on = p.agreed_on and m.leg = b.index),
        meant as (
            select partition, position, account_id, currency, sum(amount_minor) as amount_minor,
                   sum(held_minor) as held_minor
              from wanted group by all),
        moved as (
            select m.share as partition, m.position, m.account_id, m.currency,
                   sum(m.amount_minor) as amount_minor, sum(m.held_change) as held_minor
              from moves m join decided o on o.partition = m.share and o.position = m.position
             where o.retained group by all)
        (from meant except from moved) union all (from moved except from meant)""",
    ),
    Check(
        "journal_gapless",
        "positions count up from 1 without a gap, in the order of the commands and of log time",
        "select count(*) from outcomes",
        """
        with ordered as (
            select *, lag(position, 1, 0) over w as position_before,
                   lag(command_offset) over w as offset_before,
                   lag(booked_at_us) over w as booked_before
              from outcomes window w as (partition by partition order by position))
        select partition, position, command_offset from ordered
         where position <> position_before + 1 or command_offset <= offset_before
            or booked_at_us < booked_before
        union all
        select p.partition, p.next_position, p.next_offset
          from partitions p left join outcomes o using (partition)
         group by all having p.next_position <> coalesce(max(o.position), 0) + 1""",
    ),
    Check(
        "journal_is_published",
        "every row of the journal has its event, and every event equals its row",
        "select count(*) from ledger_events",
        """
        select o.partition, o.position, 'no event' as difference
          from decided o
          left join ledger_events e on e.ledger_partition = o.partition and e.position = o.position
         where o.old and e.position is null
        union all
        select e.ledger_partition, e.position, 'differs from the journal'
          from ledger_events e
          left join decided o on o.partition = e.ledger_partition and o.position = e.position
          left join facts f on f.partition = e.ledger_partition and f.position = e.position
          left join sides s on s.share = o.told_partition and s.position = o.told_position
          join partitions p on p.partition = e.ledger_partition
         where e.position < p.next_position
           and ((e.command_id, e.saga_id, e.identity, e.body_hash, e.command_offset)
                is distinct from
                (o.command_id, o.saga_id, o.identity, o.body_hash, o.command_offset)
             or (e.booked_at_us, e.chain_hash, e.repeated, e.type, e.reason)
                is distinct from
                (o.booked_at_us, o.chain_hash, o.repeated, o.told_type,
                 coalesce(f.ended_as, o.told_reason))
             or (e.failed_leg, coalesce(e.parts, []), coalesce(e.leg_indexes, []),
                 coalesce(e.legs, []), coalesce(e.original_legs, []))
                is distinct from (o.told_failed_leg, f.parts, f.leg_indexes, f.back_legs,
                 f.back_indexes)
             or (e.hold_id, e.amount_minor, e.remaining_minor, e.original_id, e.dry_run)
                is distinct from
                (f.hold_id, f.amount_minor, f.remaining_minor, f.original_id, f.dry)
             or (e.debits_frozen, e.credits_frozen, e.closed)
                is distinct from (f.debits_frozen, f.credits_frozen, f.closed)
             or e.entries is distinct from coalesce(s.entries, []))""",
    ),
    Check(
        "debits_equal_credits",
        "the entries of every row, and all entries together, sum to zero in each currency",
        "select count(*) from (select distinct share, position from entries)",
        """
        select share, position, currency, sum(amount_minor) as sum_minor
          from entries group by all having sum(amount_minor) <> 0
        union all
        select -1, -1, currency, sum(amount_minor)
          from entries group by all having sum(amount_minor) <> 0""",
    ),
    Check(
        "running_balances",
        "versions of a share count up from 1, and each entry's balance is the last one plus it",
        "select count(*) from entries",
        """
        with ordered as (
            select *, lag(version, 1, 0) over w as version_before,
                   lag(posted_minor, 1, 0) over w as posted_before
              from entries window w as (partition by account_id, share order by version))
        select account_id, share, version, posted_minor from ordered
         where version <> version_before + 1 or posted_minor <> posted_before + amount_minor
            or held_minor < 0""",
    ),
    Check(
        "balances_equal_entries",
        "every share equals the sum and the last of its entries; available = posted - held",
        "select count(*) from shares",
        """
        with summed as (
            select account_id, share, sum(amount_minor) as posted_minor,
                   arg_max(posted_minor, version) as last_posted_minor,
                   arg_max(held_minor, version) as held_minor, max(version) as version
              from entries group by account_id, share),
        shown as (
            select account_id, sum(posted_minor) as posted_minor, sum(held_minor) as held_minor
              from shares group by account_id)
        select account_id, s.share, s.posted_minor, e.posted_minor as entries_minor
          from shares s full join summed e using (account_id, share)
         where (coalesce(s.posted_minor, 0), coalesce(s.posted_minor, 0), coalesce(s.held_minor, 0),
                coalesce(s.version, 0))
            is distinct from (coalesce(e.posted_minor, 0), coalesce(e.last_posted_minor, 0),
                coalesce(e.held_minor, 0), coalesce(e.version, 0))
        union all
        select b.account_id, -1, b.posted_minor, s.posted_minor
          from balances b left join shown s using (account_id)
         where b.posted_minor <> coalesce(s.posted_minor, 0)
            or b.held_minor <> coalesce(s.held_minor, 0)
            or b.available_minor <> b.posted_minor - b.held_minor""",
    ),
    Check(
        "no_account_below_its_limit",
        "no guarded account is below its limit now or was after any entry, holds included",
        "select count(*) from accounts where min_balance_minor is not null",
        """
        with total as (
            select account_id, sum(posted_minor) as posted_minor,
                   sum(posted_minor - held_minor) as available_minor
              from shares group by account_id)
        select a.account_id, t.available_minor
          from accounts a join total t using (account_id)
         where t.available_minor < a.min_balance_minor
            or t.posted_minor > a.max_balance_minor
        union all
        -- Other shares only grow, so what they hold now bounds what they held then.
        select e.account_id, e.posted_minor - e.held_minor + t.posted_minor - s.posted_minor
          from moves e
          join accounts a using (account_id)
          join total t using (account_id)
          join shares s on s.account_id = e.account_id and s.share = e.share
         where (e.amount_minor < 0 or e.held_change > 0) and a.kind = 'customer'
           and e.posted_minor - e.held_minor + t.posted_minor - s.posted_minor
               < a.min_balance_minor""",
    ),
    Check(
        "one_identity_one_outcome",
        "an idempotency key has one outcome over all partitions, and moved money at most once",
        "select count(*) from identities",
        """
        with firsts as (
            select partition, position, identity,
                   left(sha256(case when step in ('post', 'reject', 'place', 'open')
                                      or identity <> right(saga_id, 26)
                                         and not regexp_matches(step, '^(prepare|commit|abort)-')
                        then identity
                        else identity || '/' || step || '/' || attempt end), 32) as key
              from decided
             where not repeated and not dry and reason is distinct from 'idempotency_key_reused'),
        claimed as (
            select replace(key, '-', '') as key, partition, position from identities),
        claims as (select key, partition, position from firsts)
        select * from (from claims except all from claimed)
        union all
        select * from (from claimed except all from claims)
        union all
        select identity, -1, count(distinct resource_id) from payment_events
         where type = 'payment.settled'
         group by identity having count(*) > 1
        union all
        select identity, -2, count(distinct body_hash) from outcomes
         where type in ('transfer.posted', 'transfer.prepared', 'hold.placed') and not repeated
           and step in ('post', 'place')
           and coalesce(extra::json ->> '$.dry_run', 'false') = 'false'
         group by identity having count(*) > 1""",
    ),
)
