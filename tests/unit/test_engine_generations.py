"""Collections that forget: how long, what is kept, and that a generation is dropped whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.engine import Collection, Context, Input, Record, Task, generations, keys
from streams.engine.context import Effects
from streams.engine.generations import DROPPED, SHELVES, SWEPT_MIN, Sweep
from streams.engine.memory import MemoryTask
from streams.engine.store import Disk, Mark, Store

SECOND_US = 1_000_000
HORIZON_S = 100
SLOT = 3

SEEN: Collection[str] = Collection(
    1, "seen", encode=str.encode, decode=bytes.decode, carry=lambda value: value == "open"
)


def remember(context: Context, records: Sequence[Record]) -> None:
    """Tell what is known of each key, then remember the record's value; b'?' only asks."""
    for record in records:
        assert record.key is not None
        assert record.value is not None
        known, name = generations.find(context, SEEN, SLOT, record.key, record.at_us)
        context.emit("out", 0, record.key, (known or "nothing").encode())
        if record.value != b"?":
            context.put(SEEN, SLOT, name, record.value.decode())


def task(horizon_s: int = HORIZON_S) -> Task:
    return Task(
        "t",
        inputs=(Input("in"),),
        outputs=("out",),
        collections=(SEEN,),
        handle=remember,
        horizon_s=horizon_s,
    )


def memory(horizon_s: int = HORIZON_S) -> MemoryTask:
    return MemoryTask(task(horizon_s), partition=SLOT)


def say(run: MemoryTask, at_s: int, key: bytes, value: bytes = b"?") -> str:
    """Feed one record; return what was known."""
    run.feed([("in", key, value, at_s * SECOND_US)])
    known: bytes | None = run.outputs["out"][-1][2]
    assert known is not None
    return known.decode()


def names(run: MemoryTask) -> list[bytes]:
    """The keys that the collection has, of whatever generation."""
    return sorted(key[7:] for key in run.state if key[2] == SEEN.id)


@given(st.integers(0, 2**31), st.integers(0, 3 * HORIZON_S))
def test_a_key_is_remembered_for_the_horizon_and_for_two_at_most(at_s: int, later_s: int) -> None:
    run = memory()
    say(run, at_s, b"k", b"done")
    known = say(run, at_s + later_s, b"k")
    assert known == "done" or later_s >= HORIZON_S
    assert known == "nothing" or later_s <= 2 * HORIZON_S


def test_what_is_over_is_gone_whole_and_leaves_two_generations_at_most() -> None:
    run = memory()
    for at_s in range(0, 2_000, 20):
        say(run, at_s, b"k%d" % at_s, b"done")
    assert len(names(run)) <= 2 * HORIZON_S // 20 + 1
    ends = run.get(SHELVES, SLOT, bytes((SEEN.id,)))
    assert ends is not None
    assert len(ends) <= 2
    dropped = run.get(DROPPED, SLOT, bytes((SEEN.id,)))
    assert dropped is not None
    assert all(key[3:7] >= dropped for key in run.state if key[2] == SEEN.id)


def test_what_is_under_way_outlives_any_number_of_generations_and_then_a_horizon() -> None:
    run = memory()
    say(run, 0, b"hold", b"open")
    for at_s in range(50, 5_000, 50):
        say(run, at_s, b"k%d" % at_s, b"done")
    assert say(run, 5_000, b"hold") == "open"
    assert names(run).count(b"hold") == 1
    say(run, 5_001, b"hold", b"done")
    assert say(run, 5_001 + HORIZON_S - 1, b"hold") == "done"
    assert say(run, 5_001 + 2 * HORIZON_S, b"hold") == "nothing"


def test_a_quiet_slot_keeps_what_is_under_way_and_forgets_the_rest() -> None:
    run = memory()
    say(run, 10, b"hold", b"open")
    say(run, 10, b"k", b"done")
    assert say(run, 10_000, b"k") == "nothing"
    assert say(run, 10_000, b"hold") == "open"


