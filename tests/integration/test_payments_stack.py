"""Payments through the whole stack, as a client sees them, and under every fault that we know.

Each fault strikes while payments flow; after it every payment has ended once, and verify finds no
difference between log, ledger, views and lake.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from deploy.local.child import wait_for
from loadtest import stack as stacks
from loadtest.proof.run import Run, Setting
from loadtest.verify.command import verify
from schemas import ids

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.conftest import Stack

pytestmark = pytest.mark.timeout(240)

PAST_THE_SESSION_S = 6.0
Answer = tuple[int, dict[str, str], dict[str, Any]]


class Client:
    """Speaks to a stack's gateway with the demo key."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.run = secrets.token_hex(4)

    def post(self, path: str, key: str, body: dict[str, Any], wait: int | None = 10) -> Answer:
        headers = {"Idempotency-Key": f"{self.run}-{key}", "Content-Type": "application/json"}
        if wait is not None:
            headers["Prefer"] = f"wait={wait}"
        return self._ask("POST", path, headers, json.dumps(body).encode())

    def get(self, path: str) -> Answer:
        return self._ask("GET", path, {}, None)

    def account(self, key: str, kind: str = "customer", **more: Any) -> str:
        body = {"currency": "EUR", "kind": kind} | more
        status, _, account = self.post("/v1/accounts", key, body)
        assert status in {200, 201}, account
        return str(account["id"])

    def pay(
        self, key: str, source: str, destination: str, amount: int, wait: int | None = 10
    ) -> Answer:
        body = {
            "amount": amount,
            "currency": "EUR",
            "source": {"account": source},
            "destination": {"account": destination},
        }
        return self.post("/v1/payments", key, body, wait)

    def balances(self, account: str) -> dict[str, int]:
        balances: dict[str, int] = self.get(f"/v1/accounts/{account}")[2]["balances"]
        return balances

    def status(self, payment: str) -> str:
        return str(self.get(f"/v1/payments/{payment}")[2]["status"])

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Answer:
        request = urllib.request.Request(
            self._stack.url + path, data=body, headers=headers, method=method
        )
        request.add_header("Authorization", f"Bearer {self._stack.api_key}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, dict(answer.headers), json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), json.load(error)


@pytest.fixture
def client(stack: Stack) -> Client:
    return Client(stack)


def test_a_payment_settles_and_everybody_reads_it_at_once(client: Client) -> None:
    bank, ada, bob = client.account("bank", "external"), client.account("a"), client.account("b")
    assert client.pay("in", bank, ada, 2_500)[2]["status"] == "settled"
    assert client.balances(ada) == {"posted": 2_500, "held": 0, "available": 2_500}
    status, _, payment = client.pay("out", ada, bob, 700)
    assert (status, payment["status"]) == (201, "settled")
    assert [step["event"] for step in payment["timeline"]] == ["accepted", "settled"]
    assert client.balances(ada)["available"] == 1_800
    assert client.balances(bob)["available"] == 700
    assert client.balances(bank)["posted"] == -2_500


def test_the_same_request_again_is_the_same_payment_and_moves_nothing(client: Client) -> None:
    bank, ada = client.account("bank", "external"), client.account("a")
    first = client.pay("in", bank, ada, 100)[2]
    status, headers, again = client.pay("in", bank, ada, 100)
    assert status == 200
    assert headers["Idempotent-Replayed"] == "true"
    assert again["id"] == first["id"]
    assert client.balances(ada)["posted"] == 100


def test_the_same_key_with_another_body_executes_nothing(client: Client) -> None:
    bank, ada = client.account("bank", "external"), client.account("a")
    client.pay("in", bank, ada, 100)
    status, _, problem = client.pay("in", bank, ada, 101)
    assert (status, problem["code"]) == (422, "idempotency_key_reused")
    assert client.balances(ada)["posted"] == 100


def test_the_same_key_for_another_home_account_is_found_out_by_the_ledger(client: Client) -> None:
    bank = client.account("bank", "external")
    accounts = [client.account(f"a{n}") for n in range(8)]
    first = accounts[0]
    other = next(a for a in accounts if ids.slot_of(a) % 4 != ids.slot_of(first) % 4)
    assert client.pay("in", bank, first, 100)[2]["status"] == "settled"
    status, _, answer = client.pay("in", bank, other, 100)
    assert status == 422, answer
    assert answer["code"] == "idempotency_key_reused"
    assert client.balances(other)["posted"] == 0


def test_an_account_never_goes_below_zero(client: Client) -> None:
    bank, ada = client.account("bank", "external"), client.account("a")
    client.pay("in", bank, ada, 100)
    payment = client.pay("over", ada, bank, 101)[2]
    assert (payment["status"], payment["reason"]["code"]) == ("rejected", "insufficient_funds")
    assert client.balances(ada)["available"] == 100


def test_202_means_durable_and_the_outcome_follows(client: Client) -> None:
    bank, ada = client.account("bank", "external"), client.account("a")
    status, headers, payment = client.pay("in", bank, ada, 100, wait=None)
    assert (status, payment["status"]) == (202, "accepted")
    assert headers["Location"] == f"/v1/payments/{payment['id']}"
    assert wait_for(lambda: client.status(payment["id"]) == "settled", 20)


def test_kafka_gone_is_a_503_and_the_gateway_recovers_by_itself(
    stack: Stack, client: Client
) -> None:
    bank, ada = client.account("bank", "external"), client.account("a")
    with stack.held_down("kafka"):
        status, headers, problem = client.pay("in", bank, ada, 100, wait=None)
        assert (status, problem["status"]) == (503, 503), problem
        assert headers["Retry-After"]
        assert wait_for(lambda: client.get("/readyz")[0] == 503, 15)
    assert client.pay("in", bank, ada, 100)[2]["status"] == "settled"
    assert client.balances(ada)["posted"] == 100


def test_a_poisoned_request_is_dead_lettered_with_its_bytes_and_the_rest_goes_on(
    stack: Stack, client: Client
) -> None:
    bank, ada = client.account("bank", "external"), client.account("a")
    junk = b"\0\0\0\0\1" + secrets.token_bytes(20)
    partition = ids.partition_of(ids.slot_of(ada), 4)
    asyncio.run(_produce(stack.kafka, partition, junk))
    assert client.pay("in", bank, ada, 100)[2]["status"] == "settled"
    letters = asyncio.run(_read(stack.kafka, "payments.requests.dlq", partition))
    reasons = [headers["dlq.reason"] for value, headers in letters if value == junk]
    assert len(reasons) == 1
    assert reasons[0]


def _zombie(role: str) -> Callable[[Stack], None]:
    def strike(stack: Stack) -> None:
        pid = stack.pause(role)
        wait_for(lambda: False, PAST_THE_SESSION_S)
        assert stack.process(role)["pid"] == pid
        stack.resume(role)

    return strike


FAULTS: dict[str, Callable[[Stack], None]] = {
    "streams killed": lambda stack: stack.await_back("streams", stack.kill("streams")),
    "ledger killed": lambda stack: stack.await_back("ledger_writer", stack.kill("ledger_writer")),
    "disk of streams wiped": lambda stack: stack.wipe_state("streams"),
    "streams paused past its session": _zombie("streams"),
    "ledger paused past its session": _zombie("ledger_writer"),
    "kafka restarted": lambda stack: stack.restart("kafka"),
    "postgres restarted": lambda stack: stack.restart("postgres"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_in_mid_load_loses_and_doubles_nothing(stack: Stack, fault: str) -> None:
    setting = Setting(
        payments=1_200, rate=150, accounts=60, events=20, prefix=f"f{secrets.token_hex(4)}"
    )
    says: list[str] = []
    load = asyncio.create_task(Run(stack.home.root, setting, says.append).go())
    while not any(line.startswith("sending") for line in says):
        assert not load.done(), says
        await asyncio.sleep(0.05)
    await asyncio.to_thread(FAULTS[fault], stack)
    result = await load
    assert result.judged.surprises == []
    assert result.judged.in_flight == set()


async def test_after_all_faults_log_ledger_views_and_lake_agree(stack: Stack) -> None:
    _, verdicts = await verify(stacks.read(stack.home.root))
    assert [(verdict.name, verdict) for verdict in verdicts if not verdict.ok] == []


async def _produce(bootstrap: str, partition: int, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        await producer.send_and_wait("payments.requests", value, b"key", partition=partition)


async def _read(
    bootstrap: str, topic: str, partition: int
) -> list[tuple[bytes | None, dict[str, bytes]]]:
    """Read what is committed of a partition, up to its last stable offset."""
    tp = TopicPartition(topic, partition)
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
    ) as consumer:
        consumer.assign([tp])
        found: list[tuple[bytes | None, dict[str, bytes]]] = []
        while True:
            batches = await consumer.getmany(tp, timeout_ms=2_000)
            if not batches:
                return found
            found += [(record.value, dict(record.headers)) for record in batches[tp]]
