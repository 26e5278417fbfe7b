"""Which services run, and what each is told: decides from settings and addresses. Pure.

Each service learns only what it needs: the gateways no ledger URL, the streams no database at
all, nobody but migrations an owner's password (the views' and the lake's owner is their writer).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from deploy.local.settings import DSN_OF_ROLE

if TYPE_CHECKING:
    from deploy.local.home import Home
    from deploy.local.settings import Settings

MIGRATIONS: Final = {
    "ledger_writer.migrate": "ledger_owner",
    "streams.views.migrate": "views_owner",
}
"""Each migration's module and the role it runs as, before any service starts."""
_MODULES: Final = {"gateway": "gateways", "views": "streams.views", "lake": "streams.lake"}
_HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything listens. `gateways` and `metrics` are loopback ports, by worker name."""

    kafka: str
    dsns: dict[str, str]
    warehouse: str
    gateways: dict[str, int]
    metrics: dict[str, int]


@dataclass(frozen=True, slots=True)
class Worker:
    """One process of ours: `python -m module` with these variables on top of the environment."""

    name: str
    role: str
    module: str
    variables: dict[str, str]
    metrics_url: str
    ready_url: str | None = None


def worker_names(settings: Settings) -> dict[str, list[str]]:
    """The names of the processes to start, by role, in the order of starting."""
    counts = {
        "ledger_writer": settings.ledger_writers,
        "streams": settings.streams,
        "views": 1,
        "lake": 1,
        "gateway": settings.gateways,
    }
    return {role: [f"{role}-{n}" for n in range(count)] for role, count in counts.items()}


def workers(settings: Settings, home: Home, addresses: Addresses) -> list[Worker]:
    """Every service, in the order of starting."""
    context = (settings, home, addresses)
    return [
        _worker(context, role, name, index)
        for role, names in worker_names(settings).items()
        for index, name in enumerate(names)
    ]


def migration_variables(settings: Settings, addresses: Addresses, module: str) -> dict[str, str]:
    """What a migration is told: its owner's URL."""
    role = MIGRATIONS[module]
    return settings.tuning | {
        DSN_OF_ROLE[role]: addresses.dsns[role],
        "HEADRACE_PARTITIONS": str(settings.partitions),
    }


def _worker(context: tuple[Settings, Home, Addresses], role: str, name: str, index: int) -> Worker:
    settings, home, addresses = context
    port = addresses.metrics[name]
    common = {
        "HEADRACE_HOME": str(home.root),
        "HEADRACE_KAFKA": addresses.kafka,
        "HEADRACE_PARTITIONS": str(settings.partitions),
        "HEADRACE_METRICS_PORT": str(port),
        "HEADRACE_WORKER": name,
    }
    ready_url = None
    if role == "gateway":
        ready_url = f"http://{_HOST}:{addresses.gateways[name]}/readyz"
    return Worker(
        name=name,
        role=role,
        module=_MODULES.get(role, role),
        variables=settings.tuning | common | _own(home, addresses, role, name, index),
        metrics_url=f"http://{_HOST}:{port}/metrics",
        ready_url=ready_url,
    )


def _own(home: Home, addresses: Addresses, role: str, name: str, index: int) -> dict[str, str]:
    dsns = addresses.dsns
    match role:
        case "gateway":
            return {
                "HEADRACE_GATEWAY_HOST": _HOST,
                "HEADRACE_GATEWAY_PORT": str(addresses.gateways[name]),
                "HEADRACE_GATEWAY_INDEX": str(index),
                "HEADRACE_API_KEYS_FILE": str(home.api_keys),
                "HEADRACE_WEBHOOK_SOURCES_FILE": str(home.webhook_sources),
                "HEADRACE_VIEWS_READER_DSN": dsns["views_reader"],
            }
        case "streams":
            return {"HEADRACE_STATE_DIR": str(home.state(name))}
        case "ledger_writer":
            return {"HEADRACE_LEDGER_DSN": dsns["ledger_writer"]}
        case "views":
            return {"HEADRACE_VIEWS_DSN": dsns["views_owner"]}
        case _:
            return {
                "HEADRACE_LAKE_CATALOG_DSN": dsns["lake_owner"],
                "HEADRACE_LAKE_WAREHOUSE": addresses.warehouse,
            }
