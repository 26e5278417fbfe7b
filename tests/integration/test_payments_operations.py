"""What clients do to payments, transfers and accounts later, through the whole stack.

Every outcome is read back from the service, and in the end verify finds no difference between log,
ledger, views and lake.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.local.child import wait_for
from loadtest import stack as stacks
from loadtest.verify.command import verify
from schemas import ids
from schemas.wire import decode
from tests.integration.test_payments_stack import Client

if TYPE_CHECKING:
    from tests.integration.conftest import Stack

pytestmark = pytest.mark.timeout(300)

VALID_S = 5
"""How long an authorization of a test is valid that is meant to expire."""

NEEDED = (
    "holds_add_up", "reversals_within_the_original", "flags_follow_commands",
    "dry_runs_leave_nothing", "operations_end_once", "answers_forwarded_once",
    "homes_agree", "links_follow_rows",
)  # fmt: skip

Body = dict[str, Any]


class Customer(Client):
    """A client that does more than pay."""

    def authorize(self, key: str, source: str, destination: str, amount: int, **more: Any) -> Body:
        body = {
            "amount": amount,
            "currency": "EUR",
            "source": {"account": source},
            "destination": {"account": destination},
            "capture": "manual",
        }
        return self.post("/v1/payments", key, body | more)[2]

    def on(self, payment: Body, what: str, key: str, **body: Any) -> tuple[int, Body]:
        status, _, answer = self.post(f"/v1/payments/{payment['id']}/{what}", key, body)
        return status, answer

    def flag(self, account: str, what: str, key: str, **body: Any) -> tuple[int, Body]:
        status, _, answer = self.post(f"/v1/accounts/{account}/{what}", key, body)
        return status, answer

    def move(self, key: str, *legs: tuple[str, str, int], **more: Any) -> tuple[int, Body]:
        status, _, answer = self.post("/v1/transfers", key, self.asked(*legs) | more)
        return status, answer

    @staticmethod
    def asked(*legs: tuple[str, str, int]) -> Body:
        named = [
            {"source": source, "destination": destination, "amount": amount, "currency": "EUR"}
            for source, destination, amount in legs
        ]
        return {"legs": named}

    def funded(self, amount: int) -> tuple[str, str]:
        """A bank, and an account with this much from it."""
        bank, account = self.account("bank", "external"), self.account("funded")
        assert self.pay("funds", bank, account, amount)[2]["status"] == "settled"
        return bank, account

    def elsewhere(self, account: str) -> str:
        """An account with its home on another partition."""
        made = (self.account(f"other{n}") for n in range(40))
        return next(a for a in made if ids.slot_of(a) % 4 != ids.slot_of(account) % 4)


@pytest.fixture
def client(stack: Stack) -> Customer:
    return Customer(stack)


def code(answer: Body) -> str:
    return str(answer["errors"][0]["code"])


def test_a_capture_in_parts_moves_its_amounts_and_releases_them_from_the_hold(
    client: Customer,
) -> None:
    _, ada = client.funded(1_000)
    bob = client.account("bob")
    payment = client.authorize("m", ada, bob, 500)
    assert payment["status"] == "authorized"
    assert client.balances(ada) == {"posted": 1_000, "held": 500, "available": 500}
    assert client.pay("over", ada, bob, 501)[2]["status"] == "rejected"
    for _ in range(2):  # the second is a repeat of the first
        assert client.on(payment, "capture", "c1", amount=200)[0] == 200
        assert client.balances(ada) == {"posted": 800, "held": 300, "available": 500}
    status, refused = client.on(payment, "capture", "c2", amount=301)
    assert (status, code(refused)) == (422, "amount_exceeds_hold")
    assert client.on(payment, "capture", "c3")[1]["status"] == "settled"
    assert client.balances(ada) == {"posted": 500, "held": 0, "available": 500}
    assert client.balances(bob)["posted"] == 500


def test_the_same_key_with_another_amount_captures_nothing(client: Customer) -> None:
    _, ada = client.funded(100)
    payment = client.authorize("m", ada, client.account("bob"), 100)
    assert client.on(payment, "capture", "c", amount=10)[0] == 200
    status, answer = client.on(payment, "capture", "c", amount=11)
    assert (status, answer["code"]) == (422, "idempotency_key_reused")
    assert client.balances(ada) == {"posted": 90, "held": 90, "available": 0}


def test_a_refund_by_a_payee_with_another_home_comes_back_and_never_exceeds(
    client: Customer,
) -> None:
    _, ada = client.funded(900)
    bob = client.elsewhere(ada)
    payment = client.pay("p", ada, bob, 700)[2]
    assert client.on(payment, "refunds", "r1", amount=300)[1]["status"] == "partially_refunded"
    assert client.balances(ada)["posted"] == 500
    status, refused = client.on(payment, "refunds", "r2", amount=401)
    assert (status, code(refused)) == (422, "amount_exceeds_original")
    assert client.on(payment, "refunds", "r3")[1]["status"] == "refunded"
    assert client.balances(ada)["posted"] == 900
    assert client.balances(bob)["posted"] == 0


def test_a_void_gives_back_what_is_left(client: Customer) -> None:
    _, ada = client.funded(300)
    payment = client.authorize("m", ada, client.account("bob"), 300)
    assert client.on(payment, "void", "v")[1]["status"] == "voided"
    assert client.balances(ada) == {"posted": 300, "held": 0, "available": 300}
    status, refused = client.on(payment, "capture", "late", amount=1)
    assert (status, code(refused)) == (422, "hold_closed")


def test_an_authorization_expires_by_the_log(client: Customer) -> None:
    _, ada = client.funded(50)
    payment = client.authorize("m", ada, client.account("bob"), 50, expires_in=VALID_S)
    assert client.balances(ada)["available"] == 0
    assert wait_for(lambda: client.status(payment["id"]) == "expired", VALID_S + 40)
    timeline = client.get(f"/v1/payments/{payment['id']}")[2]["timeline"]
    at = {step["event"]: datetime.fromisoformat(step["at"]) for step in timeline}
    assert (at["expired"] - at["accepted"]).total_seconds() >= VALID_S
    assert client.balances(ada) == {"posted": 50, "held": 0, "available": 50}


def test_a_frozen_account_gets_no_credit_from_another_partition(client: Customer) -> None:
    _, ada = client.funded(100)
    bob = client.elsewhere(ada)
    assert client.pay("p1", ada, bob, 10)[2]["status"] == "settled"
    assert client.flag(bob, "freeze", "f", credits=True)[1]["status"] == "frozen"
    payment = client.pay("p2", ada, bob, 10)[2]
    assert (payment["status"], payment["reason"]["code"]) == ("rejected", "account_frozen")
    assert client.flag(bob, "unfreeze", "u")[1]["status"] == "active"
    assert client.pay("p3", ada, bob, 10)[2]["status"] == "settled"
    assert client.balances(bob)["posted"] == 20


def test_only_an_empty_account_is_closed_and_then_for_good(client: Customer) -> None:
    bank, ada = client.funded(40)
    status, refused = client.flag(ada, "close", "early")
    assert (status, code(refused)) == (422, "account_not_empty")
    assert client.pay("back", ada, bank, 40)[2]["status"] == "settled"
    assert client.flag(ada, "close", "now")[1]["status"] == "closed"
    payment = client.pay("late", bank, ada, 1)[2]
    assert (payment["status"], payment["reason"]["code"]) == ("rejected", "account_closed")


def test_the_legs_of_a_transfer_move_together_or_not_at_all(client: Customer) -> None:
    bank, ada = client.funded(100)
    bob = client.account("bob")
    assert client.move("t1", (ada, bob, 30), (ada, bank, 70))[0] == 201
    assert (client.balances(ada)["posted"], client.balances(bob)["posted"]) == (0, 30)
    status, refused = client.move("t2", (bank, ada, 5), (ada, bob, 6))
    assert (status, code(refused)) == (422, "insufficient_funds")
    assert refused["errors"][0]["pointer"] == "/legs/1"
    assert (client.balances(ada)["posted"], client.balances(bob)["posted"]) == (0, 30)


def test_a_dry_run_moves_nothing_and_leaves_its_key_to_the_transfer(client: Customer) -> None:
    _, ada = client.funded(100)
    bob = client.account("bob")
    for _ in range(2):
        status, tried = client.move("t1", (ada, bob, 60), dry_run=True)
        assert (status, tried["status"], tried["entries"]) == (200, "allowed", [])
    assert client.balances(ada)["posted"] == 100
    status, made = client.move("t1", (ada, bob, 60))
    assert (status, made["status"]) == (201, "posted")
    status, tried = client.move("t1", (ada, bob, 60), dry_run=True)
    assert (status, code(tried)) == (422, "insufficient_funds"), "decided anew"


def test_a_used_key_is_refused_from_any_home_though_it_was_rejected(client: Customer) -> None:
    bank, ada = client.funded(100)
    bob = client.elsewhere(ada)
    assert client.pay("in", bank, bob, 100)[2]["status"] == "settled"
    assert client.pay("k1", ada, bob, 1)[2]["status"] == "settled"
    assert client.pay("k2", ada, bob, 999)[2]["status"] == "rejected"
    assert client.move("k3", (ada, bob, 999))[0] == 422
    for status, answer in (
        client.pay("k1", bob, ada, 1)[::2],
        client.pay("k2", bob, ada, 1)[::2],
        client.move("k3", (bob, ada, 1)),
    ):
        assert (status, answer["code"]) == (422, "idempotency_key_reused")
    assert client.balances(bob)["posted"] == 101


def test_transfers_are_found_by_what_was_said_of_them(client: Customer) -> None:
    bank, ada = client.funded(100)
    bob, said = client.account("bob"), {"metadata": {"order n": f"{client.run}=7"}}
    first = client.move("t1", (ada, bob, 1), reference=client.run, **said)[1]["id"]
    second = client.move("t2", (bank, ada, 1), (ada, bob, 1), **said)[1]["id"]
    order = f"metadata.order%20n={client.run}%3D7"

    def found(query: str) -> list[str]:
        return [one["id"] for one in client.get(f"/v1/transfers?{query}")[2]["data"]]

    for query, wanted in (
        (f"reference={client.run}", [first]), (order, [second, first]),
        (f"{order}&account={bank}", [second]), (f"account={bob}", [second, first]),
        (f"{order}&limit=1", [second]), (f"reference={client.run}&account={bank}", []),
    ):  # fmt: skip
        assert wait_for(partial(lambda q, w: found(q) == w, query, wanted), 20), (query, wanted)


def test_what_is_held_adds_up_and_is_listed_until_it_ends(client: Customer) -> None:
    _, ada = client.funded(1_000)
    bob = client.elsewhere(ada)
    held = [client.authorize(f"m{n}", ada, bob, 100 + n) for n in range(3)]
    assert client.on(held[0], "capture", "c1", amount=30)[0] == 200
    assert client.on(held[0], "capture", "c2", amount=20)[0] == 200
    assert client.on(held[1], "void", "v")[0] == 200

    def listed() -> list[tuple[str, int, int]]:
        shown = client.get(f"/v1/accounts/{ada}/holds")[2]["data"]
        return [(one["payment"], one["captured"], one["remaining"]) for one in shown]

    wanted = [(held[2]["id"], 0, 102), (held[0]["id"], 50, 50)]
    assert wait_for(lambda: listed() == wanted, 20), listed()
    assert client.balances(ada) == {"posted": 950, "held": 152, "available": 798}


def test_a_freeze_is_answered_with_the_balances_and_no_later_credit_lands(
    client: Customer,
) -> None:
    """Customers of other partitions pay all the while; a credit that was decided first may land."""
    bank, ada = client.funded(10_000)
    bob = client.elsewhere(ada)
    assert client.pay("own", bank, bob, 500)[2]["status"] == "settled"
    answered, over, late = threading.Event(), threading.Event(), list[str]()

    def pay(worker: int) -> None:
        number = 0
        while not over.is_set():
            number, after = number + 1, answered.is_set()
            payment = client.pay(f"w{worker}-{number}", ada, bob, 1)[2]
            if after:
                late.append(payment["status"])

    with ThreadPoolExecutor(6) as workers:
        running = [workers.submit(pay, worker) for worker in range(6)]
        try:
            assert wait_for(lambda: client.balances(bob)["posted"] > 520, 20)
            status, frozen = client.flag(bob, "freeze", "f", credits=True)
            answered.set()
            assert (status, frozen["status"]) == (200, "frozen")
            assert frozen["balances"]["posted"] > 520
            assert wait_for(lambda: len(late) >= 10, 20)
        finally:
            over.set()
        for work in running:
            work.result()
    assert set(late) == {"rejected"}
    rest = client.balances(ada)["posted"]
    assert wait_for(lambda: client.balances(bob)["posted"] == 500 + 10_000 - rest, 20)


def test_reversals_at_once_never_pay_back_more_than_was_moved(client: Customer) -> None:
    _, ada = client.funded(100)
    bob = client.elsewhere(ada)
    transfer = client.move("t", (ada, bob, 100))[1]

    def back(number: int) -> int:
        path = f"/v1/transfers/{transfer['id']}/reversals"
        return client.post(path, f"r{number}", {"amount": 30})[0]

    with ThreadPoolExecutor(8) as workers:
        statuses = sorted(workers.map(back, range(8)))
    assert statuses == [201] * 3 + [422] * 5
    assert wait_for(lambda: client.balances(ada)["posted"] == 90, 20)
    path = f"/v1/transfers/{transfer['id']}"
    assert wait_for(lambda: client.get(path)[2]["reversed_amount"] == 90, 20)


def test_reversals_of_a_transfer_never_exceed_it_in_sum(client: Customer) -> None:
    _, ada = client.funded(100)
    bob = client.elsewhere(ada)
    transfer = client.move("t", (ada, bob, 60))[1]
    path = f"/v1/transfers/{transfer['id']}/reversals"
    assert client.post(path, "r1", {"amount": 20})[0] == 201
    status, _, refused = client.post(path, "r2", {"amount": 41})
    assert (status, code(refused)) == (422, "amount_exceeds_original")
    assert client.post(path, "r3", {"amount": 40})[0] == 201
    status, _, refused = client.post(path, "r4", {"amount": 1})
    assert status == 422, refused
    assert (client.balances(ada)["posted"], client.balances(bob)["posted"]) == (100, 0)


def test_a_leg_is_paid_back_by_itself_and_never_more_than_it_moved(client: Customer) -> None:
    bank, ada = client.funded(100)
    bob = client.elsewhere(ada)
    transfer = client.move("t", (ada, bob, 60), (ada, bank, 40))[1]
    path = f"/v1/transfers/{transfer['id']}/reversals"
    for key, body, wanted in (
        ("r1", {"leg": 0, "amount": 20, "reference": client.run}, None),
        ("r2", {"leg": 0, "amount": 41}, "amount_exceeds_original"),
        ("r3", {"leg": 2}, "out_of_range"),
        ("r4", {"amount": 1}, "original_leg_required"),
        ("r5", {}, None),
        ("r6", {"leg": 0, "amount": 1}, "already_reversed"),
        ("r7", {"leg": 1}, "already_reversed"),
        ("r8", {}, "already_reversed"),
    ):
        status, _, answer = client.post(path, key, body)
        assert (status, code(answer) if status == 422 else None) == (422 if wanted else 201, wanted)
    assert (client.balances(ada)["posted"], client.balances(bob)["posted"]) == (100, 0)

    def found() -> list[tuple[str, int]]:
        back = client.get(f"/v1/transfers?reference={client.run}")[2]["data"]
        return [(one["reverses"], one["legs"][0]["amount"]) for one in back]

    assert wait_for(lambda: found() == [(transfer["id"], 20)], 20), found()


def test_legs_to_payees_of_several_homes_are_paid_back_together_or_not_at_all(
    client: Customer,
) -> None:
    _, ada = client.funded(100)
    bob = client.elsewhere(ada)
    carl = client.elsewhere(bob)
    transfer = client.move("t", (ada, bob, 60), (ada, carl, 40))[1]
    shown = f"/v1/transfers/{transfer['id']}"
    path = f"{shown}/reversals"
    assert client.post(path, "part", {"leg": 1, "amount": 5})[0] == 201
    assert client.move("spent", (carl, ada, 1))[0] == 201
    status, _, refused = client.post(path, "short", {})
    assert (status, code(refused)) == (422, "insufficient_funds")
    assert refused["errors"][0]["pointer"].startswith("/legs/1")
    standing = [client.balances(account) for account in (ada, bob, carl)]
    assert [(each["posted"], each["held"]) for each in standing] == [(6, 0), (60, 0), (34, 0)]
    assert client.move("back again", (ada, carl, 1))[0] == 201
    status, _, back = client.post(path, "whole", {"reference": client.run})
    assert (status, back["status"], back["reverses"]) == (201, "posted", transfer["id"]), back
    legs = [(leg["source"], leg["destination"], leg["amount"]) for leg in back["legs"]]
    assert legs == [(carl, ada, 35), (bob, ada, 60)]
    again = client.post(path, "whole", {"reference": client.run})
    assert (again[0], again[2]["id"], again[2]["legs"]) == (200, back["id"], back["legs"])
    assert [client.balances(account)["posted"] for account in (ada, bob, carl)] == [100, 0, 0]
    assert code(client.post(path, "more", {})[2]) == "already_reversed"
    assert wait_for(lambda: client.get(shown)[2]["reversed_amount"] == 100, 20)
    got = client.get(f"/v1/transfers/{back['id']}")[2]
    found = [got[name] for name in ("status", "reverses", "legs", "reference")]
    assert found == ["posted", transfer["id"], back["legs"], client.run]


def test_what_a_capped_payer_elsewhere_has_paid_comes_back_as_far_as_there_is_room(
    client: Customer,
) -> None:
    bank, ada = client.account("bank", "external"), client.account("a", limits={"max_balance": 100})
    bob = client.elsewhere(ada)
    assert client.pay("funds", bank, ada, 100)[2]["status"] == "settled"
    paid = client.pay("p", ada, bob, 60)[2]
    assert paid["status"] == "settled"
    assert client.pay("fill", bank, ada, 50)[2]["status"] == "settled"
    path = f"/v1/payments/{paid['id']}/refunds"
    status, _, refused = client.post(path, "all", {})
    assert (status, code(refused)) == (422, "balance_limit_exceeded"), refused
    status, _, after = client.post(path, "some", {"amount": 10})
    assert (status, after["status"]) == (200, "partially_refunded"), after
    assert [client.balances(a)["posted"] for a in (ada, bob)] == [100, 50]


def test_a_transfer_debits_accounts_of_several_homes_together_or_not_at_all(
    client: Customer,
) -> None:
    bank, ada = client.funded(100)
    bob = client.elsewhere(ada)
    assert client.pay("bob", bank, bob, 100)[2]["status"] == "settled"
    carl = client.account("carl")
    status, transfer = client.move("t1", (ada, carl, 60), (bob, carl, 70), reference="both")
    assert (status, transfer["status"]) == (201, "posted"), transfer
    assert len(transfer["entries"]) == 4
    found = [client.balances(account) for account in (ada, bob, carl)]
    assert [(each["posted"], each["held"]) for each in found] == [(40, 0), (30, 0), (130, 0)]
    got = client.get(f"/v1/transfers/{transfer['id']}")[2]
    legs = [(leg["source"], leg["amount"]) for leg in got["legs"]]
    wanted = ("posted", "both", [(ada, 60), (bob, 70)])
    assert (got["status"], got["reference"], legs) == wanted, "whole at once"

    def listed(query: str) -> list[str]:
        return [one["id"] for one in client.get(f"/v1/transfers?{query}")[2]["data"]]

    for query in (f"account={carl}", f"account={bob}", f"reference=both&account={carl}"):
        assert wait_for(partial(lambda q: listed(q) == [transfer["id"]], query), 20), query
    assert client.move("t1", (ada, carl, 60), (bob, carl, 70), reference="both")[0] == 200
    status, refused = client.move("t2", (ada, carl, 40), (bob, carl, 31))
    assert (status, code(refused)) == (422, "insufficient_funds")
    assert refused["errors"][0]["pointer"].startswith("/legs/1")
    found = [client.balances(account) for account in (ada, bob, carl)]
    standing = [(each["posted"], each["held"]) for each in found]
    assert standing == [(40, 0), (30, 0), (130, 0)], "given back at once"
    status, tried = client.move("t3", (ada, carl, 40), (bob, carl, 30), dry_run=True)
    assert (status, tried["status"], tried["entries"]) == (200, "allowed", [])
    status, refused = client.move("t3", (ada, carl, 40), (bob, carl, 31), dry_run=True)
    assert (status, code(refused)) == (422, "insufficient_funds")
    path = f"/v1/transfers/{transfer['id']}/reversals"
    status, _, back = client.post(path, "back", {})
    assert (status, back["status"]) == (201, "posted"), back
    assert [client.balances(account)["posted"] for account in (ada, bob, carl)] == [100, 100, 0]


def test_of_two_opposite_transfers_with_money_for_one_at_most_one_is_posted(
    client: Customer,
) -> None:
    """Each may hold what the other needs; then both are refused and all is given back."""
    bank, ada = client.funded(100)
    bob = client.elsewhere(ada)
    assert client.pay("bob", bank, bob, 100)[2]["status"] == "settled"
    carl = client.account("carl")
    ways = {
        "one": ((ada, carl, 60), (bob, carl, 60)),
        "two": ((bob, carl, 60), (ada, carl, 60)),
    }
    with ThreadPoolExecutor(len(ways)) as pool:
        answers = list(pool.map(lambda key: client.move(key, *ways[key]), ways))
    posted = sum(status == 201 for status, _ in answers)
    assert posted <= 1
    assert {code(answer) for status, answer in answers if status != 201} == {"insufficient_funds"}
    left = 100 - 60 * posted

    def found() -> list[tuple[int, int]]:
        shown = [client.balances(account) for account in (ada, bob, carl)]
        return [(each["posted"], each["held"]) for each in shown]

    wanted = [(left, 0), (left, 0), (120 * posted, 0)]
    assert wait_for(lambda: found() == wanted, 20), found()


def test_a_payee_with_a_cap_is_filled_from_everywhere_and_never_beyond(client: Customer) -> None:
    bank, first = client.funded(100)
    payers = [first, *(client.account(f"payer{n}") for n in range(7))]
    for n, payer in enumerate(payers[1:]):
        assert client.pay(f"fund{n}", bank, payer, 100)[2]["status"] == "settled"
    assert len({ids.slot_of(payer) % 4 for payer in payers}) > 1
    capped = client.account("capped", limits={"max_balance": 250})
    with ThreadPoolExecutor(len(payers)) as pool:
        paid = list(pool.map(lambda p: client.pay(f"fill-{p}", p, capped, 100)[2], payers))
    ends = Counter(payment["status"] for payment in paid)
    assert ends == {"settled": 2, "rejected": 6}
    reasons = {p["reason"]["code"] for p in paid if p["status"] == "rejected"}
    assert reasons == {"balance_limit_exceeded"}
    assert client.balances(capped)["posted"] == 200

    def rest() -> tuple[int, int]:
        shown = [client.balances(payer) for payer in payers]
        return sum(each["posted"] for each in shown), sum(each["held"] for each in shown)

    assert wait_for(lambda: rest() == (600, 0), 20), rest()
    [settled, _] = [p for p in paid if p["status"] == "settled"]
    assert client.on(settled, "refunds", "back")[1]["status"] == "refunded"
    assert client.balances(capped)["posted"] == 100


async def turn(stack: Stack, role: str, log: AIOKafkaConsumer, awaited: tuple[str, str]) -> None:
    """Let one process work, while the others stand still, until it has written this of a saga."""
    stack.resume(role)
    async with asyncio.timeout(20):
        while True:
            found = await log.getmany(timeout_ms=100)
            records = [
                decode(at.topic, each.value) for at, batch in found.items() for each in batch
            ]
            if awaited in {(each["type"], each["saga_id"]) for each in records}:
                break
    stack.pause(role)


@pytest.mark.parametrize("kind", ["post", "reverse"])
async def test_streams_killed_when_all_homes_have_agreed_has_all_of_them_commit(
    stack: Stack, client: Customer, kind: str
) -> None:
    bank, ada = client.funded(100)
    bob = client.elsewhere(ada)
    carl = client.elsewhere(bob)
    path, asked = "/v1/transfers", client.asked((ada, carl, 60), (bob, carl, 70))
    wanted = [(40, 0), (30, 0), (130, 0)]
    if kind == "post":
        assert client.pay("bob", bank, bob, 100)[2]["status"] == "settled"
    else:
        paid = client.move("paid", (ada, bob, 60), (ada, carl, 40))[1]
        path, asked, wanted = f"{path}/{paid['id']}/reversals", {}, [(100, 0), (0, 0), (0, 0)]
    partitions = [TopicPartition(topic, n) for topic in TURNS for n in range(4)]
    async with AIOKafkaConsumer(
        bootstrap_servers=stack.kafka, isolation_level="read_committed", enable_auto_commit=False
    ) as log:
        log.assign(partitions)
        await log.seek_to_end(*partitions)
        stack.pause("ledger_writer")
        try:
            status, _, made = client.post(path, "t", asked, wait=0)
            assert (status, made["status"]) == (202, "accepted")
            for role, written in (
                ("streams", f"transfer.{kind}"), ("ledger_writer", "transfer.prepared"),
                ("streams", "transfer.prepare"), ("ledger_writer", "transfer.prepared"),
            ):  # fmt: skip
                await turn(stack, role, log, (written, made["id"]))
            killed = stack.kill("streams")
        finally:
            stack.resume("ledger_writer")
    stack.await_back("streams", killed)

    def found() -> list[tuple[int, int]]:
        shown = [client.balances(account) for account in (ada, bob, carl)]
        return [(each["posted"], each["held"]) for each in shown]

    assert wait_for(lambda: found() == wanted, 20), found()
    assert wait_for(lambda: client.get(f"/v1/transfers/{made['id']}")[0] == 200, 20)
    ledger = await asyncpg.connect(stack.dsn("ledger_reader"))
    try:
        steps = await ledger.fetch(STEPS, made["id"])
    finally:
        await ledger.close()
    own = f"-{ids.identity_of(made['id'])}"
    assert sorted((row["step"].removesuffix(own), row["type"]) for row in steps) == sorted([
        ("commit-0", "transfer.committed"), ("commit-1", "transfer.committed"),
        (kind, "transfer.prepared"), ("prepare-1", "transfer.prepared"),
    ])  # fmt: skip


TURNS = ("ledger.commands", "ledger.events")
STEPS = "select step, type from ledger.outcomes where saga_id = $1"


async def test_after_all_operations_log_ledger_views_and_lake_agree(stack: Stack) -> None:
    evidence, verdicts = await verify(stacks.read(stack.home.root))
    assert evidence.unsettled == []
    assert [verdict for verdict in verdicts if not verdict.ok] == []
    counted = {verdict.name: verdict.count for verdict in verdicts}
    for name in NEEDED:
        assert counted[name] > 0, f"{name} had nothing to look at"
