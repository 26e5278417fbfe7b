-- What is paid back of a leg may be given up again: a reversal that several homes must agree on counts from
-- when it is prepared, and one of them may refuse. Changes a check and a function only, so writers of the
-- form before this may go on while it is applied; replace them all before the streams that ask for such
-- reversals.

alter table ledger.reversals drop constraint reversals_reversed_minor_check;
alter table ledger.reversals add constraint reversals_reversed_minor_check check (reversed_minor >= 0);

-- As it was, but for reversals: a total that has come back to nothing has a row, and is known as none.
create or replace function ledger.commit_batch(
    p_partition int2, p_epoch int8, p_offset int8, p_first_position int8, p_accounts_version int8,
    p_next_offset int8, p_next_position int8, p_log_time_us int8, p_chain_hash bytea,
    p_published_position int8, p_poisoned int8,
    k_key uuid[], k_position int8[],
    new_rows ledger.new_row[], new_accounts ledger.new_account[], new_shares ledger.new_share[],
    s_account_no int8[], s_posted_minor int8[], s_held_minor int8[], s_foreign_minor int8[],
    s_version int8[], s_known_version int8[],
    new_holds ledger.new_hold[], new_reversals ledger.new_reversal[], new_flags ledger.new_flags[]
) returns text language plpgsql as $$
declare
    verdict text;
    done    int8;
    more    int8;
begin
    if cardinality(new_flags) > 0 then
        perform pg_advisory_xact_lock(7239002);
        perform from ledger.partitions order by partition for update;
        perform from unnest(new_flags) f
          cross join lateral (
              select coalesce(sum(s.posted_minor), 0) as posted_minor,
                     coalesce(sum(s.held_minor), 0) as held_minor
                from ledger.shares s
               where s.account_no = f.account_no and s.share <> p_partition) now
         where f.elsewhere_posted_minor <> now.posted_minor
            or f.elsewhere_held_minor <> now.held_minor;
        if found then
            return 'grown';
        end if;
    end if;

    verdict := ledger.commit_batch(p_partition, p_epoch, p_offset, p_first_position,
        p_accounts_version, p_next_offset, p_next_position, p_log_time_us, p_chain_hash,
        p_published_position, p_poisoned, k_key, k_position, new_rows, new_accounts, new_shares,
        s_account_no, s_posted_minor, s_held_minor, s_foreign_minor, s_version, s_known_version);
    if verdict <> 'committed' then
        return verdict;
    end if;

    insert into ledger.holds (hold_id, partition, source, destination, currency, amount_minor,
                              remaining_minor, captured_minor, expires_at_us, state)
    select h.hold_id, p_partition, h.source, h.destination, h.currency, h.amount_minor,
           h.remaining_minor, h.captured_minor, h.expires_at_us, h.state
      from unnest(new_holds) h where h.known_minor is null;
    get diagnostics done = row_count;
    update ledger.holds s
       set remaining_minor = h.remaining_minor, captured_minor = h.captured_minor, state = h.state
      from unnest(new_holds) h
     where s.hold_id = h.hold_id and s.partition = p_partition
       and s.remaining_minor = h.known_minor;
    get diagnostics more = row_count;
    if done + more <> cardinality(new_holds) then
        raise exception '% of % holds are not as known', cardinality(new_holds) - done - more,
            cardinality(new_holds) using errcode = 'HR002';
    end if;

    insert into ledger.reversals as s (original_partition, original_position, leg, partition,
                                       reversed_minor)
    select r.original_partition, r.original_position, r.leg, p_partition, r.reversed_minor
      from unnest(new_reversals) r where r.known_minor = 0
        on conflict (original_partition, original_position, leg) do update
       set reversed_minor = excluded.reversed_minor
     where s.partition = p_partition and s.reversed_minor = 0;
    get diagnostics done = row_count;
    update ledger.reversals s
       set reversed_minor = r.reversed_minor
      from unnest(new_reversals) r
     where s.original_partition = r.original_partition and s.original_position = r.original_position
       and s.leg = r.leg and s.partition = p_partition and s.reversed_minor = r.known_minor
       and r.known_minor > 0;
    get diagnostics more = row_count;
    if done + more <> cardinality(new_reversals) then
        raise exception '% of % reversals are not as known',
            cardinality(new_reversals) - done - more, cardinality(new_reversals)
            using errcode = 'HR002';
    end if;

    if cardinality(new_flags) > 0 then
        update ledger.accounts a
           set debits_frozen = f.debits_frozen, credits_frozen = f.credits_frozen,
               closed = f.closed
          from unnest(new_flags) f
         where a.account_no = f.account_no;
        get diagnostics done = row_count;
        if done <> cardinality(new_flags) then
            raise exception '% of % accounts to be flagged do not exist',
                cardinality(new_flags) - done, cardinality(new_flags) using errcode = 'HR002';
        end if;
        update ledger.partitions set accounts_version = accounts_version + 1;
    end if;
    return 'committed';
end $$;
