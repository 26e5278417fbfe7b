"""Finds loopback ports for servers that keep them over restarts.

Ports come from below the kernel's ephemeral range. A port inside it could be taken, while its
server restarts, as the source port of any outgoing connection: even by a client that retries
this very server, and then talks to itself. A port that was handed out stays reserved until this
process ends, so that two stacks which start at the same time never choose the same one.
"""

from __future__ import annotations

import atexit
import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 20_000
_TRIES = 1_000
_CLAIMS: list[socket.socket] = []


def is_free(port: int) -> bool:
    """True if a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None) -> int:
    """Reserve a port nobody listens on: `preferred`, else one after it, else a random one."""
    if preferred is not None:
        for port in range(preferred, preferred + 100):
            if _reserve(port):
                return port
    rng = random.SystemRandom()
    for _ in range(_TRIES):
        port = rng.randrange(_LOWEST, _highest())
        if _reserve(port):
            return port
    raise OSError(f"no free loopback port in {_TRIES} tries: end some servers and start again")


def accepts(port: int, timeout_s: float = 1.0) -> bool:
    """True if something accepts connections on this loopback port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout_s).close()
    except OSError:
        return False
    return True


def _reserve(port: int) -> bool:
    """Take a free port for this process, machine-wide: an abstract socket name has one owner."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0headrace-port-{port}")
    except OSError:
        claim.close()
        return False
    if not is_free(port):
        claim.close()
        return False
    _CLAIMS.append(claim)
    return True


@atexit.register
def _give_back() -> None:
    for claim in _CLAIMS:
        claim.close()


def _highest() -> int:
    """The first port of the ephemeral range, if that leaves room below it."""
    try:
        first = int(_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError):
        first = 32_768
    return first if first > _LOWEST + 1_000 else 60_000
