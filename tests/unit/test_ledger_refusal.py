"""What the Postgres driver raises, as our errors."""

from __future__ import annotations

import asyncpg
import pytest

from ledger_writer.refusal import translated
from schemas.errors import Unavailable


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("reset by peer"),
        TimeoutError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("cannot switch to state 11; another operation is in progress"),
        asyncpg.AdminShutdownError("terminating connection"),
    ],
)
def test_a_connection_that_is_gone_is_unavailable_however_the_driver_tells(error):
    with pytest.raises(Unavailable, match="ledger database, commit"), translated("commit"):
        raise error
