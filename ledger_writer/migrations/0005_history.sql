-- The past without summing it: balances at any time, statements, and search by reference and metadata.
--
-- The journal has one index, its key, so that writing stays cheap. What reading needs is kept beside
-- it, made from whole spans of positions once they are full (`ledger.index_journal`, which
-- `python -m ledger_writer.index` calls): the last entry of each share in each span, the entries that
-- count at another time than they were booked, and where references and metadata are. What is
-- newer than the last indexed span is read from the journal itself: at most a span, if the index
-- is kept up. All of it follows from the journal, and holds nothing that is not there.

-- How many positions one span holds.
create function ledger.index_span() returns int8 immutable language sql as 'select 16384::int8';

create table ledger.indexed (
    partition  int2  primary key,
    next_span  int8  not null check (next_span >= 0)
);

create table ledger.checkpoints (
    account_no    int8  not null,
    share         int2  not null,
    span          int8  not null,
    posted_minor  int8  not null,
    held_minor    int8  not null,
    primary key (account_no, share, span)
);

create table ledger.redated (
    account_no       int8  not null,
    share            int2  not null,
    position         int8  not null,
    ordinal          int4  not null,
    amount_minor     int8  not null,
    booked_at_us     int8  not null,
    effective_at_us  int8  not null,
    primary key (account_no, share, position, ordinal)
);

-- Label 'reference', or 'metadata.' and the name. The value's hash keeps the key short.
create table ledger.labels (
    tenant      text  not null,
    label       text  not null,
    value_hash  uuid  not null,
    partition   int2  not null,
    position    int8  not null,
    primary key (tenant, label, value_hash, partition, position)
);

create function ledger.labels_of(extra json) returns table (label text, value text)
    immutable language sql as $$
    select 'reference', extra ->> 'reference' where extra ->> 'reference' is not null
    union all
    select 'metadata.' || pair.key, pair.value from json_each_text(extra -> 'metadata') pair
$$;

-- One account's entries on one share, between two positions.
create function ledger.entries_between(p_account_no int8, p_share int2, p_first int8, p_last int8)
    returns table ("position" int8, ordinal int4, version int8, amount_minor int8, posted_minor int8,
                   held_minor int8, booked_at_us int8, effective_at_us int8)
    stable language sql as $$
    select j.position, line.number, j.entries[line.number * 5 + 2], j.entries[line.number * 5 + 3],
           j.entries[line.number * 5 + 4], j.entries[line.number * 5 + 5],
           j.booked_at_us, j.effective_at_us
      from ledger.journal j
     cross join lateral generate_series(0, cardinality(j.entries) / 5 - 1) line(number)
     where j.partition = p_share and j.position between p_first and p_last
       and j.entries @> array[p_account_no]
       and j.entries[line.number * 5 + 1] = p_account_no
$$;

-- Index one full span of a partition; return whether there was one.
create function ledger.index_journal(p_partition int2) returns bool
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    size   int8 := ledger.index_span();
    reached int8;
    first  int8;
begin
    insert into ledger.indexed (partition, next_span) values (p_partition, 0) on conflict do nothing;
    select next_span * size into first from ledger.indexed where partition = p_partition for update;
    select next_position into reached from ledger.partitions where partition = p_partition;
    if reached is null or reached < first + size then
        return false;
    end if;

    insert into ledger.checkpoints (account_no, share, span, posted_minor, held_minor)
    select distinct on (line.account_no) line.account_no, p_partition, first / size,
           line.posted_minor, line.held_minor
      from (select j.position, n.number, j.entries[n.number * 5 + 1] as account_no,
                   j.entries[n.number * 5 + 4] as posted_minor,
                   j.entries[n.number * 5 + 5] as held_minor
              from ledger.journal j
             cross join lateral generate_series(0, cardinality(j.entries) / 5 - 1) n(number)
             where j.partition = p_partition and j.position between first and first + size - 1) line
     order by line.account_no, line.position desc, line.number desc;

    insert into ledger.redated (account_no, share, position, ordinal, amount_minor, booked_at_us,
                                effective_at_us)
    select j.entries[n.number * 5 + 1], p_partition, j.position, n.number,
           j.entries[n.number * 5 + 3], j.booked_at_us, j.effective_at_us
      from ledger.journal j
     cross join lateral generate_series(0, cardinality(j.entries) / 5 - 1) n(number)
     where j.partition = p_partition and j.position between first and first + size - 1
       and j.effective_at_us <> j.booked_at_us;

    insert into ledger.labels (tenant, label, value_hash, partition, position)
    select j.tenant, l.label, md5(l.value)::uuid, p_partition, j.position
      from ledger.journal j cross join lateral ledger.labels_of(j.extra) l
     where j.partition = p_partition and j.position between first and first + size - 1
       and j.extra is not null;

    update ledger.indexed set next_span = next_span + 1 where partition = p_partition;
    return true;
end $$;

-- The last position of a partition that was booked at this time or before; 0 if none was.
create function ledger.position_at(p_partition int2, p_at_us int8) returns int8
    stable language plpgsql as $$
declare
    low    int8 := 0;
    high   int8;
    middle int8;
    booked int8;
begin
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

-- An account's balance as it was booked up to a time.
create function ledger.balance_at(p_account_id text, p_at_us int8)
    returns table (posted_minor int8, held_minor int8, available_minor int8)
    stable language plpgsql as $$
