"""The bounds of the HTTP side: sizes in bytes, times in seconds, counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of one server."""

    head_bytes_max: int = 16 * 1024
    headers_max: int = 100
    target_bytes_max: int = 4 * 1024
    connections_max: int = 4_096
    in_flight_max: int = 8_192
    pipelined_max: int = 32
    read_s: float = 15.0
    """From a request's first byte to its last."""
    idle_s: float = 75.0
    """Between two requests of a connection."""
    write_s: float = 15.0
    """A client that does not read its answers for so long is cut off."""
    linger_s: float = 1.0
    """How long to read on, unheard, after the last answer, so that the client can read it."""
    tick_s: float = 0.25
