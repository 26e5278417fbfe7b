"""The routes of the ledger: operations on payments and accounts, statements, transfers."""

from __future__ import annotations

from typing import Any, Final

from gateways.handlers import JSON, PAGE, SEARCH, TIME, WRITES, Handlers
from gateways.http.dispatch import AsyncHandler
from gateways.http.routing import Answer, Parameter, Route
from gateways.payments.bodies import AmountBody, EmptyBody, FlagsBody, ReversalBody, TransferBody
from gateways.payments.entry_queries import BASES
from gateways.payments.present import Account, Payment
from gateways.payments.present_entries import BalanceAt, EntryList
from gateways.payments.present_holds import HoldList
from gateways.payments.present_transfers import Transfer, TransferList

_DURABLE: Final = "Durable; the outcome is not known yet"


def table(to: Handlers) -> list[Route]:
    """Return the routes."""
    return [*_on_payments(to), *_on_accounts(to), *_statements(to), *_transfers(to)]


def _on_payments(to: Handlers) -> list[Route]:
    operate = to.operate
    return [
        _on_payment(to, "capture", operate.capture, AmountBody, "Settle what is held, or a part"),
        _on_payment(to, "void", operate.void, EmptyBody, "Give back what is left of what is held"),
        _on_payment(to, "refunds", operate.refund, AmountBody, "Pay back what was settled"),
    ]


def _on_payment(
    to: Handlers, verb: str, handler: AsyncHandler, request: Any, summary: str
) -> Route:
    return Route(
        "POST",
        f"/v1/payments/{{id}}/{verb}",
        f"{verb.rstrip('s')}_payment",
        to.later(handler),
        summary=summary,
        scope="payments:write",
        media_type=JSON,
        takes_body=True,
        body_optional=True,
        request=request,
        answers=(
            Answer(202, f"{_DURABLE}: the payment as it is now", Payment),
            Answer(200, "The payment as it stands after it, with Prefer: wait", Payment),
        ),
        parameters=WRITES,
    )


def _on_accounts(to: Handlers) -> list[Route]:
    operate = to.operate
    return [
        _on_account(to, "freeze", operate.freeze, FlagsBody, "Stop debits, credits or both"),
        _on_account(to, "unfreeze", operate.unfreeze, FlagsBody, "Allow them again"),
        _on_account(to, "close", operate.close, EmptyBody, "Close an account that holds nothing"),
    ]


def _on_account(
    to: Handlers, verb: str, handler: AsyncHandler, request: Any, summary: str
) -> Route:
    return Route(
        "POST",
        f"/v1/accounts/{{id}}/{verb}",
        f"{verb}_account",
        to.later(handler),
        summary=f"{summary}, and wait until it is done",
        scope="accounts:write",
        media_type=JSON,
        takes_body=True,
        body_optional=True,
        request=request,
        answers=(
            Answer(200, "The account as it stands after it", Account),
            Answer(202, f"{_DURABLE}: the account as it is now", Account),
        ),
        parameters=WRITES,
    )


def _statements(to: Handlers) -> list[Route]:
    return [
        Route(
            "GET",
            "/v1/accounts/{id}/entries",
            "list_entries",
            to.later(to.reads.entries),
            summary="An account's statement, newest first, with its running balance",
            scope="accounts:read",
            answers=(Answer(200, "One page", EntryList),),
            parameters=(
                Parameter("from", "query", "Booked at or after", schema=TIME),
                Parameter("to", "query", "Booked before", schema=TIME),
                *PAGE,
            ),
        ),
        Route(
            "GET",
            "/v1/accounts/{id}/holds",
            "list_holds",
            to.later(to.reads.holds),
            summary="What is held on an account, newest first: it adds up to its balances' held",
            scope="accounts:read",
            answers=(Answer(200, "One page", HoldList),),
            parameters=PAGE,
        ),
        Route(
            "GET",
            "/v1/accounts/{id}/balance",
            "get_balance",
            to.later(to.reads.balance),
            summary="An account's balances at a time",
            scope="accounts:read",
            answers=(Answer(200, "The balances", BalanceAt),),
            parameters=(
                Parameter("at", "query", "All that happened until then; default: now", schema=TIME),
                Parameter(
                    "basis",
                    "query",
                    "Which time of an entry counts: when it was booked, or when it is effective",
                    schema={"type": "string", "enum": list(BASES), "default": "booked"},
                ),
            ),
        ),
    ]


def _transfers(to: Handlers) -> list[Route]:
    made = (
        Answer(201, "Posted", Transfer),
        Answer(200, "Posted before, with the same key; or only tried", Transfer),
        Answer(202, _DURABLE, Transfer),
    )
    return [
        Route(
            "POST",
            "/v1/transfers",
            "create_transfer",
            to.transfers.create,
            summary="Move money by 1 to 64 legs, all or nothing, and wait until it is posted",
            scope="payments:write",
            media_type=JSON,
            takes_body=True,
            request=TransferBody,
            answers=made,
            parameters=WRITES,
        ),
        Route(
            "GET",
            "/v1/transfers",
            "list_transfers",
            to.later(to.reads.transfers),
            summary="Transfers and reversals, newest first",
            scope="payments:read",
            answers=(Answer(200, "One page", TransferList),),
            parameters=(
                *SEARCH,
                Parameter("account", "query", "That moved money on this account"),
                Parameter("from", "query", "Booked at or after", schema=TIME),
                Parameter("to", "query", "Booked before", schema=TIME),
                *PAGE,
            ),
        ),
        Route(
            "GET",
            "/v1/transfers/{id}",
            "get_transfer",
            to.later(to.reads.transfer),
            summary="A transfer with its entries",
            scope="payments:read",
            answers=(Answer(200, "The transfer", Transfer),),
        ),
        Route(
            "POST",
            "/v1/transfers/{id}/reversals",
            "reverse_transfer",
            to.later(to.transfers.reverse),
            summary="Pay a transfer, a leg or a part back: the reversal is a transfer of its own",
            scope="payments:write",
            media_type=JSON,
            takes_body=True,
            body_optional=True,
            request=ReversalBody,
            answers=made,
            parameters=WRITES,
        ),
    ]
