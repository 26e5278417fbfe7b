-- What people and checks read, and who may do what.

create function ledger.claim_key(claimed text) returns uuid immutable strict language sql as
$$ select left(encode(sha256(convert_to(claimed, 'UTF8')), 'hex'), 32)::uuid $$;

-- Every decided command with all of its fields in words.
create view ledger.outcomes as
select j.partition, j.position, j.command_offset, j.type,
       j.saga_id || '/' || j.step || '/' || j.attempt as command_id, j.saga_id, j.step, j.attempt,
       j.tenant, coalesce(j.identity, right(j.saga_id, 26)) as identity,
       encode(j.body_hash, 'hex') as body_hash,
       case when j.transfer_id = '' then j.saga_id else j.transfer_id end as transfer_id,
       j.reason, j.failed_leg, j.repeats_position is not null as repeated,
       j.repeats_partition, j.repeats_position, j.booked_at_us, j.effective_at_us, j.extra,
       encode(j.chain_hash, 'hex') as chain_hash
  from ledger.journal j;

-- One line an entry, with its account in words.
create view ledger.entries as
select j.partition as share, j.position, line.number as ordinal, a.account_id, a.tenant, a.currency,
       j.entries[line.number * 5 + 2] as version,
       j.entries[line.number * 5 + 3] as amount_minor,
       j.entries[line.number * 5 + 4] as posted_minor,
       j.entries[line.number * 5 + 5] as held_minor,
       j.booked_at_us, j.effective_at_us, j.command_offset
  from ledger.journal j
 cross join lateral generate_series(0, cardinality(j.entries) / 5 - 1) line(number)
  join ledger.accounts a on a.account_no = j.entries[line.number * 5 + 1];

-- Every account's balance: the sum of its shares.
create view ledger.balances as
select a.account_id, a.tenant, a.currency, a.kind, a.min_balance_minor, a.max_balance_minor,
       coalesce(sum(s.posted_minor), 0)::int8 as posted_minor,
       coalesce(sum(s.held_minor), 0)::int8 as held_minor,
       coalesce(sum(s.posted_minor - s.held_minor), 0)::int8 as available_minor,
       coalesce(sum(s.version), 0)::int8 as version
  from ledger.accounts a left join ledger.shares s using (account_no)
 group by a.account_no;

revoke all on all functions in schema ledger from public;

grant usage on schema ledger to ledger_writer, ledger_reader;
grant select on all tables in schema ledger to ledger_writer, ledger_reader;
grant insert on ledger.journal, ledger.identities, ledger.accounts, ledger.shares,
    ledger.partitions to ledger_writer;
grant update on ledger.shares, ledger.partitions to ledger_writer;
grant execute on function ledger.commit_batch, ledger.ensure_journal, ledger.journal_span
    to ledger_writer;
grant execute on function ledger.claim_key to ledger_writer, ledger_reader;
