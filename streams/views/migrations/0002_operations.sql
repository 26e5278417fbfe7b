-- What is done to payments and accounts later, transfers, and statements. The owner may have rows already:
-- what is added has a default. An account's flags are numbered by their position in its home's journal.

alter table payments
    add column authorized_minor bigint,
    add column captured_minor   bigint,
    add column refunded_minor   bigint,
    add column expires_at_us    bigint;

alter table accounts
    add column debits_frozen    boolean not null default false,
    add column credits_frozen   boolean not null default false,
    add column changed_position bigint not null default 0,
    add column changed_at_us    bigint not null default 0;

alter table entries add column event text not null default 'transfer.posted';

-- A statement reads each share backwards from a time; a balance at a time reads one row of each.
create index entries_by_time on entries (account_id, share, booked_at_us, version);

-- The few entries that count at another time than they were booked at.
create index entries_shifted on entries (account_id, effective_at_us)
    where effective_at_us <> booked_at_us;

-- `entries` holds both sides of each movement, in order: what a transfer shows of its legs.
create table transfers (
    transfer_id     text primary key,
    tenant          text not null,
    status          text not null,
    original_id     text,
    reversed_minor  bigint,
    reason          text,
    detail          text,
    failed_leg      integer,
    reference       text,
    metadata        jsonb not null,
    entries         jsonb not null,
    booked_at_us    bigint not null,
    effective_at_us bigint not null,
    ledger_position bigint not null
);

create index transfers_by_time on transfers (tenant, booked_at_us desc, transfer_id);
create index transfers_by_reference on transfers (tenant, reference) where reference is not null;
create index transfers_by_original on transfers (original_id) where original_id is not null;

grant select on transfers to views_reader;
