"""Opens the Iceberg catalog: SQL, in Postgres by default; every wait on it has a bound."""

from __future__ import annotations

from typing import Final

from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from schemas.errors import Unavailable

CATALOG: Final = "headrace"
"""The name under which its tables stand in the catalog database: readers open it by this name."""

# A sink that is paused in mid-commit holds its table's row: Postgres ends it before another one
# gives up waiting.
_BOUNDS: Final = {
    "connect_timeout": "5",
    "tcp_user_timeout": "10000",
    "options": "-c statement_timeout=10000 -c lock_timeout=5000"
    " -c idle_in_transaction_session_timeout=2000",
}


def catalog_uri(dsn: str) -> str:
    """Return the URL that SQLAlchemy wants for a postgresql:// DSN; others stay as they are."""
    url = make_url(dsn)
    if url.get_backend_name() != "postgresql":
        return dsn
    bounds = {name: value for name, value in _BOUNDS.items() if name not in url.query}
    url = url.set(drivername="postgresql+psycopg2").update_query_dict(bounds)
    return str(url.render_as_string(hide_password=False))


def open_catalog(dsn: str, warehouse: str) -> SqlCatalog:
    """Connect; the catalog's own tables are made when missing. Raises Unavailable."""
    try:
        return SqlCatalog(CATALOG, uri=catalog_uri(dsn), warehouse=warehouse, pool_pre_ping="true")
    except SQLAlchemyError as error:
        raise Unavailable(f"the lake's catalog: {error}") from error
