"""Connects the ledger's commands to its database; the writer has a way of its own (`postgres`)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import asyncpg

from ledger_writer.refusal import translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONNECT_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 5.0
LONG_S: Final = 86_400.0
"""Bound of one statement where that reads a whole journal."""


@asynccontextmanager
async def connected(
    dsn: str, what: str, within_s: float, **session: str
) -> AsyncIterator[asyncpg.Connection]:
    """Connect while the block lasts; no statement may take longer than `within_s`.

    The driver's errors come as ours and say `what` was done. Whoever leaves by an error cuts the
    connection: a statement may be under way.
    """
    with translated(what):
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=within_s,
            server_settings={"application_name": f"headrace ledger {what}", **session},
        )
        try:
            yield connection
        except BaseException:
            connection.terminate()
            raise
        finally:
            await connection.close(timeout=CLOSE_TIMEOUT_S)
