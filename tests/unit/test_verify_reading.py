"""Reading without loss: NULL and empty text, writers' schemas, cuts behind markers."""

from __future__ import annotations

import io

import pyarrow as pa
import pytest

from loadtest.kafka_log import Log
from loadtest.verify import databases, frames
from loadtest.verify.evidence import _Tracker, last_records
from schemas import wire
from schemas.topics import TOPICS
from tests.unit.verify_rig import World, operated_world, small_world

TYPES = {"id": pa.int64(), "text": pa.string(), "yes": pa.bool_()}


def test_null_and_empty_text_are_told_apart() -> None:
    table = databases.parse_csv(io.BytesIO(b'1,,t\n2,"",f\n3,"a\nb""c",\n'), TYPES)
    assert table.to_pylist() == [
        {"id": 1, "text": None, "yes": True},
        {"id": 2, "text": "", "yes": False},
        {"id": 3, "text": 'a\nb"c', "yes": None},
    ]


def test_an_empty_table_has_its_columns() -> None:
    table = databases.parse_csv(io.BytesIO(b""), TYPES)
    assert table.num_rows == 0
    assert table.column_names == list(TYPES)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\x00", lambda b: b[1:]])
def test_bytes_that_do_not_decode_are_told_as_such(change) -> None:  # type: ignore[no-untyped-def]
    value = good_event()
    assert frames.decode(value) is not None
    assert frames.decode(change(value)) is None


def test_an_undecodable_record_stays_in_the_table_without_fields() -> None:
    log = Log(
        "payments.events", [0, 0], [0, 1], [1, 2], [b"k", b"k"], [good_event(), b"x"], [(), ()]
    )
    table = frames.log_table(log, {("payments.events", 0): 2})
    assert table["_undecoded"].to_pylist() == [False, True]
    assert table["type"].to_pylist()[1] is None


def test_a_cut_behind_markers_asks_readers_only_for_the_last_record() -> None:
    log = Log("ledger.events", [0, 0, 1], [0, 4, 2], [0] * 3, [b""] * 3, [b""] * 3, [()] * 3)
    cut = {("ledger.events", 0): 3, ("ledger.events", 1): 9}
    assert last_records({"ledger.events": log}, cut) == {
        ("ledger.events", 0): 1,
        ("ledger.events", 1): 3,
    }


def test_dead_letters_name_the_record_they_came_from() -> None:
    headers = (("dlq.partition", b"2"), ("dlq.offset", b"7"), ("dlq.reason", b"no"))
    log = Log("ledger.commands.dlq", [0], [0], [0], [b""], [b""], [headers])
    rows = frames.dead_table({"ledger.commands.dlq": log}).to_pylist()
    assert rows == [{"topic": "ledger.commands", "partition": 2, "offset": 7}]


def good_event() -> bytes:
    world: World = small_world()
    record = world.logs["payments.events"][-1][3]
    return wire.encode("payments.events", record)


def test_requests_are_awaited_until_each_has_its_outcome() -> None:
    world = operated_world()
    cut = world.ends()
    logs = {topic: world._as_log(topic) for topic in TOPICS}
    assert _Tracker(logs, cut).open == 0
    for topic, kinds, waiting in (
        ("payments.events", {"payment.authorized"}, 3),
        ("payments.events", {"payment.refunded", "account.closed"}, 2),
        ("ledger.events", {"transfer.reversed"}, 1),
    ):
        kept = world.logs[topic]
        world.logs[topic] = [record for record in kept if record[3]["type"] not in kinds]
        tracker = _Tracker(logs | {topic: world._as_log(topic)}, cut)
        world.logs[topic] = kept
        assert tracker.open == waiting, kinds
