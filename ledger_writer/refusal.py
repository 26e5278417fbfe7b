"""Turns what the Postgres driver raises into our errors, by who must act.

Connection lost, server stopped, no resources: Unavailable. A batch that found a key taken:
Refused with its verdict, for the writer to decide again. All else contradicts what the writer
knows: Corrupt.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import asyncpg

from ledger_writer.port import Verdict
from schemas.errors import Corrupt, HeadraceError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_TAKEN: Final = "HR001"
_ACCOUNT_ID_TAKEN: Final = "accounts_account_id_key"

LOST: Final = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""How the driver tells that a connection is gone; the last, when it hears of that as it sends."""
AWAY: Final = (*LOST, asyncpg.PostgresError)

# Connection, resources, intervention and rollback: SQLSTATE classes after which a retry can work.
_PASSING_CLASSES: Final = ("08", "40", "53", "55", "57", "58")


class Refused(HeadraceError):
    """The statement refused the batch and undid it."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.value)
        self.verdict = verdict


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the driver's errors into ours, by who must act."""
    try:
        yield
    except LOST as error:
        raise Unavailable(f"ledger database, {what}: {error!r}") from error
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name == _ACCOUNT_ID_TAKEN:
            raise Refused(Verdict.TAKEN) from error
        raise Corrupt(f"ledger database, {what}: {error}") from error
    except asyncpg.PostgresError as error:
        state = error.sqlstate or ""
        if state == _TAKEN:
            raise Refused(Verdict.TAKEN) from error
        if state[:2] in _PASSING_CLASSES:
            raise Unavailable(f"ledger database, {what}: {error}") from error
        raise Corrupt(f"ledger database, {what}: {error} ({state})") from error
