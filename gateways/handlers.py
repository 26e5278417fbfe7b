"""What the rows of the route tables share: the handlers that they call, and common parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateways.health import Health
from gateways.http.dispatch import AsyncHandler
from gateways.http.routing import Handler, Parameter
from gateways.payments.batch import Batch
from gateways.payments.create import Create
from gateways.payments.operate import Operate
from gateways.payments.parameters import (
    LIMIT_DEFAULT,
    LIMIT_MAX,
    METADATA_VALUE_MAX,
    REFERENCE_MAX,
)
from gateways.payments.reads import Reads
from gateways.payments.transfers import Transfers
from gateways.webhooks.receive import Receive

JSON: Final = b"application/json"
KEY: Final = Parameter(
    "Idempotency-Key",
    "header",
    "The same on every retry of one request, new for a new one",
    required=True,
    schema={"type": "string", "minLength": 1, "maxLength": 255},
)
PREFER: Final = Parameter(
    "Prefer", "header", "`wait=N`: answer when the outcome is known, within N seconds (at most 30)"
)
TRACE: Final = Parameter("traceparent", "header", "W3C trace context, carried into the log")
WRITES: Final = (KEY, PREFER, TRACE)
TIME: Final = {"type": "string", "format": "date-time"}
SEARCH: Final = (
    Parameter(
        "reference",
        "query",
        "Exactly this reference",
        schema={"type": "string", "maxLength": REFERENCE_MAX},
    ),
    Parameter(
        "metadata",
        "query",
        "`metadata.<name>=<value>`: exactly this pair is in the metadata; of several, all are",
        schema={
            "type": "object",
            "patternProperties": {
                r"^metadata\..{1,40}$": {"type": "string", "maxLength": METADATA_VALUE_MAX}
            },
            "additionalProperties": False,
        },
    ),
)
PAGE: Final = (
    Parameter(
        "limit",
        "query",
        "",
        schema={
            "type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT
        },
    ),
    Parameter("cursor", "query", "`next_cursor` of the page before; keep the filters"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Handlers:
    """What the tables' rows call."""

    create: Create
    operate: Operate
    transfers: Transfers
    batch: Batch
    reads: Reads
    receive: Receive
    health: Health
    later: Callable[[AsyncHandler], Handler]
