"""Puts a gateway together over its ports: the broker link, the replies, the views.

The same for the process (Kafka, Postgres) and for tests (memory). Starts nothing.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateways import metrics
from gateways.auth import Keyring
from gateways.gate import Gate
from gateways.handlers import Handlers
from gateways.health import Broker, Health, Replies
from gateways.http.dispatch import Dispatch
from gateways.http.limits import Limits
from gateways.http.routing import Router
from gateways.http.server import Server
from gateways.kafka.outbox import Bounds, Link, Outbox
from gateways.payments.batch import Batch
from gateways.payments.create import Create
from gateways.payments.intake import Intake
from gateways.payments.operate import Operate
from gateways.payments.reads import Reads
from gateways.payments.recent import Recent
from gateways.payments.transfers import Transfers
from gateways.payments.versions import Versions
from gateways.payments.views import Views
from gateways.payments.waiters import Waiters
from gateways.routes import table
from gateways.settings import Settings
from gateways.webhooks.receive import Receive
from gateways.webhooks.sources import Source


class BrokerLink(Link, Broker, Protocol):
    """The way to the broker, and what is known of it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What a gateway stands on."""

    link: BrokerLink
    replies: Replies
    views: Views
    keyring: Keyring
    sources: Mapping[str, Source]


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts that live as long as the process."""

    server: Server
    outbox: Outbox
    intake: Intake
    waiters: Waiters
    health: Health


def assemble(
    settings: Settings, ports: Ports, limits: Limits | None = None, bounds: Bounds | None = None
) -> Gateway:
    """Build a gateway."""
    outbox = Outbox(ports.link, bounds)
    recent, versions = Recent(settings.recent_max), Versions(settings.recent_max)
    waiters = Waiters(settings.waiters_max)
    intake = Intake(
        outbox=outbox,
        recent=recent,
        waiters=waiters,
        versions=versions,
        can_wait=lambda: ports.replies.positioned,
        partitions=settings.partitions,
        log_sample=settings.log_sample,
    )
    dispatch = Dispatch(Gate(ports.keyring))
    health = Health(ports.link, ports.replies)
    reads, reply_to = Reads(ports.views, recent, versions), settings.reply_partition
    handlers = Handlers(
        create=Create(intake, reply_to),
        operate=Operate(intake, reads, reply_to, dispatch.later),
        transfers=Transfers(intake, reads, reply_to, dispatch.later),
        batch=Batch(intake),
        reads=reads,
        receive=Receive(outbox, ports.sources, settings.partitions),
        health=health,
        later=dispatch.later,
    )
    server = Server(Router(table(handlers)), dispatch, request_ids(), limits)
    metrics.IN_FLIGHT.set_function(lambda: server.in_flight)
    metrics.CONNECTIONS.set_function(lambda: server.connections)
    metrics.OUTBOX_RECORDS.set_function(lambda: outbox.records)
    metrics.OUTBOX_BYTES.set_function(lambda: outbox.size)
    metrics.RECENT.set_function(lambda: len(recent))
    metrics.WAITERS.set_function(lambda: len(waiters))
    return Gateway(server, outbox, intake, waiters, health)


def request_ids() -> Callable[[], str]:
    """Return what names requests: uniquely over processes and restarts."""
    prefix, count = f"req_{secrets.token_hex(6)}", itertools.count(1)
    return lambda: f"{prefix}{next(count):08x}"
