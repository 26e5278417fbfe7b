-- The read model. Writers: streams.views as the owner; readers: views_reader. Versions come from the
-- log (a payment counts its events, a share its entries), so a record that was applied changes nothing.
-- Rows that change soon after they are written leave room on their page for it (fillfactor), and no index
-- covers what changes: such an update touches no index.

create table payments (
    payment_id          text primary key,
    tenant              text not null,
    idempotency_key     text not null,
    identity            text not null,
    status              text not null,
    version             integer not null,
    reason              text,
    detail              text,
    amount_minor        bigint,
    currency            text,
    source_account      text,
    destination_account text,
    method              text not null,
    capture             text,
    description         text,
    reference           text,
    metadata            jsonb not null,
    request_id          text not null,
    created_at_us       bigint not null,
    updated_at_us       bigint not null
) with (fillfactor = 80);

create index payments_by_time on payments (tenant, created_at_us desc, payment_id);
create index payments_by_key on payments (tenant, idempotency_key);
create index payments_by_source
    on payments (tenant, source_account, created_at_us desc, payment_id);
create index payments_by_destination
    on payments (tenant, destination_account, created_at_us desc, payment_id);

create table payment_timeline (
    payment_id text not null,
    version    integer not null,
    at_us      bigint not null,
    event      text not null,
    reason     text,
    detail     text,
    event_id   text not null,
    primary key (payment_id, version)
);

create table accounts (
    account_id        text primary key,
    tenant            text not null,
    kind              text not null,
    currency          text not null,
    name              text,
    status            text not null,
    min_balance_minor bigint,
    max_balance_minor bigint,
    metadata          jsonb not null,
    created_at_us     bigint not null
);

create index accounts_by_time on accounts (tenant, created_at_us desc, account_id);

create table account_shares (
    account_id    text not null,
    share         integer not null,
    version       bigint not null,
    posted_minor  bigint not null,
    held_minor    bigint not null,
    updated_at_us bigint not null,
    primary key (account_id, share)
) with (fillfactor = 50);

create table entries (
    account_id      text not null,
    share           integer not null,
    version         bigint not null,
    amount_minor    bigint not null,
    posted_minor    bigint not null,
    held_minor      bigint not null,
    currency        text not null,
    transfer_id     text,
    booked_at_us    bigint not null,
    effective_at_us bigint not null,
    ledger_position bigint not null,
    primary key (account_id, share, version)
);

create table webhook_events (
    source               text not null,
    partner_event_id     text not null,
    status               text not null,
    deliveries           integer not null,
    first_received_at_us bigint not null,
    body_hash            text not null,
    primary key (source, partner_event_id)
) with (fillfactor = 80);

-- One row per partition read: who may write what it says (epoch), and what it said last (next_offset).
create table view_offsets (
    topic       text not null,
    partition   integer not null,
    epoch       bigint not null,
    next_offset bigint,
    primary key (topic, partition)
) with (fillfactor = 50);

grant usage on schema public to views_reader;
grant select on payments, payment_timeline, accounts, account_shares, entries, webhook_events,
    view_offsets to views_reader;
