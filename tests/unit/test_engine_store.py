"""The store on a real disk: what is written is found again, what is broken is rebuilt."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import Corrupt, Unavailable
from streams.engine import Collection, Context, Input, Position, Record, Task, keys
from streams.engine.position import encode_position
from streams.engine.store import Disk, Mark, Store

MARK = Mark("cluster", 10, 1_000.0)
POSITION = Position({"in": 4}, 99)


def timer(due_us: int, name: bytes, slot: int = 3) -> dict[bytes, bytes | None]:
    return {keys.prefix(slot, keys.TIMERS_ID) + name: keys.time_bytes(due_us) + b"payload"}


def filled(store: Store) -> None:
    state: dict[bytes, bytes | None] = {b"\x00\x01\x01k": b"v", b"\x00\x01\x01gone": None}
    store.write(state | {keys.POSITION: encode_position(POSITION)}, MARK)


def test_state_position_and_mark_are_found_again(tmp_path: Path) -> None:
    store = Disk(tmp_path).open("t", 0)
    assert store.mark() is None
    assert store.position() is None
    filled(store)
    store.close()
    store = Disk(tmp_path).open("t", 0)
    assert (store.mark(), store.position()) == (MARK, POSITION)
    assert store.get(b"\x00\x01\x01k") == b"v"
    assert [key for key, _ in store.items()] == [b"\x00\x01\x01k", keys.POSITION]
    store.close()


def test_a_wiped_store_has_nothing(tmp_path: Path) -> None:
    store = Disk(tmp_path).open("t", 0)
    filled(store)
    store.wipe()
    assert list(store.items()) == []
    assert store.mark() is None
    store.close()


def test_timers_are_walked_in_order_of_time_up_to_now(tmp_path: Path) -> None:
    store = Disk(tmp_path).open("t", 0)
    store.write(timer(300, b"c") | timer(100, b"a", 9) | timer(200, b"b"), MARK)
    assert store.first_due() == 100
    due = list(store.due(200, 10, keys.DUE))
    assert [keys.timer_key_of(entry)[3:] for entry in due] == [b"a", b"b"]
    assert list(store.due(200, 1, keys.DUE)) == due[:1]
    store.write({}, MARK, removed=due)
    assert store.first_due(due[-1]) == 300
    assert list(store.due(299, 10, keys.DUE)) == []
    store.close()


def test_a_folder_in_use_is_left_alone_and_unavailable(tmp_path: Path) -> None:
    store = Disk(tmp_path).open("t", 0)
    filled(store)
    with pytest.raises(Unavailable, match="in use by another process"):
        Disk(tmp_path).open("t", 0)
    assert store.get(b"\x00\x01\x01k") == b"v"
    store.close()


def test_a_broken_folder_is_discarded_because_the_changelog_has_it_all(tmp_path: Path) -> None:
    store = Disk(tmp_path).open("t", 0)
    filled(store)
    store.close()
    (tmp_path / "t" / "0" / "CURRENT").write_text("garbage")
    store = Disk(tmp_path).open("t", 0)
    assert store.mark() is None
    store.close()


def test_a_store_that_cannot_be_read_stops_the_process_and_buries_no_record(tmp_path: Path) -> None:
    store = Disk(tmp_path).open("t", 0)
    store.close()
    raw: Collection[bytes] = Collection(1, "raw")
    task = Task("t", (Input("in"),), handle=lambda context, records: None, collections=(raw,))
    with pytest.raises(Corrupt, match="cannot be read"):
        Context(task, 0, 1, store.get).get(raw, 1, b"k")


def test_a_records_parts_are_what_a_handler_is_promised() -> None:
    record = Record("in", 0, 7, b"k", None, (("h", b"v"),), 5)
    assert (record.event, record.timer, record.headers) == (None, None, (("h", b"v"),))
