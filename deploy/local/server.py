"""What the embedded servers share: prepare once, start until ready, stop, crash, pause, restart.

Invariant: a server keeps its port and its data over restarts, so that clients find it again.
"""

from __future__ import annotations

import time
from signal import SIGCONT, SIGSTOP
from typing import TYPE_CHECKING, Protocol

from deploy.local.child import Child, Command, stands_still, tail, wait_for

if TYPE_CHECKING:
    from pathlib import Path

START_WITHIN_S = 90.0
PAUSE_WITHIN_S = 10.0
_TRIES = 4
_PAUSE_S = 0.2


class ServerError(RuntimeError):
    """A server cannot be set up or does not start; the text says what to do."""


class Recipe(Protocol):
    """One server: how it is set up and how to tell that it serves."""

    folder: Path
    log: Path

    def prepare(self) -> Command:
        """Fetch and write what it needs; what to run. Called once, before the first start."""

    def ready(self) -> bool:
        """True once it serves requests."""

    def settle(self) -> None:
        """What remains to be done when it serves for the first time."""


class Server:
    """Runs one recipe from blocking code. `start` returns when it serves requests."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._running: Child | None = None

    @property
    def pid(self) -> int:
        """The process that runs now."""
        return self._child().pid

    def start(self) -> None:
        """Start it (again) on its port and data."""
        first = self._running is None
        child = self._running or Child(self.recipe.prepare())
        self._running = child
        if not any(self._serves(child) for _ in range(_TRIES)):
            child.kill()
            raise ServerError(why_not_started(child.command, self.recipe))
        if first:
            self.recipe.settle()

    def stop(self) -> None:
        """Shut down cleanly; safe when it is not running."""
        if self._running is not None:
            self._running.stop()

    def kill(self) -> None:
        """End it as a crash would."""
        self._child().kill()

    def restart(self) -> None:
        """A clean stop and a start; clients see an outage of seconds."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing answers. Returns once every thread stands."""
        child = self._child()
        child.send(SIGSTOP)
        if not wait_for(lambda: stands_still(child.pid), PAUSE_WITHIN_S):
            raise ServerError(f"process {child.pid} does not stop; see {self.recipe.log}")

    def resume(self) -> None:
        """End a pause."""
        self._child().send(SIGCONT)

    def revive(self) -> None:
        """Have it serve again, whatever was done to it; nothing if it serves."""
        self.resume()
        if not self._child().running():
            self.start()

    def _serves(self, child: Child) -> bool:
        """Start it and wait. It may end early while the rest of a killed one still holds on."""
        if not child.running():
            time.sleep(_PAUSE_S if child.identity else 0)
            child.start()
        wait_for(lambda: not child.running() or self.recipe.ready(), START_WITHIN_S)
        return child.running() and self.recipe.ready()

    def _child(self) -> Child:
        assert self._running is not None, "the server was never started"
        return self._running


def why_not_started(command: Command, recipe: Recipe) -> str:
    """The error text for a server that ended early or never became ready."""
    return (
        f"{command.name} did not start within {START_WITHIN_S:.0f} s. Its log ({command.log}) "
        f"ends:\n{tail(command.log, 15)}\n"
        f"If its data is damaged and can be lost, remove {recipe.folder} and start again."
    )