moments = st.lists(
    st.tuples(
        st.integers(0, 90),
        st.sampled_from([b"a", b"b", b"c"]),
        st.sampled_from([b"?", b"open", b"x"]),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(moments, st.lists(st.integers(1, 7), min_size=60, max_size=60))
def test_what_is_known_does_not_depend_on_how_far_the_sweep_is(
    moments: list[tuple[int, bytes, bytes]], cuts: list[int]
) -> None:
    feed, at_s = [], 0
    for later_s, key, value in moments:
        at_s += later_s
        feed.append(("in", key, value, at_s * SECOND_US))
    said = []
    for sizes, sweeping in ((cuts, True), ([1] * 60, True), ([60], False)):
        run, rest = memory(), feed
        if not sweeping:
            run._sweep.task = Task("t", inputs=(Input("in"),), handle=remember)
        for size in sizes:
            run.feed(rest[:size])
            rest = rest[size:]
        said.append([value for _, _, value, _ in run.outputs["out"]])
    assert said[0] == said[1] == said[2]


def test_a_longer_horizon_keeps_what_is_there_longer() -> None:
    run = memory()
    say(run, 10, b"k", b"done")
    longer = memory(10 * HORIZON_S)
    longer.state, longer._context._read = run.state, run.state.get
    assert say(longer, 10 * HORIZON_S, b"k") == "done"


@given(st.integers(0, 999), st.integers(0, 400))
def test_a_shorter_horizon_still_keeps_everything_as_long_as_it_says(
    at_s: int, later_s: int
) -> None:
    run = memory(1_000)
    say(run, at_s, b"k", b"done")
    shorter = memory(HORIZON_S)
    shorter.state, shorter._context._read = run.state, run.state.get
    known = say(shorter, at_s + later_s, b"k")
    assert known == "done" or later_s >= HORIZON_S


class Log:
    """A store and the changelog that an owner would write, batch by batch."""

    def __init__(self, store: Store, at_s: int = 0) -> None:
        self.store = store
        self.context = Context(task(), SLOT, 4, store.get)
        self.sweep = Sweep(task(), self.context, store.rows)
        self.changelog: list[dict[bytes, bytes | None]] = []
        self.at_s = at_s

    def batch(self, at_s: int, key: bytes, value: str, records: int = 1) -> Effects:
        _, name = generations.find(self.context, SEEN, SLOT, key, at_s * SECOND_US)
        self.context.put(SEEN, SLOT, name, value)
        self.context.seal()
        gone = self.sweep.step(self.at_s * SECOND_US, records)
        self.at_s = at_s
        effects = self.context.take()
        self.changelog.append(effects.changes | gone)
        self.store.write(effects.changes, Mark("c", len(self.changelog), 0.0))
        self.context.committed()
        return effects


def test_the_store_drops_a_range_and_the_changelog_says_so_of_every_key(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    log = Log(disk.open("t", 0))
    many = 3 * SWEPT_MIN
    for number in range(many):
        log.batch(10, b"k%04d" % number, "open" if number % 100 == 0 else "done")
    left = many
    batches = 0
    while log.sweep.dropped == 0:
        batches += 1
        effects = log.batch(10 + 2 * HORIZON_S, b"new", "done")
        deletions = sum(value is None for value in effects.changes.values())
        assert deletions <= SWEPT_MIN // 100 + 1, "only what is carried is deleted one by one"
        left = sum(1 for key, _ in log.store.items() if key[2] == SEEN.id)
    assert batches == 5, "a bounded part with each batch"
    assert left == many // 100 + 1
    rebuilt = disk.open("t", 1)
    last: dict[bytes, bytes | None] = {}
    for number, changes in enumerate(log.changelog):
        rebuilt.write(changes, Mark("c", number, 0.0))
        last |= changes
    live = {key: value for key, value in last.items() if value is not None}
    assert dict(rebuilt.items()) == dict(log.store.items()) == live
    log.store.close()
    rebuilt.close()


def test_a_sweep_that_was_cut_short_is_finished_by_the_next_owner(tmp_path: Path) -> None:
    log = Log(Disk(tmp_path).open("t", 0))
    for number in range(3 * SWEPT_MIN):
        log.batch(10, b"k%04d" % number, "open" if number == 7 else "done")
    for _ in range(2):
        log.batch(10 + 2 * HORIZON_S, b"new", "done")
    assert log.sweep.busy
    log = Log(log.store, log.at_s)
    while log.sweep.dropped == 0:
        log.batch(11 + 2 * HORIZON_S, b"new", "done")
    found = [key[7:] for key, _ in log.store.items() if key[2] == SEEN.id]
    assert found == [b"k0007", b"new"]
    log.store.close()


def test_a_dropped_generation_of_one_slot_touches_no_other(tmp_path: Path) -> None:
    store = Disk(tmp_path).open("t", 0)
    state = {
        keys.prefix(slot, collection) + end.to_bytes(4, "big") + b"k": b"v"
        for slot in (2, 3, 4)
        for collection in (1, 2)
        for end in (100, 200)
    }
    store.write(state, Mark("c", 1, 0.0))
    drop = keys.prefix(3, keys.DROPPED_ID) + bytes((1,))
    store.write({drop: (101).to_bytes(4, "big")}, Mark("c", 2, 0.0))
    gone = state.keys() - {key for key, _ in store.items()}
    assert gone == {keys.prefix(3, 1) + (100).to_bytes(4, "big") + b"k"}
    store.close()
