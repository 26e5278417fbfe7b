"""Runs the ledger writer until SIGTERM: settings, logs, metrics, then the group."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from contextlib import suppress
from typing import Final

import uvloop

from ledger_writer.crash import CrashPoint
from ledger_writer.index import keep_indexed
from ledger_writer.kafka import KafkaLogs
from ledger_writer.membership import Membership
from ledger_writer.migrate import check
from ledger_writer.partition import Partition
from ledger_writer.postgres import PostgresJournals
from ledger_writer.settings import Settings, settings_of
from schemas import logs, metrics
from schemas.environment import SettingError
from schemas.errors import Corrupt, Unavailable

EXIT_USAGE: Final = 64
EXIT_FAILED: Final = 70
EXIT_CORRUPT: Final = 65
CHECK_AGAIN_S: Final = 1.0


async def serve(settings: Settings) -> None:
    """Write the ledger until cancelled."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await _wait_for_database(settings)
    journals = PostgresJournals(settings.ledger_dsn, settings.worker, settings.partitions)
    kafka = KafkaLogs(settings.kafka, settings.worker)
    crash = CrashPoint.parse(settings.crash_point)

    def writer(number: int) -> Partition:
        return Partition(
            number,
            settings.partitions,
            journals,
            kafka,
            batch_max=settings.batch_max,
            log_sample=settings.log_sample,
            crash=crash,
        )

    membership = Membership(
        settings.kafka, settings.worker, settings.partitions, settings.session_timeout_ms, writer
    )
    indexing = asyncio.create_task(keep_indexed(settings.ledger_dsn))
    try:
        await membership.run()
    finally:
        indexing.cancel()
        with suppress(asyncio.CancelledError):
            await indexing


async def _wait_for_database(settings: Settings) -> None:
    while True:
        try:
            await check(settings.ledger_dsn, settings.partitions)
        except Unavailable as trouble:
            logs.get().warning("waiting for the database", detail=str(trouble))
            await asyncio.sleep(CHECK_AGAIN_S)
        else:
            return


def main() -> int:
    """Return the exit code: 0 after SIGTERM."""
    try:
        settings = settings_of(os.environ)
        CrashPoint.parse(settings.crash_point)
    except (SettingError, ValueError) as error:
        print(f"ledger_writer: {error}", file=sys.stderr)
        return EXIT_USAGE
    logs.configure("ledger_writer", settings.worker, settings.log_level)
    metrics.serve(settings.metrics_port)
    gc.freeze()  # what was imported lives for ever: do not walk it again
    try:
        uvloop.run(serve(settings))
    except asyncio.CancelledError:
        return 0
    except Corrupt as broken:
        return _broken(broken)
    except BaseExceptionGroup as group:
        broken_group = group.subgroup(Corrupt)
        if broken_group is not None:
            return _broken(broken_group.exceptions[0])
        logs.get().exception("failed")
        return EXIT_FAILED
    except Exception:  # noqa: BLE001  the outermost loop
        logs.get().exception("failed")
        return EXIT_FAILED
    return 0


def _broken(error: BaseException) -> int:
    logs.get().error("corrupt", detail=str(error))
    return EXIT_CORRUPT


if __name__ == "__main__":
    sys.exit(main())
