"""Reads the claimed identities beside the journal, in its order, as far as they are needed.

They come in Postgres's binary COPY form, in which each takes the same number of bytes. Bounded:
what was read and not asked for waits in a short queue. Of rows that were detached only a hash is
kept, over all that they claimed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, Final

from ledger_writer.verify import Finding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    import asyncpg

    from ledger_writer.copied import Keys

_IDENTITIES: Final = """
    select partition, position, key from ledger.identities where position < $1
     order by partition, position"""
EVERY: Final = 2**62
_HEADER_BYTES: Final = 19
_LINE: Final = Struct(">6xh4xq4x16s")
_CLAIM: Final = Struct(">q16s")
_CHUNKS_MAX: Final = 4

END: Final = (1 << 16, 0)
"""After every partition."""


class Claims:
    """What rows claimed, by partition and position.

    `kept` says from which position on a partition's rows are there; from the first, if it doesn't.
    """

    def __init__(self, chunks: asyncio.Queue[bytes], kept: Mapping[int, int]) -> None:
        self._kept = kept
        self._detached = {partition: sha256() for partition in kept}
        self._chunks = chunks
        self._keys: defaultdict[int, Keys] = defaultdict(dict)
        self._reached = (-1, 0)
        self._doubled: list[Finding] = []
        self._rest = b""
        self._skip = _HEADER_BYTES

    @classmethod
    @asynccontextmanager
    async def read(
        cls, connection: asyncpg.Connection, kept: Mapping[int, int], before: int = EVERY
    ) -> AsyncIterator[Claims]:
        """Read while the block lasts; whoever leaves early cuts the connection."""
        chunks: asyncio.Queue[bytes] = asyncio.Queue(_CHUNKS_MAX)
        claims = cls(chunks, kept)

        async def copy() -> None:
            try:
                await connection.copy_from_query(
                    _IDENTITIES, before, output=chunks.put, format="binary"
                )
            finally:
                await chunks.put(b"")

        copying = asyncio.create_task(copy())
        try:
            yield claims
        finally:
            copying.cancel()
            while not chunks.empty():
                chunks.get_nowait()
            with suppress(asyncio.CancelledError):
                await copying

    async def until(self, partition: int, position: int) -> Keys:
        """Return this partition's keys, those up to this position at least."""
        while self._reached < (partition, position):
            chunk = await self._chunks.get()
            if not chunk:
                self._reached = END
                break
            self._take(chunk)
        return self._keys[partition]

    def doubled(self) -> Iterator[Finding]:
        """Return the rows that claimed twice, each once."""
        found, self._doubled = self._doubled, []
        yield from found

    def detached(self) -> dict[int, bytes]:
        """Return a hash over what the detached rows of each partition claimed, once all is read."""
        return {partition: digest.digest() for partition, digest in self._detached.items()}

    async def left(self) -> list[Finding]:
        """Read the rest; what nobody took names rows that are not there."""
        await self.until(*END)
        return [
            Finding(partition, position, "an identity names this row, which is not there")
            for partition, keys in sorted(self._keys.items())
            for position in sorted(keys)
        ]

    def _take(self, chunk: bytes) -> None:
        data = self._rest + chunk
        if self._skip:
            data, self._skip = data[self._skip :], 0
        whole = len(data) - len(data) % _LINE.size
        self._rest = data[whole:]
        keys = self._keys
        partition = position = -1
        for partition, position, key in _LINE.iter_unpack(data[:whole]):
            if position < self._kept.get(partition, 0):
                self._detached[partition].update(_CLAIM.pack(position, key))
                continue
            mine = keys[partition]
            if position in mine:
                self._doubled.append(Finding(partition, position, "the row claims twice"))
            mine[position] = key
        if whole:
            self._reached = partition, position
