"""`python -m streams.views`: keep the read model until SIGTERM. The composition root."""

from __future__ import annotations

import os
import sys

import uvloop

from schemas import logs, metrics
from schemas.crash import CrashPoint
from schemas.environment import SettingError
from schemas.errors import Corrupt
from streams.sink import run_sessions, stop_on_signals
from streams.views import session
from streams.views.settings import Settings, settings


def main() -> int:
    """Run; 0 after a stop, 1 when only people can help."""
    try:
        chosen = settings(os.environ)
    except SettingError as error:
        print(error, file=sys.stderr)
        return 2
    logs.configure("views", chosen.worker, chosen.log_level)
    try:
        uvloop.run(_run(chosen))
    except Corrupt as error:
        logs.get().error("stopped: an invariant is broken", error=str(error))
        return 1
    return 0


async def _run(chosen: Settings) -> None:
    metrics.serve(chosen.metrics_port)
    stop = stop_on_signals()
    crash = CrashPoint.parse(chosen.crash_point)
    await run_sessions(lambda: session.run(chosen, crash, stop), stop)


if __name__ == "__main__":
    sys.exit(main())
