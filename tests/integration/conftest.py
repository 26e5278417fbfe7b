"""The whole stack for integration tests: real processes, as `headrace up` starts them.

`stack` is shared by the session; a test may kill, pause and restart what it likes, and before the
next one everything must be ready again. `new_stack` makes one for a test that needs its own.
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from deploy.local import control
from deploy.local.child import Child, wait_for
from deploy.local.home import PROJECT, Home
from deploy.local.settings import settings_from
from deploy.local.stackfile import read_stack
from deploy.local.units import serves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RECOVERY_S = 60.0
FAST = {"HEADRACE_SESSION_TIMEOUT_MS": "4000", "HEADRACE_LAKE_COMMIT_INTERVAL_MS": "1000"}


class Stack:
    """A running stack. Processes are named by role, or by name where a role has several."""

    def __init__(self, home: Path, variables: dict[str, str]) -> None:
        self.home = Home(home)
        self.variables = FAST | {"HEADRACE_HOME": str(home)} | variables
        self.supervisor: Child | None = None

    def start(self) -> None:
        """Start it; it ends with this test process, however that ends."""
        settings = settings_from(_bare_environment() | self.variables, PROJECT, PROJECT)
        self.supervisor = control.up(settings, self.variables, io.StringIO(), detached=False)

    def stop(self) -> None:
        """Stop it; safe when it is down."""
        if self.supervisor is not None:
            self.supervisor.stop()
        control.down(self.home, io.StringIO())

    @property
    def file(self) -> dict[str, Any]:
        """What `stack.json` says now."""
        stack = read_stack(self.home)
        assert stack is not None, "the stack is down"
        return stack

    @property
    def url(self) -> str:
        """The gateway's."""
        return str(self.file["gateway_url"])

    @property
    def kafka(self) -> str:
        """Bootstrap servers."""
        return str(self.file["kafka"])

    @property
    def api_key(self) -> str:
        """The demo tenant's."""
        return str(self.file["api_keys"]["demo"])

    @property
    def webhook_secret(self) -> str:
        """The demo source's, `whsec_...`."""
        return str(self.file["webhook_secrets"]["demo"])

    def dsn(self, role: str) -> str:
        """A database role's URL: ledger_reader, views_owner, ..."""
        return str(self.file["roles"][role])

    def process(self, role: str) -> dict[str, Any]:
        """The entry of a role's first process, or of a name ("streams-1", "kafka")."""
        entries: list[dict[str, Any]] = self.file["processes"] + self.file["servers"]
        return next(entry for entry in entries if role in {entry["name"], entry["role"]})

    def kill(self, role: str) -> int:
        """`kill -9`; returns the pid that died. The supervisor starts it again."""
        pid = int(self.process(role)["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def pause(self, role: str) -> int:
        """SIGSTOP; returns the pid."""
        pid = int(self.process(role)["pid"])
        os.kill(pid, signal.SIGSTOP)
        return pid

    def resume(self, role: str) -> int:
        """SIGCONT; returns the pid."""
        pid = int(self.process(role)["pid"])
        os.kill(pid, signal.SIGCONT)
        return pid

    def restart(self, role: str) -> None:
        """A clean end and a new start, waited for: "kafka" and "postgres" too."""
        pid = int(self.process(role)["pid"])
        os.kill(pid, signal.SIGINT if role == "postgres" else signal.SIGTERM)
        self.await_back(role, pid)

    def wipe_state(self, role: str) -> None:
        """`kill -9` with its local state gone before it comes back."""
        name = str(self.process(role)["name"])
        pid = self.pause(name)
        shutil.rmtree(self.home.state(name), ignore_errors=True)
        os.kill(pid, signal.SIGKILL)
        self.await_back(name, pid)

    @contextmanager
    def held_down(self, role: str) -> Iterator[None]:
        """An outage: the process is killed and stays away until the block ends."""
        name = str(self.process(role)["name"])
        hold = self.home.hold(name)
        hold.parent.mkdir(parents=True, exist_ok=True)
        hold.touch()
        try:
            pid = self.kill(name)
            yield
        finally:
            hold.unlink()
        self.await_back(name, pid)

    def await_back(self, role: str, old_pid: int) -> None:
        """Return when a process that died has a successor and everything is ready."""
        came = wait_for(lambda: self.process(role)["pid"] != old_pid, RECOVERY_S)
        assert came, f"{role} was not started again: {self.home.log('supervisor')}"
        self.await_ready()

    def await_ready(self) -> None:
        """Return when every process says that it serves."""
        assert wait_for(self.is_ready, RECOVERY_S), f"not ready: {self.unready()}"

    def is_ready(self) -> bool:
        """True if every process serves now."""
        return not self.unready()

    def unready(self) -> list[str]:
        """Names and logs of the processes that do not serve now."""
        return [
            f"{entry['name']} ({entry['log']})"
            for entry in self.file["processes"]
            if not serves(
                entry["metrics_url"],
                f"{self.url}/readyz" if entry["name"] == "gateway-0" else None,
            )
        ]


class StackMaker(Protocol):
    """Starts a stack with its own home and these HEADRACE_ variables on top of the usual."""

    def __call__(self, **variables: str) -> Stack: ...


@pytest.fixture(scope="session")
def unstarted_stack(run_folder: Path, java: str) -> Callable[[str], Stack]:
    """Makes a stack with a home of that name; whoever starts it must stop it."""
    return lambda name: Stack(run_folder / name, {"HEADRACE_JAVA": java})


@pytest.fixture(scope="session")
def shared_stack(unstarted_stack: Callable[[str], Stack]) -> Iterator[Stack]:
    """The session's stack; take `stack` instead."""
    stack = unstarted_stack("stack")
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def stack(shared_stack: Stack) -> Iterator[Stack]:
    """The session's stack, ready before the test and after it."""
    shared_stack.await_ready()
    yield shared_stack
    shared_stack.await_ready()


@pytest.fixture
def new_stack(run_folder: Path, java: str) -> Iterator[StackMaker]:
    """Stacks of this test alone."""
    made: list[Stack] = []

    def make(**variables: str) -> Stack:
        home = run_folder / f"stack-{secrets.token_hex(3)}"
        stack = Stack(home, {"HEADRACE_JAVA": java} | variables)
        made.append(stack)
        stack.start()
        return stack

    yield make
    for stack in made:
        stack.stop()


def _bare_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
