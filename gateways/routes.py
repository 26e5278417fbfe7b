"""The route table: every path, who may use it, what it takes and answers, and what handles it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateways import routes_ledger
from gateways.handlers import JSON, PAGE, SEARCH, TIME, TRACE, WRITES, Handlers
from gateways.health import Readiness
from gateways.http.exchange import Exchange
from gateways.http.routing import Answer, Parameter, Route
from gateways.openapi.document import document
from gateways.openapi.page import page
from gateways.payments.batch import BatchResults
from gateways.payments.bodies import AccountBody, BatchBody, BatchItem, PaymentBody
from gateways.payments.cursors import STATUSES
from gateways.payments.present import Account, Payment, PaymentList

BATCH_BYTES_MAX: Final = 2 * 1024 * 1024
WEBHOOK_BYTES_MAX: Final = 1024 * 1024

_FILTERS: Final = (
    Parameter("status", "query", "", schema={"type": "string", "enum": list(STATUSES)}),
    Parameter("account", "query", "Source or destination"),
    Parameter("idempotency_key", "query", "The payment that was made with this key"),
    *SEARCH,
    Parameter("from", "query", "Created at or after", schema=TIME),
    Parameter("to", "query", "Created before", schema=TIME),
    *PAGE,
)


class BatchRequest(msgspec.Struct, frozen=True):
    """At most 1,000 payments, each with its own key."""

    payments: list[BatchItem]


def table(handlers: Handlers) -> list[Route]:
    """Return every route, the description of all of them included."""
    own = [*_accounts(handlers), *_payments(handlers)]
    routes = [*own, *routes_ledger.table(handlers), *_others(handlers)]
    return [*routes, *_descriptions(routes)]


def _accounts(to: Handlers) -> list[Route]:
    return [
        Route(
            "POST",
            "/v1/accounts",
            "create_account",
            to.create.account,
            summary="Open an account and wait until it is open",
            scope="accounts:write",
            media_type=JSON,
            takes_body=True,
            request=AccountBody,
            answers=(
                Answer(201, "Opened", Account),
                Answer(200, "Opened before, with the same key", Account),
                Answer(202, "Durable, and not yet decided", Account),
            ),
            parameters=WRITES,
        ),
        Route(
            "GET",
            "/v1/accounts/{id}",
            "get_account",
            to.later(to.reads.account),
            summary="An account with its balances",
            scope="accounts:read",
            answers=(Answer(200, "The account", Account),),
        ),
    ]


def _payments(to: Handlers) -> list[Route]:
    return [
        Route(
            "POST",
            "/v1/payments",
            "create_payment",
            to.create.payment,
            summary="Make a payment",
            scope="payments:write",
            media_type=JSON,
            takes_body=True,
            request=PaymentBody,
            answers=(
                Answer(202, "Durable; the outcome is not known yet", Payment),
                Answer(201, "Decided, with Prefer: wait", Payment),
                Answer(200, "Decided before, with the same key", Payment),
            ),
            parameters=WRITES,
        ),
        Route(
            "POST",
            "/v1/payments/batch",
            "create_payments",
            to.later(to.batch.handle),
            summary="Make up to 1,000 payments, each for itself",
            scope="payments:write",
            body_bytes_max=BATCH_BYTES_MAX,
            media_type=JSON,
            takes_body=True,
            request=BatchRequest,
            answers=(Answer(202, "One result a payment, in order", BatchResults),),
            parameters=(TRACE,),
        ),
        Route(
            "GET",
            "/v1/payments",
            "list_payments",
            to.later(to.reads.payments),
            summary="Payments, newest first",
            scope="payments:read",
            answers=(Answer(200, "One page", PaymentList),),
            parameters=_FILTERS,
        ),
        Route(
            "GET",
            "/v1/payments/{id}",
            "get_payment",
            to.later(to.reads.payment),
            summary="A payment with its timeline",
            scope="payments:read",
            answers=(Answer(200, "The payment", Payment),),
        ),
    ]


def _others(to: Handlers) -> list[Route]:
    readiness = (Answer(200, "Ready", Readiness), Answer(503, "Not ready, and why", Readiness))
    return [
        Route(
            "POST",
            "/v1/webhooks/{source}",
            "receive_webhook",
            to.receive.handle,
            summary="Deliver a partner's event: verified, then kept as it came",
            body_bytes_max=WEBHOOK_BYTES_MAX,
            takes_body=True,
            answers=(
                Answer(200, "Verified and durable", Any),
                Answer(401, "Not verified; kept in quarantine", None, "application/problem+json"),
            ),
            parameters=(TRACE,),
        ),
        Route(
            "GET",
            "/healthz",
            "healthz",
            to.health.healthz,
            summary="Does the process answer",
            always=True,
            answers=(Answer(200, "It does", Any),),
        ),
        Route(
            "GET",
            "/readyz",
            "readyz",
            to.health.readyz,
            summary="Would a request be taken now",
            always=True,
            answers=readiness,
        ),
        Route(
            "GET",
            "/metrics",
            "metrics",
            to.health.metrics,
            summary="Prometheus metrics",
            always=True,
            answers=(Answer(200, "All of them", None, "text/plain"),),
        ),
    ]


def _descriptions(routes: list[Route]) -> list[Route]:
    shown: dict[str, tuple[bytes, bytes]] = {}

    def show(exchange: Exchange) -> None:
        body, media_type = shown[exchange.path]
        exchange.answer(200, body, media_type=media_type)

    own = [
        Route(
            "GET",
            "/openapi.json",
            "openapi",
            show,
            summary="This interface as OpenAPI 3.1",
            answers=(Answer(200, "The document"),),
        ),
        Route(
            "GET",
            "/docs",
            "docs",
            show,
            summary="This interface for people",
            answers=(Answer(200, "A page", None, "text/html"),),
        ),
    ]
    described = document([*routes, *own])
    shown["/openapi.json"] = (msgspec.json.encode(described), JSON)
    shown["/docs"] = (page(described).encode(), b"text/html; charset=utf-8")
    return own


assert BatchRequest.__struct_fields__ == BatchBody.__struct_fields__
