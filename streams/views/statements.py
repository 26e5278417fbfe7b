"""The SQL that writes the read model: one statement a table, whole batches by unnest, all
idempotent. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

PAYMENTS: Final = """
insert into payments (payment_id, tenant, idempotency_key, identity, status, version, reason,
    detail, amount_minor, currency, source_account, destination_account, method, capture,
    description, reference, metadata, request_id, created_at_us, updated_at_us, authorized_minor,
    captured_minor, refunded_minor, expires_at_us)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[],
    $7::text[], $8::text[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[],
    $14::text[], $15::text[], $16::text[], $17::jsonb[], $18::text[], $19::bigint[], $20::bigint[],
    $21::bigint[], $22::bigint[], $23::bigint[], $24::bigint[])
on conflict (payment_id) do update set status = excluded.status, version = excluded.version,
    reason = excluded.reason, detail = excluded.detail, updated_at_us = excluded.updated_at_us,
    authorized_minor = excluded.authorized_minor, captured_minor = excluded.captured_minor,
    refunded_minor = excluded.refunded_minor, expires_at_us = excluded.expires_at_us
where payments.version < excluded.version"""

MARKS: Final = """
update payments set version = mark.version
from unnest($1::text[], $2::int[]) as mark (payment_id, version)
where payments.payment_id = mark.payment_id and payments.version < mark.version"""

TIMELINE: Final = """
insert into payment_timeline (payment_id, version, at_us, event, reason, detail, event_id)
select * from unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::text[], $6::text[],
    $7::text[])
on conflict do nothing"""

ACCOUNTS: Final = """
insert into accounts (account_id, tenant, kind, currency, name, status, min_balance_minor,
    max_balance_minor, metadata, created_at_us)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
    $7::bigint[], $8::bigint[], $9::jsonb[], $10::bigint[])
on conflict do nothing"""

STANDINGS: Final = """
update accounts set status = new.status, debits_frozen = new.debits, credits_frozen = new.credits,
    changed_position = new.position, changed_at_us = new.at_us
from unnest($1::text[], $2::text[], $3::boolean[], $4::boolean[], $5::bigint[], $6::bigint[])
    as new (account_id, status, debits, credits, position, at_us)
where accounts.account_id = new.account_id and accounts.changed_position < new.position"""

SHARES: Final = """
insert into account_shares (account_id, share, version, posted_minor, held_minor, updated_at_us)
select * from unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
on conflict (account_id, share) do update set version = excluded.version,
    posted_minor = excluded.posted_minor, held_minor = excluded.held_minor,
    updated_at_us = excluded.updated_at_us
where account_shares.version < excluded.version"""

ENTRIES: Final = """
insert into entries (account_id, share, version, amount_minor, posted_minor, held_minor, currency,
    transfer_id, booked_at_us, effective_at_us, ledger_position, event)
select * from unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
    $7::text[], $8::text[], $9::bigint[], $10::bigint[], $11::bigint[], $12::text[])
on conflict do nothing"""

# Each entry is summed up once: when it is new here. A span's sum takes the entry where it counts,
# and gives it back where it was booked.
SHIFTED: Final = """
with added as (
    insert into entries (account_id, share, version, amount_minor, posted_minor, held_minor,
        currency, transfer_id, booked_at_us, effective_at_us, ledger_position, event)
    select * from unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[],
        $6::bigint[], $7::text[], $8::text[], $9::bigint[], $10::bigint[], $11::bigint[],
        $12::text[])
    on conflict do nothing
    returning account_id, amount_minor, booked_at_us, effective_at_us
), moved as (
    select account_id, effective_at_us as at_us, amount_minor as minor from added
    union all select account_id, booked_at_us, -amount_minor from added
)
insert into shifted_sums (account_id, span_s, span, posted_minor)
select account_id, span_s, div(at_us, span_s * 1000000::bigint) as span, sum(minor)
from moved cross join (values (86400), (60)) as spans (span_s)
group by account_id, span_s, span order by account_id, span_s, span
on conflict (account_id, span_s, span) do update
set posted_minor = shifted_sums.posted_minor + excluded.posted_minor"""

TAGS: Final = """
insert into search_tags (tenant, tag, at_us, id)
select * from unnest($1::text[], $2::text[], $3::bigint[], $4::text[])
on conflict do nothing"""

HOLDS: Final = """
insert into holds (hold_id, tenant, account_id, saga_id, currency, amount_minor, placed_at_us,
    expires_at_us, remaining_minor, state, changed_at_us, position)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[],
    $7::bigint[], $8::bigint[], $9::bigint[], $10::text[], $11::bigint[], $12::bigint[])
