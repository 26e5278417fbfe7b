-- The ledger's tables. The owner creates them; ledger_writer may add to all of them and change only
-- shares and partitions; ledger_reader may look. The journal, its entries and the claimed identities
-- are never changed or removed by anyone: triggers refuse it even to the owner.

create schema ledger;

-- One row a partition: the fence. A batch commits only if epoch and next_offset are as its writer
-- knows them. Updated by every batch, so it has a page to itself.
create table ledger.partitions (
    partition           int2  primary key check (partition between 0 and 1023),
    epoch               int8  not null check (epoch > 0),
    next_offset         int8  not null check (next_offset >= 0),
    log_time_us         int8  not null,
    next_position       int8  not null check (next_position > 0),
    chain_hash          bytea not null check (length(chain_hash) = 32),
    published_position  int8  not null check (published_position >= 0),
    poisoned            int8  not null check (poisoned >= 0),
    accounts_version    int8  not null
) with (fillfactor = 10);

comment on table ledger.partitions is 'The fence, and how far each partition of ledger.commands was decided';
comment on column ledger.partitions.next_offset is 'The first offset of ledger.commands that is not decided yet';
comment on column ledger.partitions.published_position is 'Every event up to here is in ledger.events, at least';
comment on column ledger.partitions.poisoned is 'Records that were dead-lettered instead of decided';
comment on column ledger.partitions.accounts_version is 'Raised in every row by whoever changes a flag of any account';

create table ledger.accounts (
    account_no         int8  primary key,
    account_id         text  not null unique,
    tenant             text  not null,
    currency           text  not null,
    kind               text  not null check (kind in ('customer', 'external')),
    name               text,
    min_balance_minor  int8,
    max_balance_minor  int8,
    debits_frozen      bool  not null default false,
    credits_frozen     bool  not null default false,
    closed             bool  not null default false,
    check (kind = 'external' or min_balance_minor is not null)
);

comment on column ledger.accounts.account_no is 'Position of the opening row times 1024 plus its partition';

-- A balance is the sum of its shares. Each partition writes its own share and no other. The share at
-- an account's home carries the limits; foreign_minor is what its writer had seen of the other shares
-- when it decided, which for a guarded account can only be too little.
create table ledger.shares (
    account_no     int8  not null,
    share          int2  not null,
    posted_minor   int8  not null check (posted_minor between -1000000000000000000 and 1000000000000000000),
    held_minor     int8  not null check (held_minor >= 0),
    foreign_minor  int8  not null,
    floor_minor    int8,
    ceiling_minor  int8,
    version        int8  not null check (version >= 0),
    primary key (account_no, share),
    constraint not_below_floor check (posted_minor + foreign_minor - held_minor >= floor_minor),
    constraint not_above_ceiling check (posted_minor + foreign_minor <= ceiling_minor)
) with (fillfactor = 60);

-- Who used an identity (or a step under it) first. The key is the start of a SHA-256: see claim_key.
create table ledger.identities (
    key        uuid  primary key,
    partition  int2  not null,
    position   int8  not null
);

-- One row a decided command, with both sides of each of its movements in `entries`: for every entry
-- five numbers (account_no, version, amount_minor, posted_minor, held_minor), signed, the debit first;
-- the share is the row's partition. One row a transfer halves the cost of three and is found by one
-- key; the view `entries` has one line an entry. To keep rows small, what follows from the rest is not
-- stored: identity null: the last 26 characters of saga_id; home_account null: it follows from the
-- first two entries; transfer_id '': the saga_id. The view `outcomes` has them in full.
create table ledger.journal (
    position           int8    not null,
    command_offset     int8    not null,
    booked_at_us       int8    not null,
    effective_at_us    int8    not null,
    repeats_position   int8,
    attempt            int4    not null,
    partition          int2    not null,
    failed_leg         int2,
    repeats_partition  int2,
    type               text    not null,
    tenant             text    not null,
    saga_id            text    not null,
    step               text    not null,
    identity           text,
    home_account       text,
    transfer_id        text,
    reason             text,
    extra              json,
    entries            int8[]  check (cardinality(entries) % 5 = 0),
    body_hash          bytea   not null check (length(body_hash) = 32),
    chain_hash         bytea   not null check (length(chain_hash) = 32),
    primary key (partition, position)
) partition by range (position);

create function ledger.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% of %.% refused: what the ledger has written stays as it is',
        tg_op, tg_table_schema, tg_table_name using errcode = 'HR003';
end $$;

create trigger append_only before update or delete on ledger.journal
    for each row execute function ledger.refuse_change();
create trigger append_only before update or delete on ledger.identities
    for each row execute function ledger.refuse_change();
create trigger not_emptied before truncate on ledger.identities
    for each statement execute function ledger.refuse_change();
create trigger kept before delete on ledger.accounts
    for each row execute function ledger.refuse_change();
create trigger kept before delete on ledger.shares
    for each row execute function ledger.refuse_change();
create trigger kept before delete on ledger.partitions
    for each row execute function ledger.refuse_change();
