-- Holds, reversals and flags: what few batches change beside balances. Adds tables and functions only,
-- so writers of the form before this may go on while it is applied, and until they are replaced.

-- One row a hold, owned by the partition that placed it. The open ones of an account add up to what
-- its share holds; the journal's rows say the same and more.
create table ledger.holds (
    hold_id         text  primary key,
    partition       int2  not null,
    source          text  not null,
    destination     text  not null,
    currency        text  not null,
    amount_minor    int8  not null check (amount_minor > 0),
    remaining_minor int8  not null check (remaining_minor >= 0),
    captured_minor  int8  not null check (captured_minor >= 0),
    expires_at_us   int8,
    state           text  not null check (state in ('open', 'posted', 'voided', 'expired')),
    check (remaining_minor + captured_minor <= amount_minor),
    check ((state = 'open') = (remaining_minor > 0))
) with (fillfactor = 70);

comment on column ledger.holds.amount_minor is 'What was held at first';
comment on column ledger.holds.expires_at_us is 'Log time from which it may be ended as expired';

-- How much of a leg of a transfer (or, leg 0, of what was captured of a hold) was paid back. The
-- transfer is named by its row; the partition that keeps the total is the payee's home.
create table ledger.reversals (
    original_partition int2  not null,
    original_position  int8  not null,
    leg                int2  not null,
    partition          int2  not null,
    reversed_minor     int8  not null check (reversed_minor > 0),
    primary key (original_partition, original_position, leg)
) with (fillfactor = 70);

create trigger kept before delete on ledger.holds
    for each row execute function ledger.refuse_change();
create trigger kept before delete on ledger.reversals
    for each row execute function ledger.refuse_change();

create type ledger.new_hold as (
    hold_id         text,
    source          text,
    destination     text,
    currency        text,
    amount_minor    int8,
    remaining_minor int8,
    captured_minor  int8,
    expires_at_us   int8,
    state           text,
    known_minor     int8
);

create type ledger.new_reversal as (
    original_partition int2,
    original_position  int8,
    leg                int2,
    reversed_minor     int8,
    known_minor        int8
);

-- The elsewhere columns are what a closing rests on; null when an account is not being closed.
create type ledger.new_flags as (
    account_no             int8,
    debits_frozen          bool,
    credits_frozen         bool,
    closed                 bool,
    elsewhere_posted_minor int8,
    elsewhere_held_minor   int8
);

-- Take the fence of a partition. The lock keeps a partition's first row from appearing while flags
-- change: it would have been left out of the rise of accounts_version, and would not know of it.
create function ledger.acquire(p_partition int2, p_genesis bytea) returns ledger.partitions
    language plpgsql as $$
declare
    taken ledger.partitions;
begin
    perform pg_advisory_xact_lock_shared(7239002);
    insert into ledger.partitions as p
           (partition, epoch, next_offset, log_time_us, next_position, chain_hash,
            published_position, poisoned, accounts_version)
    values (p_partition, 1, 0, 0, 1, p_genesis, 0, 0,
            (select coalesce(max(accounts_version), 0) from ledger.partitions))
    on conflict (partition) do update set epoch = p.epoch + 1
    returning * into taken;
    return taken;
end $$;

-- Commit one batch that changes holds, totals of reversals or flags. Returns what the form without
-- them does, and 'grown' when the other partitions' shares of an account to be closed are not what
-- its closing rests on. Flags are changed with every fence held, in order: no other batch is under way
-- then, so none can have been decided on the flags before and be committed after.
create function ledger.commit_batch(
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

    insert into ledger.reversals (original_partition, original_position, leg, partition,
                                  reversed_minor)
    select r.original_partition, r.original_position, r.leg, p_partition, r.reversed_minor
      from unnest(new_reversals) r where r.known_minor = 0;
    get diagnostics done = row_count;
    update ledger.reversals s
       set reversed_minor = r.reversed_minor
      from unnest(new_reversals) r
     where s.original_partition = r.original_partition and s.original_position = r.original_position
       and s.leg = r.leg and s.partition = p_partition and s.reversed_minor = r.known_minor;
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

-- The key that a row claims: its identity, or for a further step under the saga's own identity
-- (identity null), that and the step.
create function ledger.claimed(identity text, saga_id text, step text, attempt int4) returns uuid
    immutable language sql as $$
    select ledger.claim_key(case
        when identity is null and step not in ('post', 'reject', 'place', 'open')
        then right(saga_id, 26) || '/' || step || '/' || attempt
        else coalesce(identity, right(saga_id, 26)) end)
$$;

revoke all on all functions in schema ledger from public;

grant select on ledger.holds, ledger.reversals to ledger_writer, ledger_reader;
grant insert, update on ledger.holds, ledger.reversals to ledger_writer;
grant update (debits_frozen, credits_frozen, closed) on ledger.accounts to ledger_writer;
grant execute on function ledger.acquire to ledger_writer;
grant execute on function ledger.claimed to ledger_writer, ledger_reader;
grant execute on function ledger.commit_batch(
    int2, int8, int8, int8, int8, int8, int8, int8, bytea, int8, int8, uuid[], int8[],
    ledger.new_row[], ledger.new_account[], ledger.new_share[],
    int8[], int8[], int8[], int8[], int8[], int8[],
    ledger.new_hold[], ledger.new_reversal[], ledger.new_flags[]) to ledger_writer;
