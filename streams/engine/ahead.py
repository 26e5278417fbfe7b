"""Reads what a batch will ask the store for before it is handled, all at once and off the loop.

A value that lies on disk costs more than a record does otherwise; the store looks many up at less
each, and other partitions go on meanwhile. Only where the batch before had to ask the store for
values of the same collections: what is in use is at hand anyway. What was read is true of the
batch: nobody else writes this store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, Final

from schemas.errors import Corrupt
from streams.engine.context import Context
from streams.engine.task import Task

WORTH_IT: Final = 32
"""Fewer values than this are read as they are asked for, sooner than another thread answers."""

_ANY: Final = range(256)
"""Collections, before it is known which of them are named."""


class Ahead:
    """Looks ahead for one partition."""

    def __init__(
        self,
        task: Task,
        context: Context,
        read: Callable[[list[bytes]], dict[bytes, bytes | None]],
        reader: Executor,
    ) -> None:
        self._reads = {each.topic: each.reads for each in task.inputs if each.reads is not None}
        self._context = context
        self._read = read
        self._reader = reader
        self._wanted = 0
        self._collections: set[int] = set()

    async def look(self, fetched: Sequence[Any]) -> None:
        """Have the context expect what these records will ask for."""
        asked = self._wanted + self._context.asked(self._collections or _ANY)
        self._wanted = 0
        if asked < WORTH_IT or not self._reads:
            return
        wanted = self._context.unread(self._named(fetched))
        self._wanted = len(wanted)
        if len(wanted) < WORTH_IT:
            return
        reading = asyncio.get_running_loop().run_in_executor(self._reader, self._read, wanted)
        try:
            self._context.expect(await asyncio.shield(reading))
        except asyncio.CancelledError:
            await asyncio.wait((reading,))  # so that no store is closed while it is read
            raise
        except Exception as error:
            raise Corrupt(f"the state cannot be read: {error}") from error

    def _named(self, fetched: Sequence[Any]) -> Iterator[bytes]:
        for record in fetched:
            reads = self._reads.get(record.topic)
            if reads is not None and record.key is not None:
                try:
                    collection, slot, key = reads(record.key)
                    self._collections.add(collection.id)
                    yield collection.prefixes[slot] + key
                except Exception:  # noqa: BLE001, S112  a hint: what becomes of it the handler says
                    continue
