"""The gateway's ports: the same contract holds for the fake in memory and for the real thing."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace

import asyncpg
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from gateways.kafka.link import KafkaLink
from gateways.kafka.memory import MemoryLink
from gateways.kafka.outbox import Event, Outbox
from gateways.kafka.reply import EntryTold
from gateways.payments import cursors, present, present_transfers, times
from gateways.payments.cursors import PaymentQuery
from gateways.payments.entry_queries import BalanceQuery, EntryQuery
from gateways.payments.hold_queries import HoldQuery
from gateways.payments.lists import Place
from gateways.payments.memory import MemoryViews
from gateways.payments.payment_reads import ShownAccount, ShownPayment
from gateways.payments.present_entries import statement
from gateways.payments.transfer_queries import TransferQuery
from gateways.payments.views import PostgresViews
from gateways.problems import Down
from schemas import ids, tags
from schemas.topics import MESSAGE_BYTES_MAX
from streams.views import statements
from streams.views.migrate import migrate
from tests.contract.test_http_search import held, kept
from tests.contract.test_http_statements import expected as whole
from tests.contract.test_http_statements import history
from tests.unit.gateway_rig import ALICE, BANK, BOB, TENANT, is_stopped, until

# The link to the broker.


class MemoryBroker:
    """A link, and what was written through it."""

    def __init__(self):
        self.link = MemoryLink()
        self.topic = "t"

    async def read(self, partition):
        events = self.link.log.get((self.topic, partition), [])
        return [(e.key, e.value, tuple(e.headers), e.at_ms) for e in events]

    async def stop(self):
        pass


class KafkaBroker:
    """The same on real Kafka."""

    def __init__(self, bootstrap, topic):
        self.bootstrap, self.topic = bootstrap, topic
        self.link = KafkaLink(bootstrap, "test", [topic], 4)
        self.task = asyncio.create_task(self.link.run())

    async def read(self, partition):
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        await consumer.start()
        try:
            place = TopicPartition(self.topic, partition)
            consumer.assign([place])
            end = (await consumer.end_offsets([place]))[place]
            found = []
            while await consumer.position(place) < end:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += [(r.key, r.value, tuple(r.headers), r.timestamp) for r in records]
            return found
        finally:
            await consumer.stop()

    async def stop(self):
        self.task.cancel()
        await asyncio.wait([self.task])


def _topic(request):
    config = {"max.message.bytes": str(MESSAGE_BYTES_MAX)}
    return request.getfixturevalue("new_topic")("link", config=config)


@pytest.fixture(params=["memory", "kafka"])
async def broker(request):
    if request.param == "memory":
        made = MemoryBroker()
    else:
        kafka = request.getfixturevalue("kafka")
        made = KafkaBroker(kafka.bootstrap, _topic(request))
    await until(made.link.up, within_s=20)
    yield made
    await made.stop()


def event(topic, value, said, partition=0, at_ms=1_700_000_000_000):
    headers = (("traceparent", b"00-aa-bb-01"),)
    return Event(topic, partition, b"key", value, headers, at_ms, said.append)


async def test_what_was_acknowledged_can_be_read_in_order(broker):
    said, outbox = [], Outbox(broker.link)
    for n in range(500):
        outbox.offer(event(broker.topic, b"%d" % n, said))
        if n % 50 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(said) == 500, within_s=20)
    assert set(said) == {None}
    read = await broker.read(0)
    headers = (("traceparent", b"00-aa-bb-01"),)
    assert read == [(b"key", b"%d" % n, headers, 1_700_000_000_000) for n in range(500)]
    assert outbox.records == 0


async def test_each_partition_gets_its_own(broker):
    said, outbox = [], Outbox(broker.link)
    for n in range(8):
        outbox.offer(event(broker.topic, b"%d" % n, said, partition=n % 4))
    await until(lambda: len(said) == 8, within_s=20)
    for partition in range(4):
        values = [value for _, value, _, _ in await broker.read(partition)]
        assert values == [b"%d" % partition, b"%d" % (partition + 4)]


async def test_the_largest_delivery_fits(broker):
    said, outbox = [], Outbox(broker.link)
    outbox.offer(event(broker.topic, b"x" * 1_200_000, said))
    outbox.offer(event(broker.topic, b"small", said))
    await until(lambda: len(said) == 2, within_s=20)
    assert said == [None, None]
    assert [len(value) for _, value, _, _ in await broker.read(0)] == [1_200_000, 5]


@pytest.fixture
async def real(kafka, new_topic):
    made = KafkaBroker(kafka.bootstrap, new_topic("link"))
    await until(made.link.up, within_s=20)
    yield made
    await made.stop()


async def test_a_batch_that_fails_for_good_costs_the_producer_and_nothing_after_it(real):
    said, outbox, first = [], Outbox(real.link), real.link.generation
    outbox.offer(event(real.topic, b"x" * 1_200_000, said))  # above the broker's own bound
    await until(lambda: said, within_s=20)
    assert isinstance(said[0], Down)
    for n in range(20):
        outbox.offer(event(real.topic, b"%d" % n, said))
        await asyncio.sleep(0.05)
    await until(lambda: len(said) == 21, within_s=20)
    assert said[1:] == [None] * 20
    assert real.link.generation == first + 1
    assert len(await real.read(0)) == 20


async def test_a_producer_without_answer_for_too_long_is_replaced(real, kafka, monkeypatch):
    monkeypatch.setattr("gateways.kafka.link.STUCK_S", 0.5)
    said, outbox, first = [], Outbox(real.link), real.link.generation
    kafka.pause()
    try:
        await until(lambda: is_stopped(kafka.pid))
        outbox.offer(event(real.topic, b"a", said))
        await until(lambda: said, within_s=20)
        assert isinstance(said[0], Down)
        await until(lambda: not real.link.up(), within_s=20)
    finally:
        kafka.resume()
    await until(real.link.up, within_s=20)
    assert real.link.generation > first
    outbox.offer(event(real.topic, b"b", said))
    await until(lambda: len(said) == 2, within_s=20)
    assert said[1] is None


async def test_a_missing_topic_is_not_up_and_says_so(kafka):
    link = KafkaLink(kafka.bootstrap, "test", ["no-such-topic"], 4)
    task = asyncio.create_task(link.run())
    await until(lambda: link.trouble and "no-such-topic has 0 partitions" in link.trouble, 20)
    assert not link.up()
    task.cancel()
    await asyncio.wait([task])


# The read model.


class MemoryStore:
    """Views in memory, and how a test fills them."""

    def __init__(self):
        self.views = MemoryViews()

    async def payment(self, tenant, shown):
        self.views.show_payment(tenant, shown)

    async def transfer(self, tenant, shown):
        self.views.show_transfer(tenant, shown)

    async def entries(self, account, rows):
        self.views.show_entries(account, rows)

    async def account(self, tenant, shown, shares):
        self.views.show_account(tenant, replace(shown, shares={s: v for s, v, _, _ in shares}))

    async def hold(self, account, shown):
        self.views.show_hold(account, shown)

    async def stop(self):
        pass


class PostgresStore:
    """The same in the tables that streams.views owns."""

    def __init__(self, dsns):
        self.views = PostgresViews(dsns["views_reader"], 2, "test")
        self.owner = dsns["views_owner"]

    async def run(self, statement, *rows):
        connection = await asyncpg.connect(self.owner)
        try:
            await connection.executemany(statement, [row for row in rows if row])
        finally:
            await connection.close()

    async def payment(self, tenant, shown):
        p, reason = shown.payment, shown.payment.reason
        at_us = shown.place.at_us
        await self.run(
            "insert into payments values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,"
            " $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)",
            (p.id, tenant, p.idempotency_key, ids.identity_of(p.id), p.status, shown.version,
             reason and reason.code, reason and reason.detail, p.amount, p.currency,
             p.source.account, p.destination.account, p.method, p.capture, p.description,
             p.reference, json.dumps(p.metadata), "req_1", at_us, at_us, p.authorized_amount,
             p.captured_amount, p.refunded_amount, p.expires_at and times.parse(p.expires_at)),
        )  # fmt: skip
        await self.tag(tenant, at_us, p.id, tags.of("payment", p.reference, p.metadata))
        await self.run(
            "insert into payment_timeline values ($1, $2, $3, $4, $5, $6, $7)",
            *(
                (p.id, n, at_us, step.event, step.reason and step.reason.code,
                 step.reason and step.reason.detail, f"e-{p.id}-{n}")
                for n, step in enumerate(p.timeline, 1)
            ),
        )  # fmt: skip

    async def account(self, tenant, shown, shares):
        a = shown.account
        await self.run(
            "insert into accounts values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 1,"
            " $13)",
            (a.id, tenant, a.kind, a.currency, a.name, a.status, a.limits.min_balance,
             a.limits.max_balance, json.dumps(a.metadata), AT_US, a.frozen.debits,
             a.frozen.credits, shown.changed_at_us),
        )  # fmt: skip
        await self.run(
            "insert into account_shares values ($1, $2, $3, $4, $5, 0)",
            *((a.id, *share) for share in shares),
        )

    async def transfer(self, tenant, shown):
        t, reason = shown, shown.reason
        sides = [
            {"account_id": e.account, "share": e.share, "version": e.version,
             "currency": e.currency,
             "amount_minor": e.amount, "posted_minor": e.posted, "held_minor": e.held}
            for e in t.entries
        ]  # fmt: skip
        found = tags.of("transfer", t.reference, t.metadata)
        found |= {tags.account("transfer", e.account) for e in t.entries}
        await self.tag(tenant, times.parse(t.booked_at), t.id, found)
        back = sum(e.amount for e in t.entries if e.amount > 0) if t.reverses else None
        await self.run(
            "insert into transfers values ($1, $2, $3, $4, $5, $6, $7, null, $8, $9, $10, $11, $12,"
            " 1)",
            (t.id, tenant, t.status, t.reverses, back, reason and reason.code,
             reason and reason.detail, t.reference, json.dumps(t.metadata), json.dumps(sides),
             times.parse(t.booked_at), times.parse(t.effective_at)),
        )  # fmt: skip

    async def hold(self, account, shown):
        hold, place = shown.hold, shown.place
        await self.run(
            "insert into holds values ($1, $2, $3, $1, $4, $5, $6, 'open', $7, $8, $7, 1)",
            (hold.payment, TENANT, account, hold.currency, hold.amount, hold.remaining,
             place.at_us, times.parse(hold.expires_at)),
        )  # fmt: skip

    async def tag(self, tenant, at_us, named, found):
        await self.run(
            "insert into search_tags values ($1, $2, $3, $4)",
            *((tenant, tag, at_us, named) for tag in found),
        )

    async def entries(self, account, rows):
        newest = {r.place.share: r for r in sorted(rows, key=lambda r: r.place)}
        await self.run(
            "insert into account_shares values ($1, $2, $3, $4, $5, 0)",
            *((account, share, r.place.version, r.after.posted_minor, r.after.held_minor)
              for share, r in newest.items()),
        )  # fmt: skip
        written = [
            (account, r.place.share, r.place.version, r.amount_minor, r.after.posted_minor,
             r.after.held_minor, r.currency, r.transfer_id, r.place.booked_at_us,
             r.effective_at_us, 1, r.event) for r in rows
        ]  # fmt: skip
        plain = [row for row in written if row[8] == row[9]]
        shifted = [row for row in written if row[8] != row[9]]
        await self.run(statements.ENTRIES, statements.columns(plain))
        for n in range(0, len(shifted), 3):  # in several batches, one of them twice
            await self.run(statements.SHIFTED, statements.columns(shifted[n : n + 3]))
        await self.run(statements.SHIFTED, statements.columns(shifted[:2]))

    async def stop(self):
        await self.views.close(1.0)


@pytest.fixture(params=["memory", "postgres"])
async def store(request):
    if request.param == "memory":
        made = MemoryStore()
    else:
        dsns = request.getfixturevalue("new_database")("views")
        await migrate(dsns["views_owner"])
        made = PostgresStore(dsns)
    yield made
    await made.stop()


AT_US = 1_800_000_000_000_000


def shown(key, at_us=AT_US, source=ALICE, destination=BOB, **changes):
    home = ids.home_account(source, destination)
    record = {
        "resource_id": ids.payment_id(TENANT, key, home),
        "idempotency_key": key,
        "received_at_us": at_us,
        "amount_minor": 5,
        "currency": "EUR",
        "source_account": source,
        "destination_account": destination,
        "capture": "automatic",
        "description": None,
        "reference": None,
        "metadata": {"a": "ü"},
    }
    view = msgspec.structs.replace(present.payment(record, None), **changes)
    return ShownPayment(view, 3, Place(at_us, record["resource_id"]))


async def test_a_payment_comes_back_with_its_timeline(store):
    stamp, reason = times.timestamp(AT_US), present.Reason("insufficient_funds", "3 short")
    timeline = [
        present.TimelineStep(stamp, "accepted"),
        present.TimelineStep(stamp, "rejected", reason),
    ]
    kept = shown("k", status="rejected", reason=reason, timeline=timeline)
    await store.payment(TENANT, kept)
    assert await store.views.payment(TENANT, kept.payment.id) == kept


async def test_other_tenants_see_none_of_it(store):
    kept = shown("k")
    await store.payment(TENANT, kept)
    assert await store.views.payment("other", kept.payment.id) is None
    assert await store.views.payments(PaymentQuery("other")) == []


async def test_an_account_is_the_sum_of_its_shares(store):
    record = {
        "resource_id": ALICE, "currency": "EUR", "account_kind": "customer", "account_name": "Ada",
        "min_balance_minor": -5, "received_at_us": AT_US, "metadata": {"a": "b"},
    }  # fmt: skip
    view = msgspec.structs.replace(
        present.account(record, None),
        status="active",
        balances=present.Balances(110, 30, 80),
        version=9,
    )
    await store.account(TENANT, ShownAccount(view, {}), [(0, 7, 100, 30), (3, 2, 10, 0)])
    got = await store.views.account(TENANT, ALICE)
    assert got == ShownAccount(view, {0: 7, 3: 2})
    assert await store.views.account("other", ALICE) is None
    assert await store.views.account(TENANT, BOB) is None


async def test_an_account_without_entries_has_nothing(store):
    record = {"resource_id": BANK, "currency": "EUR", "account_kind": "external",
              "received_at_us": AT_US, "metadata": {}}  # fmt: skip
    view = present.account(record, None)
    await store.account(TENANT, ShownAccount(view, {}), [])
    assert await store.views.account(TENANT, BANK) == ShownAccount(view, {})


async def test_an_account_shows_which_side_is_frozen(store):
    record = {"resource_id": BANK, "currency": "EUR", "account_kind": "external",
              "received_at_us": AT_US, "metadata": {}}  # fmt: skip
    view = msgspec.structs.replace(
        present.account(record, None), status="frozen", frozen=present.Frozen(credits=True)
    )
    await store.account(TENANT, ShownAccount(view, {}, AT_US), [])
    got = await store.views.account(TENANT, BANK)
    assert (got.account.frozen, got.changed_at_us) == (present.Frozen(credits=True), AT_US)


async def test_a_payment_comes_back_with_what_was_held_settled_and_refunded(store):
    kept = shown("k", authorized_amount=5, captured_amount=4, refunded_amount=3,
                 expires_at=times.timestamp(AT_US))  # fmt: skip
    await store.payment(TENANT, kept)
    assert await store.views.payment(TENANT, kept.payment.id) == kept


async def test_a_transfer_comes_back_with_its_entries_and_what_was_paid_back(store):
    sides = [EntryTold(ALICE, 1, 4, -5, "EUR", 95, 2), EntryTold(BOB, 1, 2, 5, "EUR", 5, 0)]
    transfer_id, back_id = (ids.transfer_id(TENANT, key, ALICE) for key in ("t", "r"))
    record = {"resource_id": transfer_id, "reference": "r", "metadata": {"a": "ü"}}
    kept = msgspec.structs.replace(
        present_transfers.transfer(record, None),
        status="posted",
        legs=present_transfers.legs_of(sides),
        entries=[present_transfers.entry(side) for side in sides],
        booked_at=times.timestamp(AT_US),
        effective_at=times.timestamp(AT_US - 5),
    )
    await store.transfer(TENANT, kept)
    assert await store.views.transfer(TENANT, transfer_id) == kept
    assert await store.views.transfer("other", transfer_id) is None
    back = msgspec.structs.replace(kept, id=back_id, reverses=transfer_id)
    await store.transfer(TENANT, back)
    assert await store.views.transfer(TENANT, back_id) == back
    if isinstance(store, PostgresStore):
        assert (await store.views.transfer(TENANT, transfer_id)).reversed_amount == 5


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
async def test_what_several_homes_posted_is_shown_whole_or_not_at_all(store):
    sides = [EntryTold(ALICE, 1, 4, -5, "EUR", 95, 2), EntryTold(BOB, 1, 2, 5, "EUR", 5, 0)]
    made = ids.transfer_id(TENANT, "t", ALICE)
    kept = msgspec.structs.replace(
        present_transfers.transfer({"resource_id": made, "reference": "r"}, None),
        status="posted",
        legs=present_transfers.legs_of(sides),
        entries=[present_transfers.entry(side) for side in sides],
        booked_at=times.timestamp(AT_US),
        effective_at=times.timestamp(AT_US),
    )
    await store.transfer(TENANT, kept)
    for legs_total, position, seen in ((2, 1, False), (1, 0, False), (1, 1, True)):
        change = "update transfers set legs_total = $1, ledger_position = $2"
        await store.run(change, (legs_total, position))
        listed = await store.views.transfers(TransferQuery(TENANT, reference="r"))
        assert (await store.views.transfer(TENANT, made)) == (kept if seen else None)
        assert [one.transfer for one in listed] == ([kept] if seen else [])


@pytest.mark.parametrize("seed", range(3))
async def test_statements_and_balances_are_those_of_the_whole_history(store, seed):
    rows = history(random.Random(seed), 60)
    await store.entries(ALICE, rows)
    await store.entries(BOB, history(random.Random(seed + 100), 20))
    query, said = EntryQuery(ALICE, limit=7), []
    while (page := await store.views.entries(query)).rows:
        said += [
            (e.transfer, e.balances.posted, e.balances.held)
            for e in statement(page.rows, page.shares)
        ]
        query = replace(query, after=page.rows[-1].place)
    assert said == whole(rows)
    part = await store.views.entries(EntryQuery(ALICE, AT_US + 3, AT_US + 6, 100))
    wanted = [r.place for r in rows if AT_US + 3 <= r.place.booked_at_us < AT_US + 6]
    assert [r.place for r in part.rows] == sorted(wanted, reverse=True)
    for at_us in range(AT_US - 4, AT_US + 30, 3):
        booked = await store.views.balance(BalanceQuery(ALICE, at_us))
        past = [r for r in rows if r.place.booked_at_us <= at_us]
        assert (booked.posted, booked.held) == (whole(past)[0][1:] if past else (0, 0))
        effective = await store.views.balance(BalanceQuery(ALICE, at_us, "effective"))
        counted = sum(r.amount_minor for r in rows if r.effective_at_us <= at_us)
        assert (effective.posted, effective.held) == (counted, booked.held)
        assert {type(n) for n in msgspec.structs.astuple(effective)} == {int}


async def filled(store):
    """Put in payments, several of them at one instant; return them in the order of lists."""
    kept = [
        shown("k0", AT_US),
        shown("k1", AT_US + 1, status="settled"),
        shown("k2", AT_US + 1, source=BOB, destination=ALICE),
        shown("k3", AT_US + 1, source=BANK, destination=BOB, status="settled"),
        shown("k4", AT_US + 2, source=BANK, destination=ALICE),
    ]
    for payment in kept:
        await store.payment(TENANT, payment)
    return sorted(kept, key=lambda s: (-s.place.at_us, s.place.id))


def keys(page):
    return [entry.payment.idempotency_key for entry in page]


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({}, {"k0", "k1", "k2", "k3", "k4"}),
        ({"status": "settled"}, {"k1", "k3"}),
        ({"account": ALICE}, {"k0", "k1", "k2", "k4"}),
        ({"account": BANK, "status": "settled"}, {"k3"}),
        ({"idempotency_key": "k2"}, {"k2"}),
        ({"from_us": AT_US + 1}, {"k1", "k2", "k3", "k4"}),
        ({"to_us": AT_US + 1}, {"k0"}),
        ({"from_us": AT_US + 1, "to_us": AT_US + 2, "account": BOB}, {"k1", "k2", "k3"}),
    ],
)
async def test_filters_hold_together_and_the_order_is_newest_first(store, filters, wanted):
    order = keys(await filled(store))
    page = await store.views.payments(PaymentQuery(TENANT, **filters))
    assert keys(page) == [key for key in order if key in wanted]
    assert all(entry.payment.timeline is msgspec.UNSET for entry in page)


SAID = {
    "a": {"reference": "r1", "metadata": {"shop": "ü", "n": "1"}},
    "b": {"reference": "r2", "metadata": {"shop": "ü", "n": "2"}},
    "c": {"reference": "r1", "metadata": {"shop": "x"}},
    "d": {},
}


@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({}, "abcd"),
        ({"reference": "r1"}, "ac"),
        ({"metadata": (("shop", "ü"),)}, "ab"),
        ({"metadata": (("n", "2"), ("shop", "ü"))}, "b"),
        ({"reference": "r1", "metadata": (("shop", "ü"),)}, "a"),
        ({"reference": "r1", "account": BANK}, "c"),
        ({"account": ALICE}, "abd"),
        ({"metadata": (("shop", "u"),)}, ""),
        ({"metadata": (("shop", "ü"),), "from_us": AT_US + 1}, "b"),
        ({"reference": "r1", "to_us": AT_US + 1}, "a"),
    ],
)
async def test_what_a_client_said_of_payments_and_transfers_finds_them(
    store, filters, wanted, limit
):
    for n, (key, said) in enumerate(SAID.items()):
        source = BANK if key == "c" else ALICE
        await store.transfer(TENANT, kept(key, AT_US + n, source, **said))
        await store.payment(TENANT, shown(key, AT_US + n, source, **{"metadata": {}} | said))
    for read, query, name in (
        (store.views.transfers, TransferQuery, lambda s: ids.identity_of(s.transfer.id)),
        (store.views.payments, PaymentQuery, lambda s: ids.identity_of(s.payment.id)),
    ):
        found, after = [], None
        while page := await read(query(TENANT, limit=limit, after=after, **filters)):
            assert len(page) <= limit
            found += [name(one) for one in page]
            after = page[-1].place
        made = {"a": ALICE, "b": ALICE, "c": BANK, "d": ALICE}
        make = ids.transfer_id if query is TransferQuery else payment_of
        assert found == [ids.identity_of(make(TENANT, key, made[key])) for key in wanted[::-1]]
        assert await read(query("other", **filters)) == []


def payment_of(tenant, key, source):
    return ids.payment_id(tenant, key, ids.home_account(source, BOB))


async def test_open_holds_of_an_account_follow_one_another(store):
    made = [held(n, AT_US + n // 2) for n in range(5)]
    for hold in made:
        await store.hold(ALICE, hold)
    await store.hold(BOB, held(9))
    made.sort(key=lambda s: (-s.place.at_us, s.place.id))
    found, after = [], None
    while page := await store.views.holds(HoldQuery(ALICE, 2, after)):
        found += page
        after = page[-1].place
    assert found == made


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("filters", [{}, {"account": ALICE}])
async def test_pages_follow_one_another_without_gap_or_repeat(store, filters, limit):
    await filled(store)
    query = PaymentQuery(TENANT, limit=limit, **filters)
    whole = keys(await store.views.payments(replace(query, limit=100)))
    seen, after = [], None
    while page := await store.views.payments(replace(query, after=after)):
        assert len(page) <= limit
        seen += keys(page)
        text = cursors.encode(page[-1].place, query)
        extra = f"&account={filters['account']}" if filters else ""
        after = cursors.parse(TENANT, f"cursor={text}{extra}").after
    assert seen == whole


async def test_views_that_do_not_answer_are_down_and_come_back(new_database, postgres):
    dsns = new_database("views")
    await migrate(dsns["views_owner"])
    views = PostgresViews(dsns["views_reader"], 2, "test")
    assert await views.payments(PaymentQuery(TENANT)) == []
    postgres.kill()
    try:
        with pytest.raises(Down) as caught:
            await views.payments(PaymentQuery(TENANT))
        assert caught.value.code == "views_unavailable"
    finally:
        postgres.start()

    async def answers():
        try:
            return await views.payments(PaymentQuery(TENANT)) == []
        except Down:
            return False

    for _ in range(400):
        if await answers():
            break
        await asyncio.sleep(0.05)
    assert await answers()
    await views.close(1.0)
