"""A running stack as its `stack.json` describes it, and the commands that start and stop one.

Reads the file, never writes it. Starting and stopping go through the command line, as a user's
would, in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from loadtest.generator.render import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT: Final = Path(__file__).resolve().parent.parent
_STOP_WITHIN_S: Final = 120


class NoStack(RuntimeError):
    """No stack is up here, or it did not come up; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the stack."""

    role: str
    name: str
    pid: int
    metrics_url: str | None


@dataclass(frozen=True, slots=True)
class Stack:
    """Where everything is. `webhook_source` and `webhook_secret` are the demo partner's."""

    gateways: tuple[Target, ...]
    kafka: str
    partitions: int
    ledger_dsn: str
    views_dsn: str
    lake_dsn: str
    warehouse: str
    webhook_source: str
    webhook_secret: str
    processes: tuple[Process, ...]

    def of_role(self, role: str) -> list[Process]:
        """Return the processes of a role, by name."""
        return sorted((p for p in self.processes if p.role == role), key=lambda p: p.name)

    def named(self, name: str) -> Process | None:
        """Return the process of that name, if the stack has one."""
        return next((p for p in self.processes if p.name == name), None)


def home() -> Path:
    """Return the folder that HEADRACE_HOME names, the project's own by default."""
    return Path(os.environ.get("HEADRACE_HOME") or PROJECT / ".headrace").resolve()


def read(folder: Path) -> Stack:
    """Read the stack that is up in `folder`; NoStack if none is."""
    path = folder / "stack.json"
    try:
        return parse(json.loads(path.read_text()))
    except FileNotFoundError:
        raise NoStack(f"no stack is up in {folder}: start one with `make up`") from None


def parse(found: Mapping[str, Any]) -> Stack:
    """Turn the content of `stack.json` into a Stack."""
    api_key = next(iter(found["api_keys"].values()))
    source, secret = next(iter(found["webhook_secrets"].items()))
    urls = [urlsplit(url) for url in found.get("gateway_urls") or [found["gateway_url"]]]
    return Stack(
        gateways=tuple(Target(u.hostname or "", u.port or 80, api_key) for u in urls),
        kafka=found["kafka"],
        partitions=found["partitions"],
        ledger_dsn=found["postgres"]["ledger"],
        views_dsn=found["postgres"]["views"],
        lake_dsn=found["lake"]["catalog"],
        warehouse=found["lake"]["warehouse"],
        webhook_source=source,
        webhook_secret=secret,
        processes=tuple(
            Process(p["role"], p["name"], p["pid"], p.get("metrics_url"))
            for p in [*found["processes"], *found.get("servers", [])]
        ),
    )


def start(folder: Path, environment: Mapping[str, str]) -> Stack:
    """Start a stack in `folder` and return when it is ready; its progress is printed."""
    child = _headrace("up", folder, environment)
    try:
        code = child.wait()
    except BaseException:
        child.terminate()
        child.wait(_STOP_WITHIN_S)
        raise
    if code != 0:
        raise NoStack(f"the stack did not come up in {folder}; the lines above say why")
    return read(folder)


def stop(folder: Path, environment: Mapping[str, str]) -> None:
    """Stop the stack in `folder`, and wait until nothing of it is left, interrupted or not."""
    child = _headrace("down", folder, environment)
    while True:
        try:
            child.wait()
        except KeyboardInterrupt:
            continue
        return


def _headrace(
    command: str, folder: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Run a command in a session of its own: Ctrl-C is for us, who then stop the stack."""
    env = {**os.environ, **environment, "HEADRACE_HOME": str(folder)}
    argv = [sys.executable, "-m", "deploy.cli", command]
    return subprocess.Popen(argv, cwd=PROJECT, env=env, start_new_session=True)
