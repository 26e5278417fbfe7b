-- What lists are read along: one row a tag (see schemas/tags.py), newest first within each; what is held;
-- and what effective time moves, summed up by day and minute.

create table search_tags (
    tenant text   not null,
    tag    text   not null,
    at_us  bigint not null,
    id     text   not null
);

create unique index search_tags_by_time on search_tags (tenant, tag, at_us desc, id);

drop index transfers_by_reference;

create table holds (
    hold_id         text primary key,
    tenant          text not null,
    account_id      text not null,
    saga_id         text not null,
    currency        text not null,
    amount_minor    bigint not null,
    remaining_minor bigint not null,
    state           text not null,
    placed_at_us    bigint not null,
    expires_at_us   bigint,
    changed_at_us   bigint not null,
    position        bigint not null
) with (fillfactor = 80);

create index holds_open on holds (account_id, placed_at_us desc, hold_id) where remaining_minor > 0;

-- What the entries that count at another time than they were booked at bring to a span of effective time,
-- and take from the span that they were booked in. Spans are days and minutes since 1970.
create table shifted_sums (
    account_id   text not null,
    span_s       integer not null,
    span         bigint not null,
    posted_minor bigint not null,
    primary key (account_id, span_s, span)
) with (fillfactor = 80);

create index entries_shifted_booked on entries (account_id, booked_at_us)
    where effective_at_us <> booked_at_us;

-- What the tables hold already. A hold is named like the payment that placed it.
create function pg_temp.tag(variadic parts text[]) returns text language sql as $$
    select left(encode(sha256(convert_to(array_to_string(parts, E'\x1f'), 'UTF8')), 'hex'), 32)
$$;

insert into search_tags
select tenant, pg_temp.tag('transfer', 'reference', reference), booked_at_us, transfer_id
from transfers where reference is not null
union
select tenant, pg_temp.tag('transfer', 'metadata', pair.key, pair.value), booked_at_us, transfer_id
from transfers cross join jsonb_each_text(metadata) pair
union
select tenant, pg_temp.tag('transfer', 'account', side ->> 'account_id'), booked_at_us, transfer_id
from transfers cross join jsonb_array_elements(entries) side
union
select tenant, pg_temp.tag('payment', 'reference', reference), created_at_us, payment_id
from payments where reference is not null
union
select tenant, pg_temp.tag('payment', 'metadata', pair.key, pair.value), created_at_us, payment_id
from payments cross join jsonb_each_text(metadata) pair;

insert into shifted_sums
select account_id, span_s, div(at_us, span_s * 1000000::bigint), sum(minor)
from (
    select account_id, effective_at_us as at_us, amount_minor as minor from entries
    where effective_at_us <> booked_at_us
    union all
    select account_id, booked_at_us, -amount_minor from entries
    where effective_at_us <> booked_at_us
) moved cross join (values (86400), (60)) spans (span_s)
group by 1, 2, 3;

insert into holds
select payment_id, tenant, source_account, payment_id, currency, authorized_minor,
    authorized_minor - coalesce(captured_minor, 0), 'open', created_at_us, expires_at_us,
    updated_at_us, 0
from payments where status = 'authorized';

grant select on search_tags, holds, shifted_sums to views_reader;
