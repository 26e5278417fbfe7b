"""Locust users on the payment and webhook routes of a running stack, with data like real ones.

Accounts are drawn by Zipf, a share of requests repeats an earlier one or contradicts it, webhooks
are signed (and some forged). Closed loop: a user waits for each answer, so a slow server is asked
less; the open-loop generator is what measures latency. An answer that is not as planned fails.

Started by `headrace locust` in a process of its own, because Locust patches sockets for gevent.
"""

from __future__ import annotations

import itertools
import json
import os
import time
import urllib.request
import uuid
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any, Final

from gevent.pool import Pool
from locust import FastHttpUser, constant_throughput, events

from loadtest import stack
from loadtest.generator import plan, render, webhooks

if TYPE_CHECKING:
    from collections.abc import Mapping

RECENT_MAX: Final = 200
FUNDS_MINOR: Final = 10**12
OPENING_AT_ONCE: Final = 32


class Shared:
    """What all users share: the stack, the run's name, and accounts that were opened for it."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.stack = stack.read(stack.home())
        self.run = f"locust-{uuid.uuid4().hex[:10]}"
        self.accounts = int(env.get("ACCOUNTS", "200"))
        self.rate_per_user = float(env.get("RATE", "200")) / int(env.get("USERS", "20"))
        self.payers = plan.Zipf(list(range(self.accounts)), 0.8)
        self.authorization = {"Authorization": f"Bearer {self.stack.gateways[0].api_key}"}
        self.numbers = itertools.count()
        bank = self._open("external", "bank")
        pool = Pool(OPENING_AT_ONCE)
        self.ids = pool.map(lambda number: self._open_funded(bank, number), range(self.accounts))

    def _open_funded(self, bank: str, number: int) -> str:
        account_id = self._open("customer", str(number))
        body = {
            "amount": FUNDS_MINOR, "currency": "EUR", "source": {"account": bank},
            "destination": {"account": account_id},
        }  # fmt: skip
        self._post("/v1/payments", f"fund-{number}", body)
        return account_id

    def _open(self, kind: str, name: str) -> str:
        body = {"currency": "EUR", "kind": kind}
        return str(self._post("/v1/accounts", f"account-{name}", body)["id"])

    def _post(self, path: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        target = self.stack.gateways[0]
        request = urllib.request.Request(
            f"http://{target.host}:{target.port}{path}",
            data=json.dumps(body).encode(),
            headers=self.authorization
            | {"Idempotency-Key": f"{self.run}-{key}", "Content-Type": "application/json"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            created: dict[str, Any] = json.load(answer)
            return created


@cache
def shared() -> Shared:
    """Return what all users share."""
    return Shared(os.environ)


def pace(user: Any) -> float:
    """Return how long to wait: each user has its part of RATE."""
    wait_s: float = constant_throughput(shared().rate_per_user)(user)
    return wait_s


class Customer(FastHttpUser):  # type: ignore[misc]  # Locust has no types
    """Somebody who pays, looks at what came of it, and now and then sends something twice."""

    weight = 9

    def wait_time(self) -> float:
        """Wait for the next turn."""
        return pace(self)

    def on_start(self) -> None:
        """Have numbers of its own, and the accounts of all."""
        self.shared = shared()
        self.random = Random(f"{self.shared.run}/{next(self.shared.numbers)}")
        self.recent: list[tuple[str, dict[str, Any], str]] = []
        self.ids = self.shared.ids

    def pay(self) -> None:
        """A new payment."""
        count = len(self.ids)
        source = self.shared.payers.draw(self.random)
        destination = (source + 1 + self.random.randrange(count - 1)) % count
        number, amount = next(self.shared.numbers), plan.amount_minor(self.random)
        key = f"{self.shared.run}-{number}"
        order = plan.Order(
            number, 0.0, plan.Purpose.PAY, key, source, destination, amount, number
        )  # fmt: skip
        body = render.payment_body(order, self.ids, "EUR")
        payment_id = self._create(key, body, {202}, "POST /v1/payments")
        if payment_id:
            self.recent = [*self.recent[-RECENT_MAX:], (key, body, payment_id)]

    def repeat(self) -> None:
        """The same request again: the same payment."""
        if self.recent:
            key, body, payment_id = self.random.choice(self.recent)
            self._create(key, body, {200, 202}, "POST /v1/payments (repeated)", payment_id)

    def conflict(self) -> None:
        """The same key for another amount: refused at once, or accepted and never executed."""
        if self.recent:
            key, body, _ = self.random.choice(self.recent)
            other = body | {"amount": body["amount"] + 1}
            self._create(key, other, {202, 422}, "POST /v1/payments (conflicting)")

    def look(self) -> None:
        """How a payment stands."""
        if self.recent:
            _, _, payment_id = self.random.choice(self.recent)
            with self.client.get(
                f"/v1/payments/{payment_id}", headers=self.shared.authorization,
                name="GET /v1/payments/{id}", catch_response=True,
            ) as answer:  # fmt: skip
                judge(answer, {200})

    def _create(
        self, key: str, body: dict[str, Any], wanted: set[int], name: str, payment_id: str = ""
    ) -> str:
        """Send it; return the id. `payment_id` is the one that must come back."""
        headers = self.shared.authorization | {"Idempotency-Key": key}
        with self.client.post(
            "/v1/payments", json=body, headers=headers, name=name, catch_response=True
        ) as answer:
            found = ""
            if judge(answer, wanted) and answer.status_code in {200, 202}:
                found = str(answer.json()["id"])
            if payment_id and found and found != payment_id:
                answer.failure(f"a repeat came back as {found}, not {payment_id}")
            return found

    tasks = {pay: 90, repeat: 5, conflict: 1, look: 10}  # noqa: RUF012  Locust's way


class Partner(FastHttpUser):  # type: ignore[misc]
    """A partner that delivers events: most once, some twice, a few forged."""

    weight = 1

    def wait_time(self) -> float:
        """Wait for the next turn."""
        return pace(self)

    def on_start(self) -> None:
        """Have numbers of its own."""
        self.shared = shared()
        self.random = Random(f"{self.shared.run}/{next(self.shared.numbers)}")

    def deliver(self) -> None:
        """Deliver one event, one in ten twice; one in a hundred is forged."""
        seed = self.random.randrange(2**31)
        forged = float(self.random.random() < 0.01)
        made = webhooks.make(seed, self.shared.run, 1, 1.0, repeated=0.0, forged=forged)
        event = next((each for each in made if each.forgery), made[0])
        self._post(event)
        if self.random.random() < 0.10:
            self._post(event)

    def _post(self, event: webhooks.Delivery) -> None:
        running = self.shared.stack
        headers = webhooks.headers(event, running.webhook_secret, int(time.time()))
        with self.client.post(
            f"/v1/webhooks/{running.webhook_source}",
            data=event.body,
            headers=headers | {"Content-Type": "application/json"},
            name="POST /v1/webhooks/{source}" + (" (forged)" if event.forgery else ""),
            catch_response=True,
        ) as answer:
            judge(answer, {401} if event.forgery else {200})

    tasks = [deliver]  # noqa: RUF012  Locust's way


def judge(answer: Any, wanted: set[int]) -> bool:
    """Mark the answer: planned or not. What the plan wants is no failure, whatever its status."""
    if answer.status_code in wanted:
        answer.success()
        return True
    answer.failure(f"answered {answer.status_code}: {(answer.text or '')[:200]}")
    return False


@events.init.add_listener  # type: ignore[untyped-decorator]
def set_up(**_: Any) -> None:
    """Open the accounts before the run's time begins to count."""
    shared()


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def judge_run(environment: Any, **_: Any) -> None:
    """Fail the run when any answer was not as planned, or when nothing was asked."""
    total = environment.stats.total
    environment.process_exit_code = 0 if total.num_requests and not total.num_failures else 1
