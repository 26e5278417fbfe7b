"""One partition's writer: take, decide, commit, publish, in log order, again and again.

A *session* holds one connection, one fence and one log. Any trouble ends it, and the next one
starts from what is stored: it takes the fence again (which ends whatever the last one had under
way), reads where the journal stands, publishes what was committed but not published, and goes on
there. So an unknown outcome, a restart and a crash are one path. Losing the fence ends the writer.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ledger_writer.codec import event_bytes
from ledger_writer.crash import CrashPoint
from ledger_writer.intake import Intake, read_records
from ledger_writer.metrics import meters
from ledger_writer.port import Event
from ledger_writer.report import report
from ledger_writer.settle import Settler
from schemas import logs
from schemas.errors import Corrupt, Fenced, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ledger_writer.model import Fence, Row
    from ledger_writer.port import Journal, Journals, Log, Logs, Record

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0
IDLE_S: Final = 10.0
"""After this long the fence moves over transaction markers, so that it never points below what the
log keeps when all its records have been deleted by age."""

GAP_ROWS_MAX: Final = 1_000
"""Rows that are read and published at once when a gap is filled."""


class Partition:
    """Runs until cancelled or fenced. `next_offset` is how far it has committed."""

    def __init__(
        self,
        number: int,
        partitions: int,
        journals: Journals,
        logs_: Logs,
        *,
        batch_max: int,
        log_sample: int = 1,
        crash: CrashPoint | None = None,
    ) -> None:
        self._number = number
        self._partitions = partitions
        self._journals = journals
        self._logs = logs_
        self._batch_max = batch_max
        self._log_sample = log_sample
        self._crash = crash or CrashPoint()
        self._meters = meters(number)
        self._epoch: int | None = None
        self._published = 0
        self._publishing: asyncio.Task[None] | None = None
        self._healthy = False
        self.next_offset = 0
        self.ready = False

    async def run(self) -> None:
        """Hold sessions, with back-off between them; returns when the fence is lost."""
        backoff_s = BACKOFF_FIRST_S
        while True:
            self._healthy = False
            try:
                await self._session()
            except asyncio.CancelledError:
                self._crash.at("on_stop")
                raise
            except Fenced as fenced:
                self._meters.fenced.inc()
                logs.get().warning("fenced", partition=self._number, detail=str(fenced))
                return
            except Unavailable as trouble:
                backoff_s = BACKOFF_FIRST_S if self._healthy else min(backoff_s * 2, BACKOFF_MAX_S)
                logs.get().warning(
                    "session lost", partition=self._number, detail=str(trouble), wait_s=backoff_s
                )
            finally:
                self.ready = False
                self._meters.running.set(0)
            await asyncio.sleep(backoff_s)

    async def _session(self) -> None:
        async with self._journals.open() as journal:
            fence = await journal.acquire(self._number, self._epoch)
            self._epoch = fence.epoch
            self.next_offset = fence.next_offset
            self._meters.sessions.inc()
            self._crash.at("after_acquire")
            async with self._logs.open(self._number, fence.next_offset) as log:
                try:
                    await self._fill_gap(journal, log, fence)
                    self._crash.at("after_gap_filled")
                    logs.get().info(
                        "partition ready",
                        partition=self._number,
                        epoch=fence.epoch,
                        next_offset=fence.next_offset,
                        position=fence.next_position - 1,
                    )
                    await self._follow(journal, log, fence)
                finally:
                    await self._abandon_publishing()

    async def _fill_gap(self, journal: Journal, log: Log, fence: Fence) -> None:
        """Publish what is in the journal and not yet in `ledger.events`."""
        last = fence.next_position - 1
        shown = await log.published_position()
        if shown > last:
            if (await journal.fence(self._number)).epoch != fence.epoch:
                raise Fenced(f"partition {self._number}: another writer has gone on meanwhile")
            raise Corrupt(
                f"partition {self._number}: ledger.events shows position {shown}, the journal ends"
                f" at {last}: this database has lost commits, or belongs to another log"
            )
        self._published = max(fence.published_position, shown)
        while self._published < last:
            count = min(GAP_ROWS_MAX, last - self._published)
            rows = await journal.rows(self._number, self._published + 1, count)
            if [row.position for row in rows] != list(
                range(self._published + 1, self._published + 1 + count)
            ):
                raise Corrupt(f"partition {self._number}: the journal has gaps below {last}")
            await log.publish(_events(rows, {}))
            self._crash.at("in_gap")
            self._published = rows[-1].position
            self._meters.filled.inc(len(rows))

    async def _follow(self, journal: Journal, log: Log, fence: Fence) -> None:
        settler = Settler(self._number, self._partitions, journal, self._crash)
        self.ready = True
        self._meters.running.set(1)
        loop = asyncio.get_running_loop()
        batch_at = loop.time()
        while True:
            records = await log.take(self._batch_max)
            self._meters.lag.set(log.lag)
            if records:
                fence = await self._batch(settler, log, fence, records)
                self._healthy, batch_at = True, loop.time()
                continue
            if self._publishing is not None and self._publishing.done():
                await self._finish_publishing()
            if log.position > fence.next_offset and loop.time() - batch_at > IDLE_S:
                nothing = Intake([], [], {}, log.position)
                fence, _ = await settler.settle(fence, nothing, self._published)

    async def _batch(
        self, settler: Settler, log: Log, fence: Fence, records: Sequence[Record]
    ) -> Fence:
        """Decide and commit one batch; its events go out while the next one is decided."""
        self._crash.at("after_take")
        self._meters.batch.observe(len(records))
        with self._meters.stages["decode"].time():
            intake = read_records(records)
        if intake.dead:
            await log.bury(intake.dead)
            self._crash.at("after_bury")
        fence, decision = await settler.settle(fence, intake, self._published)
        self._crash.at("after_commit")
        committed_at = time.perf_counter()
        self.next_offset = fence.next_offset
        report(self._meters, decision, intake, self._log_sample)
        await self._finish_publishing()
        if decision.rows:
            publishing = self._publish(log, decision.rows, intake.traceparents, committed_at)
            self._publishing = asyncio.create_task(publishing)
        return fence

    async def _publish(
        self, log: Log, rows: Sequence[Row], traceparents: Mapping[int, bytes], committed_at: float
    ) -> None:
        with self._meters.stages["publish"].time():
            await log.publish(_events(rows, traceparents))
        self._crash.at("after_publish")
        self._published = rows[-1].position
        self._meters.position.set(self._published)
        self._meters.delay.observe(time.perf_counter() - committed_at)

    async def _finish_publishing(self) -> None:
        """Wait for the batch before to be published, so that events never overtake each other."""
        if self._publishing is not None:
            await self._publishing
            self._publishing = None

    async def _abandon_publishing(self) -> None:
        """Let go of a batch under way; the next session finds out what became of it."""
        publishing, self._publishing = self._publishing, None
        if publishing is not None:
            publishing.cancel()
            with suppress(asyncio.CancelledError, Unavailable):
                await publishing


def _events(rows: Sequence[Row], traceparents: Mapping[int, bytes]) -> list[Event]:
    return [
        Event(row.home_account.encode(), event_bytes(row), traceparents.get(row.command_offset))
        for row in rows
    ]
