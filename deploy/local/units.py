"""One supervised process: how it is started, when it counts as ready, how often it came back."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from deploy.local.stackfile import Process

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.local.child import Child

_READY_LINE = b"headrace_ready 1"
_PROBE_S = 2.0


class Stage(IntEnum):
    """Stages start in this order, each ready before the next, and stop in the reverse one."""

    SERVER = 0
    SERVICE = 1
    EDGE = 2


@dataclass(slots=True)
class Unit:
    """A child with its role, its readiness probe (it may block) and its count of restarts."""

    role: str
    stage: Stage
    child: Child
    is_ready: Callable[[], bool]
    metrics_url: str | None = None
    restarts: int = 0

    @property
    def name(self) -> str:
        """Unique in its stack."""
        return self.child.command.name

    def entry(self) -> Process:
        """What `stack.json` tells about it."""
        return Process(
            role=self.role,
            name=self.name,
            pid=self.child.pid,
            metrics_url=self.metrics_url,
            started_at=self.child.started_at,
            restarts=self.restarts,
            log=str(self.child.command.log),
        )


def serves(metrics_url: str, ready_url: str | None) -> bool:
    """True if the process says that it serves, and its edge says so too if it has one."""
    if ready_url is not None and fetch(ready_url) is None:
        return False
    return _READY_LINE in (fetch(metrics_url) or b"").split(b"# HELP headrace_ready")[-1]


def fetch(url: str) -> bytes | None:
    """The body of a 200 answer from loopback; None for anything else."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_PROBE_S) as answer:
            body: bytes = answer.read()
            return body
    except OSError:  # URLError is one; refused, timed out, or not 200
        return None
