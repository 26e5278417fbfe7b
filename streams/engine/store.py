"""One partition's state on this machine's disk: a RocksDB that the changelog can always rebuild.

A write is one WriteBatch of state, positions and changelog mark, so the store is at every instant
as of one committed batch. The log ahead of it (WAL) is written but not synced: a killed process
finds all of it again, a machine that lost power finds an older batch, and the changelog's tail
brings it forward. Nothing is written here that the changelog has not committed. While it is rebuilt
from nothing it has no log and no mark: a crash in between leaves what is rebuilt again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import rocksdict
import structlog

from schemas.errors import Unavailable
from streams.engine import keys
from streams.engine.keys import COLLECTION_AT
from streams.engine.position import Position, decode_position

MEBIBYTE: Final = 1024 * 1024
FORMAT: Final = 1

UNSORTED_FILES_MAX: Final = 1_000_000
"""A rebuild leaves a file per memtable for compaction to sort out afterwards. RocksDB would hold up
writes meanwhile, and with them the whole process; more files only make reads slower.
"""

AGE_MAX_S: Final = 12 * 3600
"""An older store is discarded: compaction may have dropped tombstones (kept a day) that it has
not seen. One from the future too: some clock was wrong, and its age is not known.
"""


class Mark(msgspec.Struct, frozen=True):
    """How far a store is in its changelog; `next_offset` is the first one it has not applied."""

    cluster: str
    next_offset: int
    written_at_s: float
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """Bounds of memory. The block cache is one for all stores, memtables are per store."""

    cache_bytes: int = 64 * MEBIBYTE
    memtable_bytes: int = 16 * MEBIBYTE
    memtables: int = 3


class Disk:
    """Where the stores of one process live; they share memory, and a thread that reads."""

    def __init__(self, folder: Path, limits: StoreLimits | None = None) -> None:
        self._folder = folder
        self._limits = limits or StoreLimits()
        self._cache = rocksdict.Cache(self._limits.cache_bytes)
        self._reader = ThreadPoolExecutor(1, "state-reader")

    def open(self, task: str, partition: int) -> Store:
        """Open the store of a partition; it must not be open."""
        path = self._folder / task / str(partition)
        path.parent.mkdir(parents=True, exist_ok=True)
        return Store(path, self._options(), self._bulk(), self._reader)

    def _options(self) -> Any:
        table = rocksdict.BlockBasedOptions()
        table.set_block_cache(self._cache)
        table.set_bloom_filter(10, block_based=False)
        # Index and filter whole would push each other, compressed, out of a cache that is small
        # against the state, and cost 100 us a read; in parts, a read needs a few KiB of each.
        table.set_cache_index_and_filter_blocks(True)
        table.set_index_type(rocksdict.BlockBasedIndexType.two_level_index_search())
        table.set_partition_filters(True)
        table.set_metadata_block_size(4 * 1024)
        table.set_pin_top_level_index_and_filter(True)
        table.set_data_block_index_type(rocksdict.DataBlockIndexType.binary_and_hash())
        table.set_pin_l0_filter_and_index_blocks_in_cache(True)
        table.set_format_version(5)
        table.set_block_size(4 * 1024)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(table)
        options.set_write_buffer_size(self._limits.memtable_bytes)
        options.set_max_write_buffer_number(self._limits.memtables)
        # Most keys that are asked for are new: a filter spares the search for them in memory.
        options.set_memtable_whole_key_filtering(True)
        options.set_memtable_prefix_bloom_ratio(0.05)
        options.set_compression_type(rocksdict.DBCompressionType.lz4())
        options.set_max_background_jobs(2)
        options.set_level_zero_slowdown_writes_trigger(UNSORTED_FILES_MAX)
        options.set_level_zero_stop_writes_trigger(UNSORTED_FILES_MAX)
        options.set_max_open_files(256)
        options.set_keep_log_file_num(2)
        options.set_wal_recovery_mode(rocksdict.DBRecoveryMode.point_in_time())
        return options

    def _bulk(self) -> Any:
        """Return options for a rebuild: what comes is sorted when it is flushed, by another thread.

        Nothing can be read from such memtables in reasonable time.
        """
        options = self._options()
        options.set_memtable_factory(rocksdict.MemtableFactory.vector())
        options.set_allow_concurrent_memtable_write(False)
        options.set_memtable_whole_key_filtering(False)
        options.set_memtable_prefix_bloom_ratio(0.0)
        options.set_disable_auto_compactions(True)
        return options


class Store:
    """The state of one partition. All methods block for microseconds; `read`, which is for
    `reader`, `flush` and `wipe` longer.
    """

    def __init__(self, path: Path, options: Any, bulk: Any, reader: Executor) -> None:
        self.reader = reader
        self._path = path
        self._options = options
        self._bulk = bulk
        self._open(options)

    def _open(self, options: Any) -> None:
        self._db = self._opened(options)
        self.get = self._db.get

    def _opened(self, options: Any) -> Any:
        # Named for the one column family too: it would have those of its last opening otherwise,
        # and a cache of its own.
        families = {"default": options}
        try:
            return rocksdict.Rdict(str(self._path), options, families)
        except Exception as error:
            if "lock" in str(error).lower():
                raise Unavailable(f"{self._path} is in use by another process: {error}") from error
            structlog.get_logger().warning("state_discarded", path=str(self._path), why=str(error))
            shutil.rmtree(self._path, ignore_errors=True)
            return rocksdict.Rdict(str(self._path), options, families)

    def write(
        self,
        changes: Mapping[bytes, bytes | None],
        mark: Mark,
        removed: Iterable[bytes] = (),
    ) -> None:
        """Apply what the changelog has committed, up to `mark`; `removed` are local keys to take
        away. Generations that were dropped go as one range per slot.
        """
        batch = _batch(changes.items())
        for key in removed:
            batch.delete(key)
        batch.put(keys.LOCAL_MARK, msgspec.json.encode(mark))
        self._db.write(batch)

    def read(self, state_keys: list[bytes]) -> dict[bytes, bytes | None]:
        """Return many values at once; other threads go on meanwhile."""
        return dict(zip(state_keys, self._db.get(state_keys), strict=True))

    def rebuild(self) -> None:
        """Empty it and prepare for `pour`, in a fraction of what `write` takes for as much."""
        self._discard()
        self._open(self._bulk)

    def pour(self, changes: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Apply changes, in this order, that a crash may take away until it is `whole`."""
        self._db.write(_batch(changes), _unlogged())

    def whole(self, mark: Mark) -> None:
        """What was poured is all that the changelog has up to `mark`: keep it, and go on by
        `write`.
        """
        self.close()
        self._open(self._options)
        self.write({}, mark)

    def mark(self) -> Mark | None:
        """How far it is; None when it has nothing that can be used."""
        raw = self.get(keys.LOCAL_MARK)
        return None if raw is None else msgspec.json.decode(raw, type=Mark)

    def position(self) -> Position | None:
        """The offsets and log time of the last batch applied."""
        raw = self.get(keys.POSITION)
        return None if raw is None else decode_position(raw)

    def due(self, now_us: int, limit: int, after: bytes) -> Iterator[bytes]:
        """Walk due-order entries from `after` to those due by `now_us`, at most `limit`."""
        end = keys.due_limit(now_us)
        for count, entry in enumerate(self._db.keys(from_key=after)):
            if entry >= end or count == limit:
                return
            yield entry

    def first_due(self, after: bytes = keys.DUE) -> int | None:
        """When the first timer from `after` on is due."""
        for entry in self._db.keys(from_key=after):
            return keys.due_of(entry) if entry.startswith(keys.DUE) else None
        return None

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Walk the state that the changelog also has, in key order."""
        for key, value in self._db.items():
            if not key.startswith((keys.LOCAL, keys.DUE)):
                yield key, value

    def rows(self, begin: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return the state from `begin` to before `end`, at most `limit` values."""
        rows: list[tuple[bytes, bytes]] = []
        for key, value in self._db.items(from_key=begin):
            if key >= end or len(rows) == limit:
                break
            rows.append((key, value))
        return rows

    def settle(self) -> None:
        """Flush, and compact away what was deleted: for measuring; it takes seconds."""
        self._db.flush()
        self._db.compact_range(None, None)

    def size_bytes(self) -> int:
        """About how large it is, on disk and in memory."""
        names = ("rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables")
        return sum(self._db.property_int_value(name) or 0 for name in names)

    def entries(self) -> int:
        """About how many keys it has."""
        return self._db.property_int_value("rocksdb.estimate-num-keys") or 0

    def wipe(self) -> None:
        """Empty it."""
        self._discard()
        self._open(self._options)

    def _discard(self) -> None:
        self.get = _closed
        self._db.close()
        shutil.rmtree(self._path)

    def close(self) -> None:
        """Flush and close; another Store may open the folder then."""
        self.get = _closed
        self._db.flush()
        self._db.close()


