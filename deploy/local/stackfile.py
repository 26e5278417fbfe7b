"""The two files that tell others about a running stack: `stack.json` and the supervisor's record.

Both are replaced in one step, so a reader never sees half of one, and only their owner may read
them: `stack.json` holds URLs with passwords and the demo key. What it must hold is fixed; the
record is the supervisor's own, and names every process that may have to be ended.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from deploy.local.child import Identity, identify
from deploy.local.credentials import API_KEY_ID, SOURCE, Credentials, write_private

if TYPE_CHECKING:
    from deploy.local.home import Home
    from deploy.local.plan import Addresses
    from deploy.local.settings import Settings


@dataclass(slots=True)
class Process:
    """One entry of `processes` or `servers`."""

    role: str
    name: str
    pid: int
    metrics_url: str | None
    started_at: float
    restarts: int
    log: str


@dataclass(slots=True)
class Record:
    """State of the supervisor: "starting", "ready", "stopping" or "failed" with its error."""

    supervisor: Identity
    state: str = "starting"
    error: str = ""
    children: dict[str, Identity] = field(default_factory=dict)

    def alive(self) -> bool:
        """True if that supervisor still runs."""
        return identify(self.supervisor.pid) == self.supervisor


def write_record(home: Home, record: Record) -> None:
    """Replace the record."""
    write_private(home.record, asdict(record))


def read_record(home: Home) -> Record | None:
    """The record of the last supervisor of this home, alive or not."""
    try:
        found = json.loads(home.record.read_text())
    except FileNotFoundError:
        return None
    return Record(
        supervisor=Identity(**found["supervisor"]),
        state=found["state"],
        error=found["error"],
        children={name: Identity(**child) for name, child in found["children"].items()},
    )


def read_stack(home: Home) -> dict[str, Any] | None:
    """The stack file, or None when no stack is up."""
    try:
        stack: dict[str, Any] = json.loads(home.stack_file.read_text())
    except FileNotFoundError:
        return None
    return stack


def describe(settings: Settings, addresses: Addresses, credentials: Credentials) -> dict[str, Any]:
    """The fixed part of `stack.json`."""
    urls = [f"http://127.0.0.1:{port}" for port in addresses.gateways.values()]
    dsns = addresses.dsns
    return {
        "gateway_url": urls[0],
        "gateway_urls": urls,
        "webhooks_url": urls[0],
        "kafka": addresses.kafka,
        "partitions": settings.partitions,
        "postgres": {
            "ledger": dsns["ledger_reader"],
            "views": dsns["views_reader"],
            "lake_catalog": dsns["lake_owner"],
        },
        "roles": dsns,
        "lake": {"catalog": dsns["lake_owner"], "warehouse": addresses.warehouse},
        "api_keys": {API_KEY_ID: credentials.api_key},
        "webhook_secrets": {SOURCE: credentials.webhook_secret},
    }


def write_stack(
    home: Home, fixed: dict[str, Any], services: list[Process], servers: list[Process]
) -> None:
    """Replace `stack.json`."""
    content = fixed | {
        "processes": [asdict(process) for process in services],
        "servers": [asdict(process) for process in servers],
    }
    write_private(home.stack_file, content)
