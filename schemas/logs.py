"""Structured logs: one JSON object a line on standard error, the same keys in every process.

`event` says what happened, `role` and `worker` who says it, `payment_id` (or `payment_ids`) whom it
concerns. Never a secret, a header value or a request body. Lines about single payments are sampled
by id, so that every process logs the same ones and one payment can be followed through all.
"""

from __future__ import annotations

import logging
import sys
import zlib

import orjson
import structlog

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(role: str, worker: str, level: str) -> None:
    """Set up logging of this process; libraries' own warnings take the same form."""
    number = _LEVELS[level]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role, worker=worker)
    handler = _Forward()
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)


def get() -> structlog.typing.FilteringBoundLogger:
    """Return the process's logger."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def sampled(identity: str, one_in: int) -> bool:
    """Tell whether this payment's way is logged: the same answer in every process."""
    return zlib.crc32(identity.encode()) % one_in == 0


class _Forward(logging.Handler):
    """Hands a library's log line to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        method = "error" if record.levelno >= logging.ERROR else "warning"
        getattr(get(), method)("library", logger=record.name, message=record.getMessage())
