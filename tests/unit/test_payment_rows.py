"""A row, and a saga that is made by position, have their values in the order of the fields."""

from __future__ import annotations

from msgspec.structs import replace

from streams.payments import records, rows
from streams.payments.saga import State
from streams.payments.state import Saga

SAGA = Saga(
    resource_id="pay_00a_" + "i" * 26,
    tenant="tenant",
    idempotency_key="key",
    body_hash="hash",
    home_account="home",
    request_id="request",
    received_at_us=1,
    accepted_at_us=2,
    state=State.AUTHORIZED,
    version=3,
    amount_minor=4,
    currency="EUR",
    source_account="source",
    destination_account="destination",
    method="method",
    capture="manual",
    reason="reason",
    detail="detail",
    authorized_minor=5,
    captured_minor=6,
    refunded_minor=7,
    expires_at_us=8,
    effective_at_us=9,
)


def test_an_event_tells_of_the_saga_by_the_same_names() -> None:
    told = dict(zip(rows.EVENT, rows.event(SAGA, "kind", "event", 10, 11), strict=True))
    of_saga = {name: getattr(SAGA, name) for name in rows.EVENT if hasattr(SAGA, name)}
    assert told == of_saga | {
        "type": "kind",
        "event_id": "event",
        "slot": 10,
        "status": "authorized",
        "occurred_at_us": 11,
        "identity": "i" * 26,
    }
    assert len(set(told.values())) == len(rows.EVENT), "no two alike, so that none can be swapped"


def test_an_events_status_is_the_sagas() -> None:
    for state, status in ((State.POSTING, "accepted"), (State.SETTLED, "settled")):
        row = rows.event(replace(SAGA, state=state), "kind", "event", 10, 11)
        assert row[rows.EVENT.index("status")] == status


def test_a_saga_keeps_what_its_request_says_by_the_same_names() -> None:
    of_saga = [name for name in Saga.__struct_fields__ if isinstance(getattr(SAGA, name), str)]
    request = {name: f"the {name}" for name in of_saga}
    request |= {"received_at_us": 1, "amount_minor": 4, "effective_at_us": 9, "dry_run": True}
    new = records.saga(request | {"expires_in_s": 2, "legs": None}, State.AUTHORIZING, 20)
    kept = {name: getattr(new, name) for name in request}
    assert kept == request | {"reason": None, "detail": None}
    assert (new.accepted_at_us, new.state, new.version) == (20, State.AUTHORIZING, 0)
    assert new.expires_at_us == 2_000_020


def test_an_opening_command_tells_of_the_saga_by_the_same_names() -> None:
    home = "acct_c00a_" + "h" * 26
    request = {"legs": None, "reference": "reference", "metadata": {"m": "d"}}
    saga = replace(SAGA, home_account=home)
    row, others = records.opening_command(saga, "hold.place", request, "why")
    told = dict(zip(records.OPENING, row, strict=True))
    leg = {name: getattr(saga, name) for name in ("amount_minor", "currency")}
    leg |= {"source": "source", "destination": "destination"}
    assert told == {
        "type": "hold.place",
        "command_id": f"{saga.resource_id}/place/1",
        "saga_id": saga.resource_id,
        "step": "place",
        "attempt": 1,
        "tenant": "tenant",
        "identity": "i" * 26,
        "body_hash": "hash",
        "slot": 10,
        "home_account": home,
        "requested_at_us": 2,
        "legs": [leg],
        "effective_at_us": 9,
        "reason": "why",
        "reference": "reference",
        "metadata": {"m": "d"},
        "dry_run": False,
    }
    held = {"transfer_id": saga.resource_id, "hold_id": saga.resource_id, "expires_at_us": 8}
    assert others == held
