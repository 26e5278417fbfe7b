"""One child process: started with a death signal, known by pid and start time, always ended.

Invariants: a child does not outlive the process that started it (the kernel sends it its death
signal), a signal goes only to a process whose start time is the recorded one, and the child's
output goes straight into its log file, so that nothing of ours can block it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.05
# The kernel ties a death signal to the thread that forked. This one lives as long as we do.
_FORKING = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fork")


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. `user` is (uid, gid) to drop to, possible for root only."""

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str]
    cwd: Path
    user: tuple[int, int] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    stop_within_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that no later process can be mistaken for: pid and start time in clock ticks."""

    pid: int
    started_ticks: int


@dataclass(slots=True)
class Child:
    """Starts, signals and ends the process of one command; a new start is a new process.

    A detached one has no death signal: it outlives us, and whoever started it must find it again.
    """

    command: Command
    detached: bool = False
    process: subprocess.Popen[bytes] | None = None
    identity: Identity | None = None
    started_at: float = field(default=0.0)

    @property
    def pid(self) -> int:
        """The pid of the last start; an error before the first."""
        assert self.process is not None, f"{self.command.name} was never started"
        return self.process.pid

    def start(self) -> None:
        """Start the process; it must not be running."""
        assert not self.running(), f"{self.command.name} is already running"
        self.command.log.parent.mkdir(parents=True, exist_ok=True)
        self.process = _FORKING.submit(self._spawn).result()
        self.identity = identify(self.process.pid)
        self.started_at = time.time()

    def running(self) -> bool:
        """False before the first start and after the process ended (which this also reaps)."""
        return self.process is not None and self.process.poll() is None

    def exit_code(self) -> int | None:
        """How it ended: its exit code, minus the signal that ended it, or None while it runs."""
        return None if self.process is None else self.process.poll()

    def send(self, sig: signal.Signals) -> None:
        """Signal the process if it runs."""
        if self.process is not None and self.running():
            self.process.send_signal(sig)

    def stop(self) -> None:
        """Ask it to end, wait its time, then end it. A paused process is woken to hear it."""
        self.send(self.command.stop_signal)
        self.send(signal.SIGCONT)
        if not wait_for(lambda: not self.running(), self.command.stop_within_s):
            self.kill()

    def kill(self) -> None:
        """End it at once, as a crash would, and wait until it is gone."""
        self.send(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log: what to show when it does not start."""
        return tail(self.command.log, lines)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = self.command
        last_wish = None if self.detached else _die_with_parent(command.death_signal)
        with command.log.open("ab") as log:
            return subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=command.cwd,
                env=dict(command.env),
                start_new_session=True,  # Ctrl-C at a terminal is for us, not for the services
                user=command.user[0] if command.user else None,
                group=command.user[1] if command.user else None,
                extra_groups=[] if command.user else None,
                preexec_fn=last_wish,  # noqa: PLW1509 (two calls into the kernel)
            )


def identify(pid: int) -> Identity | None:
    """Who runs under this pid now; None if nobody does, or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may contain anything
    if fields[0] in "ZX":
        return None
    return Identity(pid, int(fields[19]))


def stands_still(pid: int) -> bool:
    """Whether every thread of a process has stopped (a signal stops them one by one)."""
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            text = stat.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # the thread ended meanwhile
        states.append(text.rpartition(")")[2].split()[0])
    return all(state in "TZX" for state in states)


def end(identity: Identity, sig: signal.Signals, within_s: float) -> bool:
    """End a process we did not start ourselves: signal it, wait, then kill. False if it is gone."""
    if identify(identity.pid) != identity:
        return False
    for attempt in (sig, signal.SIGKILL):
        try:
            os.kill(identity.pid, attempt)
            os.kill(identity.pid, signal.SIGCONT)
        except ProcessLookupError:
            return True
        if wait_for(lambda: identify(identity.pid) != identity, within_s):
            return True
    raise TimeoutError(f"process {identity.pid} survived SIGKILL: it hangs in the kernel")


def wait_for(condition: Callable[[], bool], within_s: float, every_s: float = _POLL_S) -> bool:
    """Poll a condition until it holds; False when it still does not after `within_s`."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def tail(path: Path, lines: int) -> str:
    """The last lines of a text file, or nothing if there is no such file."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 16_384))
            return b"\n".join(log.read().splitlines()[-lines:]).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _die_with_parent(sig: signal.Signals) -> Callable[[], None] | None:
    """What the child does between fork and exec. Loaded before the fork, so it only calls."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent, number = os.getpid(), int(sig)

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel knew
            os._exit(1)

    return ask_kernel
