"""The ledger's own interface: movements that are posted together or not at all, and reversals.

Accounts of any homes may take part in one transfer, and in its reversal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from gateways.gate import idempotency_key
from gateways.http.dispatch import AsyncHandler
from gateways.http.exchange import Exchange
from gateways.http.routing import Handler
from gateways.payments import present_transfers, requests, rules
from gateways.payments.bodies import ReversalBody, TransferBody
from gateways.payments.create import WAIT_S, caller_of
from gateways.payments.intake import Answered, Intake, Resource
from gateways.payments.operate import body_of
from gateways.payments.prefer import wait_of
from gateways.payments.reads import Reads
from gateways.payments.requests import Record
from gateways.problems import FieldError, Refused

PATH: Final = "/v1/transfers"
REJECTED: Final = "transfer_rejected"

_BODY: Final = msgspec.json.Decoder(TransferBody)
_REVERSAL: Final = msgspec.json.Decoder(ReversalBody)
_encode = msgspec.json.Encoder().encode


class Transfers:
    """Handlers of POST /v1/transfers and of reversals. `later` runs what waits as a task."""

    def __init__(
        self,
        intake: Intake,
        reads: Reads,
        reply_partition: int,
        later: Callable[[AsyncHandler], Handler],
    ) -> None:
        self._intake = intake
        self._reads = reads
        self._reply_partition = reply_partition
        self._later = later

    def create(self, exchange: Exchange) -> None:
        """POST /v1/transfers."""
        key = idempotency_key(exchange)
        body = rules.decode(_BODY, exchange.body)
        rules.check_transfer(body)
        record = requests.transfer(body, key, caller_of(exchange), rules.effective_us(body))
        self._submit(exchange, record, created=200 if body.dry_run else 201)

    async def reverse(self, exchange: Exchange) -> None:
        """POST /v1/transfers/{id}/reversals."""
        key, body = idempotency_key(exchange), body_of(exchange, _REVERSAL)
        rules.check_reversal(body)
        original = await self._reads.find_transfer(exchange.tenant, exchange.params[0])
        legs = [(leg.source, leg.destination) for leg in original.legs]
        if not legs:
            detail = f"{original.id} is {original.status}: nothing was moved that could come back."
            error = FieldError("", "original_not_posted", detail)
            raise Refused("operation_refused", detail, error)
        home = rules.payback_home(legs, body.leg)
        record = requests.reversal(body, key, caller_of(exchange), original.id, home)
        self._submit(exchange, record, created=201)

    def _submit(self, exchange: Exchange, record: Record, created: int) -> None:
        wait = wait_of(exchange.headers.get(b"prefer"), WAIT_S)
        record["reply_partition"] = self._reply_partition if wait.seconds else None
        resource = Resource(
            PATH, present_transfers.transfer, REJECTED, created=created, reread=self._reread
        )
        self._intake.submit(exchange, resource, record, wait)

    def _reread(self, exchange: Exchange, answer: Answered) -> bool:
        """Read a transfer that was posted before: the reply to a repeat has no entries."""
        if answer.outcome.entries or answer.record.get("dry_run"):
            return False

        async def read(exchange: Exchange) -> None:
            record = answer.record
            shown = await self._reads.posted_transfer(record["tenant"], record["resource_id"])
            if shown is None:
                shown = present_transfers.transfer(record, answer.outcome)
            if not exchange.answered:
                exchange.answer(answer.status, _encode(shown), answer.lines)

        self._later(read)(exchange)
        return True
