"""What the caller asks of the stack, read once from the environment. Pure.

A piece whose address is given runs elsewhere and is not started.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from deploy.local.roles import DATABASES
from schemas.environment import SettingError, read

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DSN_OF_ROLE: Final = {
    "ledger_writer": "HEADRACE_LEDGER_DSN",
    "ledger_owner": "HEADRACE_LEDGER_OWNER_DSN",
    "ledger_reader": "HEADRACE_LEDGER_READER_DSN",
    "views_owner": "HEADRACE_VIEWS_DSN",
    "views_reader": "HEADRACE_VIEWS_READER_DSN",
    "lake_owner": "HEADRACE_LAKE_CATALOG_DSN",
}
_MAIN_ROLES: Final = {"ledger": "ledger_writer", "views": "views_owner", "lake": "lake_owner"}
TUNING: Final = (
    "HEADRACE_SESSION_TIMEOUT_MS",
    "HEADRACE_TRANSACTION_TIMEOUT_MS",
    "HEADRACE_COMMIT_INTERVAL_MS",
    "HEADRACE_BATCH_MAX",
    "HEADRACE_LAKE_COMMIT_INTERVAL_MS",
    "HEADRACE_LAKE_BATCH_MAX",
    "HEADRACE_RULES_FILE",
    "HEADRACE_DEDUP_HORIZON_DAYS",
    "HEADRACE_LOG_LEVEL",
    "HEADRACE_LOG_SAMPLE",
)
"""Handed on to every service when the caller sets them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`kafka` and `dsns` (by role) name what runs elsewhere; `tuning` is handed on as it is."""

    home: Path
    cache: Path
    java: str | None
    kafka: str | None
    partitions: int
    gateways: int
    streams: int
    ledger_writers: int
    gateway_port: int
    dsns: dict[str, str]
    warehouse: str | None
    tuning: dict[str, str]
    environment: dict[str, str]

    @property
    def own_databases(self) -> tuple[str, ...]:
        """The databases that no given URL replaces; if there is one, Postgres is started."""
        return tuple(name for name, role in _MAIN_ROLES.items() if role not in self.dsns)


def settings_from(env: Mapping[str, str], project: Path, here: Path) -> Settings:
    """Build the settings; an unknown or malformed HEADRACE_ variable is an error.

    A path that is given is relative to `here`; the defaults lie in the project's folder.
    """
    counts = read(
        env,
        "HEADRACE_CACHE",
        "HEADRACE_JAVA",
        "HEADRACE_PARTITIONS",
        "HEADRACE_GATEWAYS",
        "HEADRACE_STREAMS",
        "HEADRACE_LEDGER_WRITERS",
        "HEADRACE_GATEWAY_PORT",
    )
    return Settings(
        home=here / env["HEADRACE_HOME"] if env.get("HEADRACE_HOME") else project / ".headrace",
        cache=here / counts["cache"] if counts["cache"] else project / ".headrace" / "cache",
        java=counts["java"] or None,
        kafka=env.get("HEADRACE_KAFKA") or None,
        partitions=counts["partitions"],
        gateways=counts["gateways"],
        streams=counts["streams"],
        ledger_writers=counts["ledger_writers"],
        gateway_port=counts["gateway_port"],
        dsns=_given_dsns(env),
        warehouse=env.get("HEADRACE_LAKE_WAREHOUSE") or None,
        tuning={name: env[name] for name in TUNING if env.get(name)},
        environment={k: v for k, v in env.items() if not k.startswith("HEADRACE_")},
    )


def _given_dsns(env: Mapping[str, str]) -> dict[str, str]:
    """The given URLs by role. A database given by its main role serves its other roles too."""
    given = {role: env[name] for role, name in DSN_OF_ROLE.items() if env.get(name)}
    for database, main in _MAIN_ROLES.items():
        others = [role for role in DATABASES[database] if role != main]
        if main in given:
            given |= {role: given[main] for role in others if role not in given}
        elif any(role in given for role in others):
            raise SettingError(
                f"{DSN_OF_ROLE[next(role for role in others if role in given)]} is set but "
                f"{DSN_OF_ROLE[main]} is not: set it too, or neither"
            )
    return given