def _batch(changes: Iterable[tuple[bytes, bytes | None]]) -> Any:
    """Return changes with what follows from them: the order of timers, generations that end."""
    batch = rocksdict.WriteBatch(raw_mode=True)
    put, delete, engine_from = batch.put, batch.delete, keys.ENGINE_FROM
    for key, value in changes:
        if value is None:
            delete(key)
        else:
            put(key, value)
            collection = key[COLLECTION_AT]
            if collection >= engine_from and key[0] != keys.NO_SLOT:
                if collection == keys.TIMERS_ID:
                    put(keys.due_entry(key, value), b"")
                elif collection == keys.DROPPED_ID:
                    batch.delete_range(*keys.dropped_range(key, value))
    return batch


def _unlogged() -> Any:
    options = rocksdict.WriteOptions()
    options.disable_wal = True
    return options


def usable(mark: Mark | None, cluster: str, log_end: int, now_s: float | None = None) -> bool:
    """Tell whether a store can be brought forward, or must be rebuilt."""
    now = time.time() if now_s is None else now_s
    return (
        mark is not None
        and mark.format == FORMAT
        and mark.cluster == cluster
        and mark.next_offset <= log_end
        and abs(now - mark.written_at_s) < AGE_MAX_S
    )


def _closed(_key: bytes) -> bytes | None:
    raise RuntimeError("the store is closed")
