"""A worker process: one faust app with its tasks, on uvloop, until SIGTERM or until something is
Corrupt or Fenced.

The exit status is 0 after a stop that was asked for, 1 after a crash; state is flushed either way
if it can be.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable
from typing import Any, NoReturn

import faust
import uvloop

from streams.engine.settings import EngineSettings
from streams.engine.task import Task
from streams.engine.transport import App


class Worker(faust.Worker):  # type: ignore[misc]
    """faust's worker, without what it waits for at the end."""

    def _setproctitle(self, info: str, *, ident: str = "headrace") -> None:
        del info, ident

    async def _sentinel_task(self) -> None:
        """Do not spend a second of the stop on waiting for nothing."""


def build(settings: EngineSettings, tasks: Iterable[Task], name: str = "streams") -> App:
    """Return the app, to which agents, timers and services can be added before it runs."""
    return App(name, settings, tasks)


def run(settings: EngineSettings, tasks: Iterable[Task], name: str = "streams") -> NoReturn:
    """Run the tasks in this process until it is told to end."""
    run_app(build(settings, tasks, name))


def run_app(app: App) -> NoReturn:
    """Run an app that was built before."""
    loop: Any = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    # Caches make many long-lived objects: collections that look at all of them are made rare. What
    # a batch makes has no cycles and goes by reference counts, so small ones find little, and are
    # kept short: none of them holds up the loop for more than a few milliseconds.
    gc.freeze()
    gc.set_threshold(40_000, 100, 100)
    worker = Worker(
        app,
        loop=loop,
        loglevel="warning",
        override_logging=False,
        redirect_stdouts=False,
        quiet=True,
    )
    worker.spinner = None
    worker.execute_from_commandline()
    raise SystemExit(0)
