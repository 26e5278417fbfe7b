"""What must hold of what is done later: holds, flags, dry runs, and operations.

Pure data; the tables and the shape of a check are told in `checks`.
"""

from __future__ import annotations

from typing import Final

from loadtest.verify.checks import Check

OPERATIONS: Final = (
    Check(
        "holds_add_up",
        "captured, given back and left of each hold add up to it, at every row and in the end",
        "select count(*) from holds",
        """
        with taken as (
            select f.*, c.amount_minor as asked_minor,
                   lag(f.remaining_minor) over w as remaining_before, row_number() over w as n,
                   sum(case when f.type = 'hold.posted' then f.amount_minor else 0 end) over w
                       as captured_minor,
                   lead(f.position) over w is null as last
              from facts f
              left join commands c on c._partition = f.partition and c._offset = f.command_offset
             where f.type in ('hold.placed', 'hold.posted', 'hold.voided')
               and not f.repeated and not f.dry
            window w as (partition by f.hold_id order by f.partition, f.position))
        select t.hold_id, t.partition, t.position, t.type as difference
          from taken t left join holds h using (hold_id)
         where h.hold_id is null or h.partition <> t.partition or t.amount_minor <= 0
            or t.remaining_minor < 0 or (t.n = 1) <> (t.type = 'hold.placed')
            or t.type = 'hold.placed' and (t.amount_minor, t.remaining_minor, t.expires_at_us)
                is distinct from (h.amount_minor, h.amount_minor, h.expires_at_us)
            or t.n > 1 and t.remaining_minor <> t.remaining_before - t.amount_minor
            or t.type = 'hold.posted' and t.amount_minor <> coalesce(t.asked_minor, t.amount_minor)
            or t.type = 'hold.posted' and t.asked_minor is null and t.retained
                and t.remaining_minor <> 0
            or t.type = 'hold.voided' and t.remaining_minor <> 0
            or t.ended_as = 'expired' and t.booked_at_us < coalesce(h.expires_at_us, 2::int8 ** 62)
        union all
        select h.hold_id, h.partition, t.position, 'is not what its rows come to'
          from holds h left join (from taken where last) t using (hold_id)
         where (h.remaining_minor, h.captured_minor, h.state) is distinct from
               (t.remaining_minor, t.captured_minor, case when t.remaining_minor > 0 then 'open'
                    when t.type = 'hold.posted' then 'posted' else t.ended_as end)
            or h.captured_minor + h.remaining_minor > h.amount_minor
        union all
        select account_id, share, s.held_minor, 'holds more or less than its holds and links'
          from shares s
          full join (select account_id, share, sum(held_minor) as held_minor
                       from (select source as account_id, partition as share,
                                    remaining_minor as held_minor from holds
                             union all
                             select source, partition, amount_minor from links
                              where kind = 'debit' and state = 'open')
                      group by all) o using (account_id, share)
         where coalesce(s.held_minor, 0) <> coalesce(o.held_minor, 0)""",
    ),
    Check(
        "flags_follow_commands",
        "an account is frozen, unfrozen and closed as was asked, and shows it",
        "select count(*) from facts where type in "
        "('account.frozen', 'account.unfrozen', 'account.closed')",
        """
        with flagged as (
            select f.*, lag(f.debits_frozen, 1, false) over w as debits_before,
                   lag(f.credits_frozen, 1, false) over w as credits_before,
                   lag(f.closed, 1, false) over w as closed_before,
                   lead(f.position) over w is null as last,
                   case when c.debits is null and c.credits is null then true
                        else coalesce(c.debits, false) end as debits,
                   case when c.debits is null and c.credits is null then true
                        else coalesce(c.credits, false) end as credits,
                   c.account_id as asked
              from facts f
              left join commands c on c._partition = f.partition and c._offset = f.command_offset
             where f.type in ('account.frozen', 'account.unfrozen', 'account.closed')
               and not f.repeated
            window w as (partition by f.account_id order by f.position))
        select account_id, partition, position, type as difference from flagged
         where closed_before or retained and asked is distinct from account_id
            or closed <> (type = 'account.closed')
            or retained and (debits_frozen, credits_frozen) is distinct from case type
                when 'account.frozen' then (debits_before or debits, credits_before or credits)
                when 'account.unfrozen'
                then (debits_before and not debits, credits_before and not credits)
                else (debits_before, credits_before) end
        union all
        select a.account_id, f.partition, f.position, 'is not as its last row says'
          from accounts a left join (from flagged where last) f using (account_id)
         where (a.debits_frozen, a.credits_frozen, a.closed) is distinct from
               (coalesce(f.debits_frozen, false), coalesce(f.credits_frozen, false),
                coalesce(f.closed, false))
        union all
        select a.account_id, s.share, s.posted_minor, 'is closed and not empty'
          from accounts a
          join (select account_id, -1 as share, sum(posted_minor) as posted_minor,
                       sum(held_minor) as held_minor
                  from shares group by account_id) s using (account_id)
         where a.closed and (s.posted_minor <> 0 or s.held_minor <> 0)""",
    ),
    Check(
        "nothing_moves_against_a_flag",
        "no debit or credit of an account while it is frozen for it or closed",
        "select count(*) from moves",
        # What homes agreed on is moved even if frozen. At home the journal's order tells, else
        # where a command was written to the log after the freeze had been published, and its event
        # before the next change was asked for: an order between processes whose clocks agree.
        """
        with flagged as (
            select f.account_id, f.partition, f.position, f.debits_frozen, f.credits_frozen,
                   f.closed, lead(f.position) over w as next_position,
                   e._timestamp_ms as told_ms, lead(c._timestamp_ms) over w as next_asked_ms
              from facts f
              left join commands c on c._partition = f.partition and c._offset = f.command_offset
              left join (select ledger_partition, position, min(_timestamp_ms) as _timestamp_ms
                           from ledger_events group by all) e
                     on e.ledger_partition = f.partition and e.position = f.position
             where f.type in ('account.frozen', 'account.unfrozen', 'account.closed')
               and not f.repeated
            window w as (partition by f.account_id order by f.position)),
        moving as (
            select m.account_id, m.share, m.position,
                   o.type = 'transfer.committed' as agreed,
                   m.amount_minor < 0 or m.held_change > 0 as debit, m.amount_minor > 0 as credit,
                   c._timestamp_ms as asked_ms, e._timestamp_ms as told_ms
              from moves m
              join (select distinct account_id from flagged) using (account_id)
              join decided o on o.partition = m.share and o.position = m.position
              left join commands c on c._partition = o.partition and c._offset = o.command_offset
              left join (select ledger_partition, position, min(_timestamp_ms) as _timestamp_ms
                           from ledger_events group by all) e
                     on e.ledger_partition = m.share and e.position = m.position)
        select m.account_id, m.share, m.position, f.partition, f.position as flagged_at
          from moving m join flagged f using (account_id)
         where (f.closed or not m.agreed and (
                    f.debits_frozen and m.debit or f.credits_frozen and m.credit))
           and case when m.share = f.partition
                    then m.position > f.position
                     and m.position < coalesce(f.next_position, m.position + 1)
                    else m.asked_ms > f.told_ms
                     and (f.next_position is null or m.told_ms < f.next_asked_ms) end""",
    ),
    Check(
        "dry_runs_leave_nothing",
        "what was only tried moved nothing, claimed no key and told nobody but the asker",
        "select count(*) from decided where dry",
        """
        select o.partition, o.position, o.saga_id, 'is not what was asked' as difference
          from decided o
          join commands c on c._partition = o.partition and c._offset = o.command_offset
         where o.dry <> c.dry_run and not o.repeated
        union all
        select o.partition, o.position, o.saga_id, 'has entries'
          from decided o join entries e on e.share = o.partition and e.position = o.position
         where o.dry
        union all
        select o.partition, o.position, o.saga_id, 'has claimed a key'
          from decided o join identities i using (partition, position) where o.dry
        union all
        select o.partition, o.position, o.saga_id, 'has placed a hold'
          from facts o join holds h using (hold_id) where o.dry and h.hold_id = o.saga_id
        union all
        select o.partition, o.position, o.saga_id, 'was told as done'
          from decided o join story s on s.resource_id = o.saga_id
         where o.dry and not s.mark
        union all
        select o.partition, o.position, o.saga_id, 'is shown'
          from decided o join view_transfers v on v.transfer_id = o.transfer_id where o.dry
        union all
        select -1, -1, c.resource_id, 'was not decided once'
          from creations c
          left join decided o on o.saga_id = c.resource_id and o.dry and o.step = 'post'
         where c.old and c.alive > 0 and c.dry
         group by c.resource_id having count(o.position) <> 1""",
    ),
    Check(
        "operations_end_once",
        "every capture, void, refund, reversal and change of flags reaches exactly one outcome",
        "select count(*) from operations where old",
        """
        with sent as (
            select saga_id as resource_id, identity, count(*) as commands,
                   count(distinct _partition) as partitions, bool_and(old) as old,
                   any_value(split_part(step, '-', 1)) as step
              from commands
             where step like '%-' || identity
               and type not in ('transfer.prepare', 'transfer.commit', 'transfer.abort')
             group by all),
        decisions as (
            select saga_id as resource_id, identity, count(*) as decisions
              from decided
             where step like '%-' || identity
               and not regexp_matches(step, '^(prepare|commit|abort)-') group by all),
        told as (
            select resource_id, operation_id as identity, count(*) as events
              from payment_events where operation_id is not null group by all),
        known as (select resource_id, true as known from creations where alive > 0)
        select resource_id, identity, a.type, coalesce(s.commands, 0) as commands,
               coalesce(d.decisions, 0) as decisions, coalesce(t.events, 0) as events
          from operations a
          full join sent s using (resource_id, identity)
          full join told t using (resource_id, identity)
          left join decisions d using (resource_id, identity)
          left join known k using (resource_id)
         where s.commands > 1 or t.events > 1 or d.decisions > 1
            or a.identity is null and (s.old or t.events > 0)
            or s.step <> split_part(a.type, '.', 2)
            or a.old and a.alive > 0 and (
                   (k.known or not starts_with(a.type, 'payment.'))
                   and (coalesce(s.commands, 0) <> 1 or coalesce(d.decisions, 0) <> 1)
                or coalesce(t.events, 0) <> case when k.known then 1 else coalesce(t.events, 0) end
                or s.commands is null and t.events > 0)""",
    ),
    Check(
        "answers_forwarded_once",
        "an answer for another partition's saga is sent there once, as the ledger gave it",
        "select count(*) from requests where type = 'saga.answered'",
        """
        with partitions_of as (
            select count(*) as n from bounds where topic = 'payments.requests'),
        foreign_answers as (
            select event_id, any_value(e.saga_id) as saga_id, any_value(e.identity) as identity,
                   any_value(e.type) as type, any_value(e.reason) as reason,
                   any_value(split_part(e.command_id, '/', 2)) as step,
                   any_value(e.amount_minor) as amount_minor,
                   any_value(e.remaining_minor) as remaining_minor,
                   any_value(e.failed_leg) as failed_leg, any_value(e.entries) as entries,
                   any_value(e.leg_indexes) as leg_indexes,
                   any_value((e.parts, e.legs, e.original_legs)) as homes, bool_or(e.old) as old
              from ledger_events e, partitions_of p
             where slot_in(e.saga_id) % p.n <> e.ledger_partition group by event_id),
        sent as (
            select request_id as event_id, count(*) as n, any_value(resource_id) as saga_id,
                   any_value(identity) as identity, any_value(answer) as type,
                   any_value(answer_reason) as reason, any_value(answer_step) as step,
                   any_value(amount_minor) as amount_minor,
                   any_value(answer_remaining_minor) as remaining_minor,
                   any_value(answer_failed_leg) as failed_leg,
                   any_value(answer_entries) as entries,
                   any_value(answer_leg_indexes) as leg_indexes,
                   any_value((answer_parts, answer_legs, answer_original_legs)) as homes,
                   bool_or(old) as old
              from requests where type = 'saga.answered' group by request_id)
        select event_id, f.saga_id, coalesce(s.n, 0) as sent
          from foreign_answers f full join sent s using (event_id)
         where s.n > 1 or s.n is null and f.old or f.event_id is null and s.old
            or s.n = 1 and f.event_id is not null
               and ((f.saga_id, f.identity, f.type, f.reason, f.step, f.amount_minor,
                     f.remaining_minor)
                    is distinct from (s.saga_id, s.identity, s.type, s.reason, s.step,
                     s.amount_minor, s.remaining_minor)
                 or s.entries is not null and (f.failed_leg, f.entries, f.leg_indexes)
                    is distinct from (s.failed_leg, s.entries, s.leg_indexes)
                 or s.homes is distinct from f.homes)""",
    ),
)
