-- The journal's beginning may be detached: `headrace ledger detach`. What remains is proved from what is
-- kept here. Adds tables and functions, and replaces functions of reading; writers go on meanwhile.

-- Where each partition's journal begins since a cut, and what came before: the chain's hash, offset and
-- time of the last row detached, and a hash over the identities that rows before the cut had claimed.
create table ledger.detached (
    partition       int2  not null,
    first_position  int8  not null check (first_position > 1),
    chain_hash      bytea not null check (length(chain_hash) = 32),
    command_offset  int8  not null,
    booked_at_us    int8  not null,
    claims_hash     bytea not null check (length(claims_hash) = 32),
    state_hash      bytea not null check (length(state_hash) = 32),
    export_sha256   bytea not null check (length(export_sha256) = 32),
    detached_at     timestamptz not null default now(),
    primary key (partition, first_position)
);

comment on column ledger.detached.state_hash is 'Over all of the newest cut: these rows and detached_state';
comment on column ledger.detached.export_sha256 is 'Of the file that has the rows from the cut before to this one';

-- What the rows before the newest cut came to: shares, accounts, holds, links, totals of reversals.
create table ledger.detached_state (
    kind   text collate "C" not null,
    key    text collate "C" not null,
    value  text not null,
    primary key (kind, key)
);

create trigger append_only before update or delete on ledger.detached
    for each row execute function ledger.refuse_change();

-- The first position of a partition that the journal still has.
create function ledger.kept_from(p_partition int2) returns int8 stable language sql as $$
    select coalesce(max(d.first_position), 1) from ledger.detached d where d.partition = p_partition
$$;

-- Return the position if the journal still has it; raise HR004 if it was detached.
create function ledger.kept(p_partition int2, p_position int8) returns int8
    stable language plpgsql as $$
declare
    first int8 := ledger.kept_from(p_partition);
begin
    if p_position < first then
        raise exception 'position % of partition % was detached: the journal begins at %, and what is older is in its export',
            p_position, p_partition, first using errcode = 'HR004';
    end if;
    return p_position;
end $$;

-- The last position of a partition that was booked at this time or before; 0 if none was. Raises HR004
-- for a time before the last row that was detached.
create or replace function ledger.position_at(p_partition int2, p_at_us int8) returns int8
    stable language plpgsql as $$
declare
    low    int8 := 0;
    high   int8;
    middle int8;
    booked int8;
    cut    record;
begin
    select d.first_position, d.booked_at_us into cut from ledger.detached d
     where d.partition = p_partition order by d.first_position desc limit 1;
    if found then
        if p_at_us < cut.booked_at_us then
            raise exception 'partition % was detached up to position %, booked at % us: % us is before that, and only in its export',
                p_partition, cut.first_position - 1, cut.booked_at_us, p_at_us using errcode = 'HR004';
        end if;
        low := cut.first_position - 1;
    end if;
    select next_position - 1 into high from ledger.partitions where partition = p_partition;
    while low < high loop
        middle := (low + high + 1) / 2;
        select booked_at_us into booked from ledger.journal
         where partition = p_partition and position = middle;
        if booked > p_at_us then
            high := middle - 1;
        else
            low := middle;
        end if;
    end loop;
    return low;
end $$;

-- As before; raises HR004 where a label was given to a row that was detached.
create or replace function ledger.search(p_tenant text, p_label text, p_value text)
    returns setof ledger.outcomes stable language sql as $$
    with places as (
        select l.partition, ledger.kept(l.partition, l.position) as position from ledger.labels l
         where l.tenant = p_tenant and l.label = p_label and l.value_hash = md5(p_value)::uuid
        union all
        select j.partition, j.position
          from ledger.partitions p
          left join ledger.indexed i using (partition)
          join ledger.journal j on j.partition = p.partition
           and j.position >= coalesce(i.next_span, 0) * ledger.index_span()
         where j.tenant = p_tenant and j.extra is not null
    )
    select o.* from places join ledger.outcomes o using (partition, position)
     where exists (select from ledger.labels_of(o.extra) l
                    where l.label = p_label and l.value = p_value)
     order by o.booked_at_us, o.partition, o.position
$$;

revoke all on function ledger.kept_from, ledger.kept from public;

grant select on ledger.detached to ledger_writer;
grant select on ledger.detached, ledger.detached_state to ledger_reader;
grant execute on function ledger.kept_from to ledger_writer, ledger_reader;
grant execute on function ledger.kept to ledger_reader;
