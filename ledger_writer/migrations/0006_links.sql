-- Transfers that several partitions must agree on. Adds tables and functions only, so writers of the form
-- before this may go on while it is applied; replace them all before the streams that ask for such transfers.

-- What a partition has agreed to of one leg: that the source pays (debit: the amount is held there), or
-- that the payee has room for it under its cap (credit). The open debits of an account add up, with its
-- open holds, to what its share holds.
create table ledger.links (
    link_id      text  not null,
    kind         text  not null check (kind in ('debit', 'credit')),
    partition    int2  not null,
    source       text  not null,
    destination  text  not null,
    currency     text  not null,
    amount_minor int8  not null check (amount_minor > 0),
    state        text  not null check (state in ('open', 'committed', 'aborted')),
    primary key (link_id, kind)
) with (fillfactor = 70);

comment on column ledger.links.link_id is 'Id of the transfer and index of the leg';

-- A closing must find what is on its way to an account.
create index links_open on ledger.links (destination) where state = 'open';

-- What of a capped account's room is promised to credits that are not posted at its home: its home's
-- posted balance and this never exceed the cap. What another partition has credited stays promised.
create table ledger.rooms (
    account_no     int8  primary key,
    promised_minor int8  not null check (promised_minor >= 0)
) with (fillfactor = 50);

create trigger kept before delete on ledger.links
    for each row execute function ledger.refuse_change();
create trigger kept before delete on ledger.rooms
    for each row execute function ledger.refuse_change();

create type ledger.new_link as (
    link_id      text,
    kind         text,
    source       text,
    destination  text,
    currency     text,
    amount_minor int8,
    state        text,
    stored       bool
);

create type ledger.new_room as (
    account_no     int8,
    promised_minor int8,
    known_minor    int8
);

-- What open links of all partitions are about to credit to an account.
create function ledger.incoming(p_account_id text) returns int8 stable language sql as $$
    select coalesce(sum(l.amount_minor), 0)::int8 from ledger.links l
     where l.destination = p_account_id and l.state = 'open'
$$;

-- Commit one batch that changes holds, totals of reversals, flags or links. As the form without links,
-- and 'grown' also when more or less is on its way to an account to be closed than its closing rests on
-- (below zero: flags that rest on nothing).
create function ledger.commit_batch(
    p_partition int2, p_epoch int8, p_offset int8, p_first_position int8, p_accounts_version int8,
    p_next_offset int8, p_next_position int8, p_log_time_us int8, p_chain_hash bytea,
    p_published_position int8, p_poisoned int8,
    k_key uuid[], k_position int8[],
    new_rows ledger.new_row[], new_accounts ledger.new_account[], new_shares ledger.new_share[],
    s_account_no int8[], s_posted_minor int8[], s_held_minor int8[], s_foreign_minor int8[],
    s_version int8[], s_known_version int8[],
    new_holds ledger.new_hold[], new_reversals ledger.new_reversal[], new_flags ledger.new_flags[],
    f_incoming_minor int8[], new_links ledger.new_link[], new_rooms ledger.new_room[]
) returns text language plpgsql as $$
declare
    verdict text;
    done    int8;
    more    int8;
begin
    if cardinality(new_flags) > 0 then
        perform pg_advisory_xact_lock(7239002);
        perform from ledger.partitions order by partition for update;
        for done in 1 .. cardinality(new_flags) loop
            perform from ledger.accounts a
              where a.account_no = new_flags[done].account_no
                and f_incoming_minor[done] >= 0
                and f_incoming_minor[done] <> ledger.incoming(a.account_id);
            if found then
                return 'grown';
            end if;
        end loop;
    end if;

    verdict := ledger.commit_batch(p_partition, p_epoch, p_offset, p_first_position,
        p_accounts_version, p_next_offset, p_next_position, p_log_time_us, p_chain_hash,
        p_published_position, p_poisoned, k_key, k_position, new_rows, new_accounts, new_shares,
        s_account_no, s_posted_minor, s_held_minor, s_foreign_minor, s_version, s_known_version,
        new_holds, new_reversals, new_flags);
    if verdict <> 'committed' or cardinality(new_links) = 0 then
        return verdict;
    end if;

    insert into ledger.links (link_id, kind, partition, source, destination, currency, amount_minor,
                              state)
    select l.link_id, l.kind, p_partition, l.source, l.destination, l.currency, l.amount_minor, l.state
      from unnest(new_links) l where not l.stored;
    get diagnostics done = row_count;
    update ledger.links s
       set state = l.state
      from unnest(new_links) l
     where l.stored and s.link_id = l.link_id and s.kind = l.kind and s.partition = p_partition
       and s.state = 'open';
    get diagnostics more = row_count;
    if done + more <> cardinality(new_links) then
        raise exception '% of % links are not as known', cardinality(new_links) - done - more,
            cardinality(new_links) using errcode = 'HR002';
    end if;

    insert into ledger.rooms (account_no, promised_minor)
    select r.account_no, 0 from unnest(new_rooms) r on conflict do nothing;
    update ledger.rooms s
       set promised_minor = r.promised_minor
      from unnest(new_rooms) r
     where s.account_no = r.account_no and s.promised_minor = r.known_minor;
    get diagnostics done = row_count;
    if done <> cardinality(new_rooms) then
        raise exception '% of % rooms are not as known', cardinality(new_rooms) - done,
            cardinality(new_rooms) using errcode = 'HR002';
    end if;
    perform from unnest(new_rooms) r
       join ledger.shares s on s.account_no = r.account_no and s.share = p_partition
      where s.posted_minor + r.promised_minor > s.ceiling_minor;
    if found then
        raise exception 'more is promised of an account than its cap leaves'
            using errcode = 'HR002';
    end if;
    return 'committed';
end $$;

revoke all on all functions in schema ledger from public;

grant select on ledger.links, ledger.rooms to ledger_writer, ledger_reader;
grant insert, update on ledger.links, ledger.rooms to ledger_writer;
grant execute on function ledger.incoming to ledger_writer, ledger_reader;
grant execute on function ledger.commit_batch(
    int2, int8, int8, int8, int8, int8, int8, int8, bytea, int8, int8, uuid[], int8[],
    ledger.new_row[], ledger.new_account[], ledger.new_share[],
    int8[], int8[], int8[], int8[], int8[], int8[],
    ledger.new_hold[], ledger.new_reversal[], ledger.new_flags[],
    int8[], ledger.new_link[], ledger.new_room[]) to ledger_writer;
