"""`python -m streams.lake`: land every topic in bronze until SIGTERM. The composition root."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import uvloop

from schemas import logs, metrics
from schemas.crash import CrashPoint
from schemas.environment import SettingError
from schemas.errors import Corrupt
from streams.lake.settings import Settings, settings
from streams.lake.sink import Sink
from streams.sink import run_sessions, stop_on_signals


def main() -> int:
    """Run; 0 after a stop, 1 when only people can help."""
    try:
        chosen = settings(os.environ)
    except SettingError as error:
        print(error, file=sys.stderr)
        return 2
    logs.configure("lake", chosen.worker, chosen.log_level)
    # One core is plenty, and the others belong to the payments.
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    os.environ.setdefault("PYICEBERG_MAX_WORKERS", "1")
    pool = ThreadPoolExecutor(1, thread_name_prefix="bronze")
    try:
        uvloop.run(_run(chosen, pool))
    except Corrupt as error:
        logs.get().error("stopped: an invariant is broken", error=str(error))
        return 1
    pool.shutdown(wait=False, cancel_futures=True)
    return 0


async def _run(chosen: Settings, pool: ThreadPoolExecutor) -> None:
    metrics.serve(chosen.metrics_port)
    stop = stop_on_signals()
    sink = Sink(chosen, pool, CrashPoint.parse(chosen.crash_point).at)
    await run_sessions(lambda: sink.session(stop), stop)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # A landing that hangs in the catalog or on the disk must not hold us: dying in it is safe.
    os._exit(code)
