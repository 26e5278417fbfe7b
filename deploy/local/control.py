"""Starts, watches and stops a stack from outside its supervisor: what `up` and `down` do.

Invariant: after `down` no process of the stack is left, even if its supervisor was killed; only
processes whose pid and start time are in the record are ended.
"""

from __future__ import annotations

import sys
import time
from signal import SIGINT, SIGKILL, SIGTERM
from typing import IO, TYPE_CHECKING

from deploy.local.child import Child, Command, end, tail
from deploy.local.home import PROJECT, Home
from deploy.local.stackfile import read_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.local.settings import Settings

SILENT_WITHIN_S = 180.0  # while a start makes progress it may take long: the first one downloads
DOWN_WITHIN_S = 90.0
_POLL_S = 0.1
_CLEAN = {"kafka": SIGTERM, "postgres": SIGINT}  # a service needs no farewell
_CLEAN_WITHIN_S = 30.0


class ControlError(RuntimeError):
    """The stack did not come up or does not answer; the text says what to do."""


def is_up(home: Home) -> bool:
    """True if a supervisor runs here and said that everything is ready."""
    record = read_record(home)
    return record is not None and record.alive() and record.state == "ready"


def supervisor_command(settings: Settings, variables: dict[str, str]) -> Command:
    """How the supervisor of this home is started; `variables` are the caller's HEADRACE_ ones."""
    own = {"HEADRACE_HOME": str(settings.home), "HEADRACE_CACHE": str(settings.cache)}
    return Command(
        name="supervisor",
        argv=(sys.executable, "-m", "deploy.local"),
        log=Home(settings.home).log("supervisor"),
        env=settings.environment | variables | own,
        cwd=PROJECT,
        death_signal=SIGTERM,
        stop_within_s=DOWN_WITHIN_S,
    )


def up(
    settings: Settings, variables: dict[str, str], out: IO[str], *, detached: bool = True
) -> Child | None:
    """Start the stack unless it is up; returns when it is ready, with the supervisor if it is new.

    Detached it outlives the caller; otherwise it ends with the caller, however that ends.
    """
    home = Home(settings.home)
    record = read_record(home)
    child = None
    if record is None or not record.alive():
        remove_leftovers(home)
        home.record.unlink(missing_ok=True)
        child = Child(supervisor_command(settings, variables), detached=detached)
        seen = _size(home)
        child.start()
    else:
        seen = _size(home)
    try:
        _follow(home, child, seen, out)
    except ControlError:
        if child is not None:
            child.stop()
        raise
    except KeyboardInterrupt:
        down(home, out)
        raise
    return child


def down(home: Home, out: IO[str]) -> bool:
    """Stop the stack; False if there was none. Leaves no process of it."""
    record = read_record(home)
    if record is None:
        return False
    was_alive = record.alive()
    if was_alive:
        print("stopping the stack", file=out)
        end(record.supervisor, SIGTERM, DOWN_WITHIN_S)
    left = remove_leftovers(home)
    home.record.unlink(missing_ok=True)
    return was_alive or left > 0


def remove_leftovers(home: Home) -> int:
    """End what a supervisor that was killed left behind; returns how many processes that were."""
    record = read_record(home)
    left = 0
    if record is not None:
        for name, identity in record.children.items():
            left += end(identity, _CLEAN.get(name, SIGKILL), _CLEAN_WITHIN_S)
    home.stack_file.unlink(missing_ok=True)
    return left


def _follow(home: Home, child: Child | None, seen: int, out: IO[str]) -> None:
    """Print the supervisor's progress until it is ready; raise if it fails."""
    deadline = time.monotonic() + SILENT_WITHIN_S
    progress = _new_lines(home, seen)
    while True:
        record = read_record(home)
        for line in next(progress):
            print(line, file=out, flush=True)
            deadline = time.monotonic() + SILENT_WITHIN_S
        if record is not None and record.state == "ready":
            return
        if record is not None and record.state in {"failed", "stopped"}:
            raise ControlError(record.error or "the stack was stopped while it came up")
        if child is not None and not child.running():
            raise ControlError(
                f"the supervisor ended. Its log ({home.log('supervisor')}) ends:\n"
                f"{tail(home.log('supervisor'), 15)}"
            )
        if time.monotonic() > deadline:
            raise ControlError(
                f"the stack does not come up: no progress for {SILENT_WITHIN_S:.0f} s. See "
                f"{home.log('supervisor')}, then headrace down"
            )
        time.sleep(_POLL_S)


def _new_lines(home: Home, seen: int) -> Iterator[list[str]]:
    """What the supervisor printed since the last time, whole lines only."""
    log = home.log("supervisor")
    while True:
        text = b""
        if log.exists():
            with log.open("rb") as file:
                file.seek(seen)
                text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        seen += len(whole)
        yield whole.decode("utf-8", "replace").splitlines()


def _size(home: Home) -> int:
    log = home.log("supervisor")
    return log.stat().st_size if log.exists() else 0