declare
    size  int8 := ledger.index_span();
    mine  record;
    last  record;
    upto  int8;
    first int8;
begin
    posted_minor := 0;
    held_minor := 0;
    for mine in
        select s.account_no, s.share, coalesce(i.next_span, 0) as next_span
          from ledger.accounts a join ledger.shares s using (account_no)
          left join ledger.indexed i on i.partition = s.share
         where a.account_id = p_account_id
    loop
        upto := ledger.position_at(mine.share, p_at_us);
        first := least(upto / size, mine.next_span) * size;
        select e.posted_minor, e.held_minor into last
          from ledger.entries_between(mine.account_no, mine.share, first, upto) e
         order by e.position desc, e.ordinal desc limit 1;
        if not found then
            select c.posted_minor, c.held_minor into last
              from ledger.checkpoints c
             where c.account_no = mine.account_no and c.share = mine.share and c.span < first / size
             order by c.span desc limit 1;
        end if;
        if found then
            posted_minor := posted_minor + last.posted_minor;
            held_minor := held_minor + last.held_minor;
        end if;
    end loop;
    available_minor := posted_minor - held_minor;
    return next;
end $$;

-- What had been posted to an account by the time at which movements count, as is known today: the
-- balance booked by then, without what was booked then for later, with what was booked later for then.
create function ledger.effective_balance_at(p_account_id text, p_at_us int8) returns int8
    stable language sql as $$
    with redated as (
        select r.amount_minor, r.booked_at_us, r.effective_at_us
          from ledger.accounts a join ledger.redated r using (account_no)
         where a.account_id = p_account_id
        union all
        select e.amount_minor, e.booked_at_us, e.effective_at_us
          from ledger.accounts a join ledger.shares s using (account_no)
          join ledger.partitions p on p.partition = s.share
          left join ledger.indexed i on i.partition = s.share
         cross join lateral ledger.entries_between(a.account_no, s.share,
               coalesce(i.next_span, 0) * ledger.index_span(), p.next_position - 1) e
         where a.account_id = p_account_id and e.effective_at_us <> e.booked_at_us
    )
    select (select b.posted_minor from ledger.balance_at(p_account_id, p_at_us) b)
         + coalesce(sum(case
               when booked_at_us <= p_at_us and effective_at_us > p_at_us then -amount_minor
               when booked_at_us > p_at_us and effective_at_us <= p_at_us then amount_minor
               else 0 end), 0)::int8
      from redated
$$;

-- An account's entries booked in [from, to), merged over its shares by booked time, partition and
-- position, with the balance that runs over the merge. Reads only spans in which the account moved.
create function ledger.statement(p_account_id text, p_from_us int8, p_to_us int8)
    returns table (booked_at_us int8, share int2, "position" int8, ordinal int4, version int8,
                   amount_minor int8, effective_at_us int8, running_minor int8, transfer_id text,
                   type text)
    stable language sql as $$
    with spans as (
        select s.account_no, s.share, greatest(c.first, bounds.first) as first,
               least(c.last, bounds.last) as last
          from ledger.accounts a join ledger.shares s using (account_no)
         cross join lateral (
               select ledger.position_at(s.share, p_from_us - 1) + 1 as first,
                      ledger.position_at(s.share, p_to_us - 1) as last) bounds
          left join ledger.indexed i on i.partition = s.share
         cross join lateral (
               select k.span * ledger.index_span() as first,
                      (k.span + 1) * ledger.index_span() - 1 as last
                 from ledger.checkpoints k
                where k.account_no = s.account_no and k.share = s.share
                  and k.span between bounds.first / ledger.index_span()
                                 and bounds.last / ledger.index_span()
               union all
               select coalesce(i.next_span, 0) * ledger.index_span(), bounds.last) c
         where a.account_id = p_account_id
    )
    select e.booked_at_us, s.share, e.position, e.ordinal, e.version, e.amount_minor,
           e.effective_at_us,
           ((select b.posted_minor from ledger.balance_at(p_account_id, p_from_us - 1) b)
            + sum(e.amount_minor) over (order by e.booked_at_us, s.share, e.position, e.ordinal)
           )::int8,
           case when j.transfer_id = '' then j.saga_id else j.transfer_id end, j.type
      from spans s
     cross join lateral ledger.entries_between(s.account_no, s.share, s.first, s.last) e
      join ledger.journal j on j.partition = s.share and j.position = e.position
     order by e.booked_at_us, s.share, e.position, e.ordinal
$$;

-- A tenant's commands by their reference (label 'reference') or metadata ('metadata.' and the name).
create function ledger.search(p_tenant text, p_label text, p_value text)
    returns setof ledger.outcomes stable language sql as $$
    with places as (
        select l.partition, l.position from ledger.labels l
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

revoke all on all functions in schema ledger from public;

grant select on ledger.indexed, ledger.checkpoints, ledger.redated, ledger.labels
    to ledger_writer, ledger_reader;
grant execute on function ledger.index_journal, ledger.index_span to ledger_writer;
grant execute on function ledger.index_span, ledger.labels_of, ledger.entries_between,
    ledger.position_at, ledger.balance_at, ledger.effective_balance_at, ledger.statement,
    ledger.search to ledger_reader;
