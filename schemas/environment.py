"""The environment contract: every HEADRACE_ variable, its type, default, unit and bounds.

Each process builds its frozen Settings from `read`, once, at start. A variable with our prefix that
is not in the table is an error, so that a misspelt setting can't be ignored in silence. Pure: the
environment is an argument.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

PREFIX: Final = "HEADRACE_"


class SettingError(ValueError):
    """A variable is unknown, missing or out of bounds; the text says which and what to set."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable. `default` None means required by whoever reads it; ints lie in low..high."""

    name: str
    default: str | int | None
    doc: str
    low: int = 0
    high: int = 2**31 - 1

    def parse(self, text: str | None) -> str | int:
        """Return the value; the default when unset."""
        if text is None or text == "":
            if self.default is None:
                raise SettingError(f"{self.name} must be set: {self.doc}")
            return self.default
        if not isinstance(self.default, int):
            return text
        try:
            number = int(text)
        except ValueError:
            raise SettingError(f"{self.name}={text!r} must be an integer: {self.doc}") from None
        if not self.low <= number <= self.high:
            raise SettingError(f"{self.name}={number} must lie in {self.low}..{self.high}")
        return number


_TABLE: Final = (
    Variable("HEADRACE_HOME", ".headrace", "folder for data, logs, caches and stack.json"),
    Variable("HEADRACE_CACHE", "", "folder for downloaded artefacts; .headrace/cache when empty"),
    Variable("HEADRACE_JAVA", "", "path of a Java 17+ binary; the bundled runtime when empty"),
    Variable("HEADRACE_KAFKA", None, "bootstrap servers, host:port[,host:port]"),
    Variable("HEADRACE_PARTITIONS", 4, "partitions of each topic", 1, 1024),
    Variable("HEADRACE_GATEWAYS", 1, "gateway processes to start", 1, 64),
    Variable("HEADRACE_STREAMS", 1, "stream worker processes to start", 1, 64),
    Variable("HEADRACE_LEDGER_WRITERS", 1, "ledger writer processes to start", 1, 64),
    Variable("HEADRACE_LEDGER_DSN", None, "ledger database as ledger_writer"),
    Variable("HEADRACE_LEDGER_OWNER_DSN", None, "ledger database as its owner, for migrations"),
    Variable("HEADRACE_LEDGER_READER_DSN", None, "ledger database, read only"),
    Variable("HEADRACE_VIEWS_DSN", None, "views database as views_owner"),
    Variable("HEADRACE_VIEWS_READER_DSN", None, "views database, read only"),
    Variable("HEADRACE_LAKE_CATALOG_DSN", None, "lake catalog database as lake_owner"),
    Variable("HEADRACE_LAKE_WAREHOUSE", None, "where lake tables live, file:///..."),
    Variable(
        "HEADRACE_LAKE_COMMIT_INTERVAL_MS", 5_000, "longest wait before landing", 100, 600_000
    ),
    Variable("HEADRACE_LAKE_BATCH_MAX", 100_000, "records that land in one commit", 1, 1_000_000),
    Variable("HEADRACE_GATEWAY_HOST", "127.0.0.1", "address the gateway listens on"),
    Variable("HEADRACE_GATEWAY_PORT", 8080, "port the gateway listens on", 1, 65535),
    Variable(
        "HEADRACE_GATEWAY_INDEX", 0, "which gateway this is; selects its reply partition", 0, 1023
    ),
    Variable("HEADRACE_API_KEYS_FILE", None, "JSON file of hashed API keys"),
    Variable("HEADRACE_WEBHOOK_SOURCES_FILE", None, "JSON file of webhook sources and secrets"),
    Variable(
        "HEADRACE_RULES_FILE", "", "YAML file of velocity rules; the packaged ones when empty"
    ),
    Variable(
        "HEADRACE_METRICS_PORT", 0, "port of /metrics on loopback; 0 takes a free one", 0, 65535
    ),
    Variable("HEADRACE_STATE_DIR", None, "folder for this worker's RocksDB state"),
    Variable("HEADRACE_WORKER", None, "this worker's name; its static group membership"),
    Variable("HEADRACE_SESSION_TIMEOUT_MS", 10_000, "consumer group session", 1_000, 300_000),
    Variable("HEADRACE_TRANSACTION_TIMEOUT_MS", 15_000, "Kafka transaction", 1_000, 900_000),
    Variable("HEADRACE_COMMIT_INTERVAL_MS", 100, "commit interval under load", 1, 10_000),
    Variable("HEADRACE_BATCH_MAX", 2_000, "records of one batch", 1, 100_000),
    Variable(
        "HEADRACE_DEDUP_HORIZON_DAYS",
        7,
        "how long idempotency keys are kept at least",
        7,
        366,
    ),
    Variable("HEADRACE_CRASH_POINT", "", "name of the step at which to die (drills only)"),
    Variable("HEADRACE_LOG_LEVEL", "info", "debug, info, warning or error"),
    Variable("HEADRACE_LOG_SAMPLE", 100, "log the way of one payment in this many", 1, 1_000_000),
)

VARIABLES: Final[dict[str, Variable]] = {variable.name: variable for variable in _TABLE}


def check_names(env: Mapping[str, str]) -> None:
    """Raise when a variable with our prefix is not one of ours."""
    for name in env:
        if name.startswith(PREFIX) and name not in VARIABLES:
            near = difflib.get_close_matches(name, VARIABLES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingError(f"{name} is not a variable of headrace{hint}")


def read(env: Mapping[str, str], *names: str) -> dict[str, Any]:
    """Return the named variables, parsed, keyed without prefix and in lower case.

    `read(os.environ, "HEADRACE_KAFKA") == {"kafka": "127.0.0.1:9092"}`.
    """
    check_names(env)
    return {
        name.removeprefix(PREFIX).lower(): VARIABLES[name].parse(env.get(name)) for name in names
    }
