"""The store on a real disk: what is written is found again, what is broken is rebuilt."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.local.child import wait_for
from schemas.errors import Corrupt, Unavailable
from streams.engine import Collection, Context, Input, Position, Record, Task, keys
from streams.engine.position import encode_position
from streams.engine.store import Disk, Mark, Store, StoreLimits

MARK = Mark("cluster", 10, 1_000.0)
NAMES = st.sampled_from([b"a", b"b", b"c"])
CHANGES = st.lists(
    st.one_of(
        st.tuples(
            NAMES.map(lambda name: b"\x00\x03\x01" + name), st.none() | st.binary(max_size=4)
        ),
        st.tuples(NAMES, st.integers(0, 9)).map(lambda at: next(iter(timer(at[1], at[0]).items()))),
        st.just((keys.prefix(3, keys.DROPPED_ID) + b"\x01", b"b")),
    ),
    max_size=40,
)
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


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(CHANGES, st.integers(1, 40))
def test_what_is_poured_comes_to_what_is_written_one_by_one(
    tmp_path: Path, changes: list[tuple[bytes, bytes | None]], cut: int
) -> None:
    written, poured = (Disk(tmp_path).open(name, 0) for name in ("written", "poured"))
    written.wipe()
    for key, value in changes:
        written.write({key: value}, MARK)
    poured.rebuild()
    poured.pour(changes[:cut])
    poured.pour(changes[cut:])
    poured.whole(MARK)
    for store in (written, poured):
        store.settle()
    assert list(poured.items()) == list(written.items())
    assert list(poured.due(10, 100, keys.DUE)) == list(written.due(10, 100, keys.DUE))
    for store in (written, poured):
        store.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from streams.engine.store import Disk, Mark, StoreLimits
store = Disk(Path(sys.argv[1]), StoreLimits(memtable_bytes=64 * 1024)).open("t", 0)
store.write({b"\\x00\\x01\\x01old": b"v"}, Mark("cluster", 1, 1.0))
store.rebuild()
for at in range(2_000):
    store.pour([(b"\\x00\\x01\\x01%04d" % (at * 7 % 2_000), b"%0300d" % at)])
if sys.argv[2] != "cut":
    store.whole(Mark("cluster", 10, 1_000.0))
if sys.argv[2] == "after":
    store.write({b"\\x00\\x01\\x01old": b"new"}, Mark("cluster", 11, 1_000.0))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("killed", "mark", "entries"),
    [("cut", None, None), ("whole", MARK, 2_000), ("after", Mark("cluster", 11, 1_000.0), 2_001)],
)
def test_a_rebuild_that_a_kill_cut_short_leaves_no_mark_and_a_whole_one_everything(
    tmp_path: Path, killed: str, mark: Mark | None, entries: int | None
) -> None:
    child = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), killed], check=False)
    assert child.returncode == -signal.SIGKILL
    store = Disk(tmp_path).open("t", 0)
    assert store.mark() == mark
    assert entries is None or len(list(store.items())) == entries
    store.close()


def test_what_a_rebuild_left_unsorted_is_compacted_once_it_is_whole(tmp_path: Path) -> None:
    store = Disk(tmp_path, StoreLimits(memtable_bytes=64 * 1024)).open("t", 0)
    store.rebuild()
    shuffled = random.Random(1).sample(range(4_000), 4_000)
    for at in shuffled:
        store.pour([(b"\x00\x01\x01%04d" % at, random.Random(at).randbytes(300))])
    assert wait_for(lambda: files(tmp_path) > 8, 10.0), "nothing is compacted on the way"
    store.whole(MARK)
    assert wait_for(lambda: files(tmp_path) <= 4, 10.0), "compaction goes on afterwards"
    store.close()


def files(folder: Path) -> int:
    return len(list((folder / "t" / "0").glob("*.sst")))


def test_all_stores_of_a_process_share_one_block_cache(tmp_path: Path) -> None:
    disk = Disk(tmp_path, StoreLimits(cache_bytes=4 * 1024 * 1024))
    one, other = disk.open("t", 0), disk.open("t", 1)
    one.write({b"\x00\x01\x01%04d" % at: b"%0900d" % at for at in range(2_000)}, MARK)
    one.settle()
    before = other._db.property_int_value("rocksdb.block-cache-usage")
    assert len(list(one.items())) == 2_000
    assert other._db.property_int_value("rocksdb.block-cache-usage") > before + 100_000
    assert other._db.property_int_value("rocksdb.block-cache-capacity") == 4 * 1024 * 1024
    one.close()
    other.close()


def test_a_store_that_is_opened_again_has_the_limits_of_today(tmp_path: Path) -> None:
    for mebibytes in (4, 9):
        disk = Disk(tmp_path, StoreLimits(cache_bytes=mebibytes * 1024 * 1024))
        store = disk.open("t", 0)
        capacity = store._db.property_int_value("rocksdb.block-cache-capacity")
        assert capacity == mebibytes * 1024 * 1024
        filled(store)
        store.close()


def test_a_rebuilt_store_goes_on_as_any_other(tmp_path: Path) -> None:
    store = Disk(tmp_path).open("t", 0)
    filled(store)
    store.rebuild()
    store.pour((b"\x00\x01\x01%05d" % (number % 3_000), b"%d" % number) for number in range(9_000))
    store.pour([(b"\x00\x01\x0100007", None)])
    store.whole(MARK)
    assert store.mark() == MARK
    assert store.get(b"\x00\x01\x0100007") is None
    assert store.get(b"\x00\x01\x0100008") == b"6008"
    store.write({b"\x00\x01\x0100008": b"new"}, MARK)
    assert store.get(b"\x00\x01\x0100008") == b"new"
    assert len(list(store.items())) == 2_999
    store.close()
