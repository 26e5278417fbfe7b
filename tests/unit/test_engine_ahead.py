"""What is read ahead of a batch is what the batch would have read, and only a hint."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from schemas.errors import Corrupt
from streams.engine import Collection, Context, Input, Position, Record, Task
from streams.engine.ahead import WORTH_IT, Ahead
from streams.engine.batch import Batches
from streams.engine.memory import MemoryRecord
from streams.engine.store import Disk, Mark, Store

TOTALS: Collection[int] = Collection(1, "totals", encode=lambda n: b"%d" % n, decode=int)
SEEN: Collection[bytes] = Collection(2, "seen")
KEYS = [b"k%04d" % number for number in range(4 * WORTH_IT)]
OTHERS = [b"k9%04d" % number for number in range(4 * WORTH_IT)]
"""Handled in between, so that none of KEYS is at hand any more."""


def add(context: Context, records: Sequence[Record]) -> None:
    """Add up; a record of value b'bad' fails after it has changed the state."""
    for record in records:
        assert record.key is not None
        context.put(TOTALS, 7, record.key, (context.get(TOTALS, 7, record.key) or 0) + 1)
        if record.value == b"bad":
            raise ValueError("bad on purpose")


def total_of(key: bytes) -> tuple[Collection[int], int, bytes]:
    """Name the total of a key; one of another form has none."""
    if not key.startswith(b"k"):
        raise ValueError("no key of ours")
    return TOTALS, 7, key


TASK = Task("totals", inputs=(Input("in", reads=total_of),), collections=(TOTALS,), handle=add)


class Run:
    """Batches over a store, as the owner of a partition handles them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.one_by_one = 0
        self.at_once: list[list[bytes]] = []
        self.context = Context(TASK, 0, 1, self._get, cache_entries=2)
        self.ahead = Ahead(TASK, self.context, self._read, store.reader)
        self._batches = Batches(TASK, self.context)
        self._position = Position({})

    def batch(self, keys: Sequence[bytes], bad: int | None = None) -> None:
        start = self._position.offsets.get("in", 0)
        fetched = [
            MemoryRecord("in", start + at, 1_000, key, b"bad" if at == bad else b"")
            for at, key in enumerate(keys)
        ]
        asyncio.run(self.ahead.look(fetched))
        self._position = self._batches.apply(fetched, self._position).position
        self.store.write(self.context.take().changes, Mark("c", 1, time.time()))
        self.context.committed()

    def _get(self, key: bytes) -> bytes | None:
        self.one_by_one += 1
        return self.store.get(key)  # type: ignore[no-any-return]

    def _read(self, keys: list[bytes]) -> dict[bytes, bytes | None]:
        assert threading.current_thread() is not threading.main_thread()
        self.at_once.append(keys)
        return self.store.read(keys)


def totals(store: Store) -> dict[bytes, bytes]:
    return {key[3:]: value for key, value in store.items()}


def test_values_read_ahead_are_those_of_the_store(tmp_path: Path) -> None:
    store = Disk(tmp_path).open("totals", 0)
    run = Run(store)
    for keys in (KEYS, OTHERS, KEYS + KEYS[:5]):
        run.batch(keys)
    expected = dict.fromkeys(KEYS, b"2") | dict.fromkeys(OTHERS, b"1")
    assert totals(store) == expected | dict.fromkeys(KEYS[:5], b"3")
    # The first batch shows that the store is asked; those after it ask for each key once, at once.
    assert run.one_by_one == len(KEYS)
    assert run.at_once == [[TOTALS.prefixes[7] + key for key in keys] for keys in (OTHERS, KEYS)]
    store.close()


def test_a_batch_that_is_cut_in_halves_finds_what_was_read_ahead(tmp_path: Path) -> None:
    store = Disk(tmp_path).open("totals", 0)
    run = Run(store)
    run.batch(KEYS)
    run.batch(OTHERS, bad=40)
    expected = dict.fromkeys(KEYS + OTHERS, b"1")
    del expected[OTHERS[40]]
    assert totals(store) == expected
    assert run.one_by_one == len(KEYS)
    store.close()


def test_what_is_in_use_is_not_read_ahead(tmp_path: Path) -> None:
    store = Disk(tmp_path).open("totals", 0)
    run = Run(store)
    for _ in range(4):
        run.batch(KEYS[:3] * WORTH_IT)
    assert not run.at_once
    store.close()


def test_what_is_asked_of_other_collections_is_no_reason_to_look(tmp_path: Path) -> None:
    store = Disk(tmp_path).open("totals", 0)
    run = Run(store)
    run.batch(KEYS)
    run.batch(OTHERS)
    run.batch([])
    for number in range(WORTH_IT):
        run.context.get(SEEN, 7, b"%d" % number)
    looked = len(run.at_once)
    run.batch(KEYS)
    assert len(run.at_once) == looked
    run.batch(OTHERS)
    assert len(run.at_once) == looked + 1
    store.close()


def test_what_was_read_ahead_is_forgotten_with_its_batch(tmp_path: Path) -> None:
    store = Disk(tmp_path).open("totals", 0)
    run = Run(store)
    run.batch(KEYS)
    run.batch(OTHERS)
    run.context.forget()
    run.batch(OTHERS[:3])
    assert [totals(store)[key] for key in OTHERS[:4]] == [b"2", b"2", b"2", b"1"]
    store.close()


def test_a_hint_that_fails_costs_nothing_but_the_hint(tmp_path: Path) -> None:
    store = Disk(tmp_path).open("totals", 0)
    run = Run(store)
    run.batch(KEYS)
    run.batch([b"other", *OTHERS])
    assert len(run.at_once) == 1
    assert totals(store)[b"other"] == b"1"
    store.close()


def test_a_store_that_cannot_be_read_ahead_stops_the_partition(tmp_path: Path) -> None:
    store = Disk(tmp_path).open("totals", 0)
    run = Run(store)
    run.batch(KEYS)
    store.close()
    with pytest.raises(Corrupt, match="cannot be read"):
        run.batch(OTHERS)


def test_a_read_under_way_ends_before_the_partition_is_given_up() -> None:
    let, ended = threading.Event(), threading.Event()

    def read(keys: list[bytes]) -> dict[bytes, bytes | None]:
        let.wait(5.0)
        ended.set()
        return dict.fromkeys(keys)

    async def give_up() -> None:
        context = Context(TASK, 0, 1, lambda _key: None)
        for key in KEYS:
            context.get(TOTALS, 7, key)
        context.reset()
        fetched = [MemoryRecord("in", at, 0, key, b"") for at, key in enumerate(KEYS)]
        looking = asyncio.create_task(Ahead(TASK, context, read, reader).look(fetched))
        await asyncio.sleep(0)
        looking.cancel()
        await asyncio.sleep(0)
        assert not looking.done()
        let.set()
        with pytest.raises(asyncio.CancelledError):
            await looking
        assert ended.is_set()

    with ThreadPoolExecutor(1) as reader:
        asyncio.run(give_up())
