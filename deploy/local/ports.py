"""Finds loopback ports for servers that keep them over restarts.

Ports come from below the kernel's ephemeral range. A port inside it could be taken, while its
server restarts, as the source port of any outgoing connection: even by a client that retries
this very server, and then talks to itself.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 20_000
_TRIES = 1_000


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


def free_port(preferred: int | None = None, taken: frozenset[int] = frozenset()) -> int:
    """A port nobody listens on: `preferred`, else the next ones after it, else a random one."""
    if preferred is not None:
        for port in range(preferred, preferred + 100):
            if port not in taken and is_free(port):
                return port
    rng = random.SystemRandom()
    for _ in range(_TRIES):
        port = rng.randrange(_LOWEST, _highest())
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free loopback port in {_TRIES} tries: end some servers and start again")


def free_ports(count: int) -> list[int]:
    """Ports that differ from each other."""
    found: list[int] = []
    for _ in range(count):
        found.append(free_port(taken=frozenset(found)))
    return found


def accepts(port: int, timeout_s: float = 1.0) -> bool:
    """True if something accepts connections on this loopback port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout_s).close()
    except OSError:
        return False
    return True


def _highest() -> int:
    """The first port of the ephemeral range, if that leaves room below it."""
    try:
        first = int(_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError):
        first = 32_768
    return first if first > _LOWEST + 1_000 else 60_000