on conflict (hold_id) do update set remaining_minor = excluded.remaining_minor,
    state = excluded.state, changed_at_us = excluded.changed_at_us, position = excluded.position
where holds.position < excluded.position"""

HOLDS_CHANGED: Final = """
update holds set remaining_minor = new.remaining_minor, state = new.state,
    changed_at_us = new.at_us, position = new.position
from unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[])
    as new (hold_id, remaining_minor, state, at_us, position)
where holds.hold_id = new.hold_id and holds.position < new.position"""

TRANSFERS: Final = """
insert into transfers (transfer_id, tenant, status, original_id, reversed_minor, reason, detail,
    failed_leg, reference, metadata, entries, booked_at_us, effective_at_us, ledger_position)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[],
    $7::text[], $8::int[], $9::text[], $10::jsonb[], $11::jsonb[], $12::bigint[], $13::bigint[],
    $14::bigint[])
on conflict do nothing"""

# Parts are put together in the order of the legs, the debit first; which came first makes no
# difference. Position 0: the transfer's own home, which says when it was booked, has not spoken.
PARTS: Final = """
insert into transfers (transfer_id, tenant, status, original_id, reversed_minor, reference,
    metadata, entries, booked_at_us, effective_at_us, ledger_position, legs_total)
select part.transfer_id, part.tenant, 'posted', part.original_id, part.reversed_minor,
    part.reference, part.metadata, part.entries, part.booked_at_us, part.effective_at_us,
    part.ledger_position, part.legs_total
from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::jsonb[],
    $7::jsonb[], $8::bigint[], $9::bigint[], $10::bigint[], $11::int[]) as part (transfer_id,
    tenant, original_id, reversed_minor, reference, metadata, entries, booked_at_us,
    effective_at_us, ledger_position, legs_total)
order by part.transfer_id
on conflict (transfer_id) do update set
    entries = (
        select coalesce(jsonb_agg(
            side order by (side ->> 'leg')::int, (side ->> 'amount_minor')::bigint
        ), '[]')
        from (
            select * from jsonb_array_elements(transfers.entries)
            union select * from jsonb_array_elements(excluded.entries)
        ) as sides (side)
    ),
    (reference, metadata, booked_at_us, effective_at_us, ledger_position) = (
        select told.*
        from (values
            (transfers.reference, transfers.metadata, transfers.booked_at_us,
                transfers.effective_at_us, transfers.ledger_position),
            (excluded.reference, excluded.metadata, excluded.booked_at_us,
                excluded.effective_at_us, excluded.ledger_position)
        ) as told order by told.column5 desc limit 1
    )"""

WEBHOOKS: Final = """
insert into webhook_events (source, partner_event_id, status, deliveries, first_received_at_us,
    body_hash)
select * from unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::bigint[], $6::text[])
on conflict (source, partner_event_id) do update set
    status = case when webhook_events.status = 'conflicted' then 'conflicted'
        else excluded.status end,
    deliveries = greatest(webhook_events.deliveries, excluded.deliveries)"""

CLAIM: Final = """
insert into view_offsets (topic, partition, epoch)
select topic, partition, 1 from unnest($1::text[], $2::int[]) as claimed (topic, partition)
on conflict (topic, partition) do update set epoch = view_offsets.epoch + 1
returning topic, partition, epoch, next_offset"""

ADVANCE: Final = """
update view_offsets as stored set next_offset = moved.next
from unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[])
    as moved (topic, partition, epoch, first, next)
where stored.topic = moved.topic and stored.partition = moved.partition
    and stored.epoch = moved.epoch and stored.next_offset is not distinct from moved.first"""


def columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    """Turn rows into the arrays that the statements take."""
    return [list(column) for column in zip(*rows, strict=True)]
