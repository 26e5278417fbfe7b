"""The journal's contract, on Postgres and in memory alike; then what Postgres alone must refuse."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from msgspec.structs import replace

from ledger_writer.accounts import home_of
from ledger_writer.audit import audit
from ledger_writer.cli import READER_LEFT
from ledger_writer.command import read_command
from ledger_writer.crash import CrashPoint
from ledger_writer.decide import decide
from ledger_writer.event import event_bytes
from ledger_writer.identity import claim_key
from ledger_writer.intake import Intake
from ledger_writer.memory import MemoryJournals, MemoryLedger
from ledger_writer.migrate import check, migrate, migrations
from ledger_writer.model import Decision, Fence, Row, View
from ledger_writer.operations import Elsewhere
from ledger_writer.port import Journal, Journals, Verdict
from ledger_writer.postgres import PostgresJournals
from ledger_writer.samples import (
    account_on,
    capture,
    expire,
    flags,
    hold,
    linked,
    open_account,
    reject,
    reverse,
    transfer,
)
from ledger_writer.settle import Settler
from schemas.errors import Corrupt, Fenced, Unavailable

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS = 2
ALICE, BOB = account_on(0, PARTITIONS), account_on(1, PARTITIONS)
CAROL = account_on(0, PARTITIONS, skip=1)
BANK = account_on(0, PARTITIONS, "external")
HOLD = hold("hold", ALICE, BANK, 20, expires_at_us=1)
OPERATIONS = [
    HOLD,
    capture("part", HOLD, 8),
    reverse("back", transfer("fund", (BANK, ALICE, 100)), 9),
    transfer("try", (ALICE, BANK, 1), dry_run=True),
    flags("account.freeze", "freeze", ALICE, credits=True),
    expire(HOLD),
    flags("account.close", "close", ALICE),
]
OPENING = [open_account(ALICE), open_account(BANK), transfer("fund", (BANK, ALICE, 100))]


@pytest.fixture
async def ledger(new_database) -> dict[str, str]:
    """A migrated ledger database, by role."""
    dsns = new_database("ledger")
    await migrate(dsns["ledger_owner"])
    return dsns


@pytest.fixture(params=["memory", "postgres"])
def journals(request) -> Journals:
    if request.param == "memory":
        return MemoryJournals(MemoryLedger())
    dsns = request.getfixturevalue("ledger")
    return PostgresJournals(dsns["ledger_writer"], "test", PARTITIONS)


async def decided(journal: Journal, fence: Fence, records, claims=None) -> tuple[Fence, Decision]:
    """Decide as the writer would, on what the journal knows."""
    commands = [
        read_command(record, fence.next_offset + 2 * number, 1_000)
        for number, record in enumerate(records)
    ]
    named = {leg.source for c in commands for leg in c.legs}
    named |= {leg.destination for c in commands for leg in c.legs}
    named |= {c.draft.account_id for c in commands if c.draft}
    named |= {c.flags.account_id for c in commands if c.flags}
    standings = await journal.standings(fence.partition, sorted(named))
    decision = decide(
        View(
            fence.partition,
            PARTITIONS,
            fence.next_position,
            fence.log_time_us,
            fence.chain_hash,
            standings,
            claims or {},
            set(named),
        ),
        commands,
    )
    after = replace(
        fence,
        next_offset=fence.next_offset + 2 * len(commands),
        log_time_us=decision.log_time_us,
        next_position=decision.next_position,
        chain_hash=decision.chain_hash,
        accounts_version=fence.accounts_version + bool(decision.flagged),
    )
    return after, decision


async def settled(journal: Journal, fence: Fence, records) -> tuple[Fence, list[Row]]:
    """Decide and commit as the writer does."""
    commands = [
        read_command(record, fence.next_offset + number, 1_000)
        for number, record in enumerate(records)
    ]
    intake = Intake(commands, [], {}, fence.next_offset + len(commands))
    settler = Settler(fence.partition, PARTITIONS, journal, CrashPoint())
    after, decision = await settler.settle(fence, intake, 0)
    return after, decision.rows


async def committed(journal: Journal, fence: Fence, records) -> Fence:
    after, decision = await decided(journal, fence, records)
    assert await journal.commit(fence, after, decision) is Verdict.COMMITTED
    return after


async def test_each_acquisition_raises_the_epoch_and_tells_where_to_go_on(journals):
    async with journals.open() as journal:
        first = await journal.acquire(0, None)
        assert (first.epoch, first.next_offset, first.next_position) == (1, 0, 1)
        after = await committed(journal, first, OPENING)
        assert await journal.fence(0) == after
        assert await journal.acquire(0, None) == replace(after, epoch=2)
        assert await journal.acquire(0, 2) == replace(after, epoch=3)
        with pytest.raises(Fenced):
            await journal.acquire(0, 2)
        assert (await journal.acquire(1, None)).next_position == 1


async def test_rows_come_back_as_they_were_committed(journals):
    records = [
        *OPENING,
        transfer("pay", (ALICE, CAROL, 5)),
        open_account(CAROL, account_name="Çarol", min_balance_minor=-7, max_balance_minor=90),
        transfer("more", (ALICE, CAROL, 5), (CAROL, BANK, 2), reference="r", metadata={"k": "v"}),
        transfer("more", (ALICE, CAROL, 5), (CAROL, BANK, 2), reference="r", metadata={"k": "v"}),
        transfer("more", (ALICE, CAROL, 6)),
        reject("slow", ALICE, "velocity_limit"),
    ]
    async with journals.open() as journal:
        fence = await journal.acquire(0, None)
        after, decision = await decided(journal, fence, records)
        assert await journal.commit(fence, after, decision) is Verdict.COMMITTED
        rows = await journal.rows(0, 1, 100)
        assert rows == decision.rows
        assert [event_bytes(row) for row in rows] == [event_bytes(row) for row in decision.rows]
        assert await journal.rows(0, 3, 2) == decision.rows[2:4]
        assert await journal.rows(1, 1, 9) == []


async def test_a_repeat_of_an_older_row_comes_back_with_it(journals):
    async with journals.open() as journal:
        fence = await committed(journal, await journal.acquire(0, None), OPENING)
        claims = await journal.first_rows([claim_key(read_command(OPENING[2], 0, 0))])
        after, decision = await decided(journal, fence, [OPENING[2]], claims)
        assert await journal.commit(fence, after, decision) is Verdict.COMMITTED
        [row] = await journal.rows(0, 4, 1)
        assert row == decision.rows[0]
        assert row.repeats == (await journal.rows(0, 3, 1))[0]


async def test_standings_add_up_over_partitions(journals):
    async with journals.open() as journal, journals.open() as other:
        await committed(journal, await journal.acquire(0, None), OPENING)
        there = await committed(other, await other.acquire(1, None), [open_account(BOB)])
        await committed(other, there, [transfer("x", (BANK, BOB, 7))])
        found = await journal.standings(0, [ALICE, BOB, BANK, "nobody"])
        assert found.keys() == {ALICE, BOB, BANK}
        assert (found[ALICE].posted_minor, found[ALICE].version, found[ALICE].stored_version) == (
            100,
            1,
            1,
        )
        bank = found[BANK]
        assert (bank.posted_minor, bank.foreign_minor, bank.account.kind) == (-100, -7, "external")
        bob = found[BOB]
        assert (bob.posted_minor, bob.foreign_minor, bob.stored_version) == (0, 7, None)
        assert bob.account.home == home_of(BOB, PARTITIONS) == 1
        assert await journal.foreign(0, [BOB, ALICE]) == {BOB: 7, ALICE: 0}


async def test_an_older_epoch_or_another_offset_commits_nothing(journals):
    async with journals.open() as journal:
        fence = await journal.acquire(0, None)
        after, decision = await decided(journal, fence, OPENING)
        await journal.acquire(0, None)
        with pytest.raises(Fenced):
            await journal.commit(fence, after, decision)
        now = replace(fence, epoch=2)
        assert await journal.commit(now, replace(after, epoch=2), decision) is Verdict.COMMITTED
        with pytest.raises(Fenced):
            await journal.commit(now, replace(after, epoch=2), decision)
        assert len(await journal.rows(0, 1, 100)) == 3


async def test_a_key_that_another_partition_claimed_is_taken_and_tells_its_row(journals):
    async with journals.open() as journal, journals.open() as other:
        await committed(journal, await journal.acquire(0, None), OPENING)
        fence = await other.acquire(1, None)
        records = [open_account(BOB), transfer("fund", (BANK, BOB, 1))]
        after, decision = await decided(other, fence, records)
        assert await other.commit(fence, after, decision) is Verdict.TAKEN
        assert await other.rows(1, 1, 9) == []
        assert await other.fence(1) == fence
        key = decision.claims[1].key
        assert await other.first_rows([key, bytes(16)]) == {key: (await journal.rows(0, 3, 1))[0]}


async def test_a_share_at_another_version_is_corrupt(journals):
    async with journals.open() as journal:
        fence = await committed(journal, await journal.acquire(0, None), OPENING)
        after, decision = await decided(journal, fence, [transfer("x", (BANK, ALICE, 1))])
        decision.changed[0].stored_version = 5
        with pytest.raises(Corrupt):
            await journal.commit(fence, after, decision)


async def test_a_guarded_share_below_its_floor_is_corrupt(journals):
    async with journals.open() as journal:
        fence = await committed(journal, await journal.acquire(0, None), OPENING)
        after, decision = await decided(journal, fence, [transfer("x", (ALICE, BANK, 1))])
        alice = next(each for each in decision.changed if each.account.account_id == ALICE)
        alice.posted_minor = -1
        with pytest.raises(Corrupt):
            await journal.commit(fence, after, decision)


async def test_holds_reversals_and_flags_come_back_as_they_were_committed(journals):
    async with journals.open() as journal, journals.open() as other:
        fence = await committed(journal, await journal.acquire(0, None), OPENING)
        there = await other.acquire(1, None)
        after, rows = await settled(journal, fence, OPERATIONS)
        assert [row.reason or row.type for row in rows] == [
            "hold.placed",
            "hold.posted",
            "transfer.reversed",
            "transfer.posted",
            "account.frozen",
            "hold.voided",
            "account_not_empty",
        ]
        assert await journal.rows(0, 4, 9) == rows
        [kept] = (await journal.holds([HOLD["hold_id"], "other"])).values()
        assert (kept.remaining_minor, kept.captured_minor, kept.state) == (0, 8, "expired")
        assert kept.stored_minor == 0
        assert await journal.reversals([(0, 3), (0, 4)]) == {(0, 3, 0): 9}
        alice = (await other.standings(1, [ALICE]))[ALICE]
        assert (alice.account.debits_frozen, alice.account.credits_frozen) == (False, True)
        assert (alice.foreign_minor, alice.posted_minor) == (83, 0)
        assert await other.elsewhere(1, [ALICE]) == {ALICE: Elsewhere(83, 0)}
        assert (await journal.fence(0)) == after
        assert (await other.fence(1)).accounts_version == there.accounts_version + 1
        more = [reverse("more", transfer("fund", (BANK, ALICE, 100)), 10), HOLD, expire(HOLD)]
        after, [grown, *repeats] = await settled(journal, after, more)
        assert await journal.reversals([(0, 3)]) == {(0, 3, 0): 19}
        assert [row.repeats for row in (grown, *repeats)] == [None, rows[0], rows[5]]


async def test_a_batch_decided_before_a_freeze_is_stale_after_it(journals):
    async with journals.open() as journal, journals.open() as other:
        fence = await committed(journal, await journal.acquire(0, None), OPENING)
        there = await other.acquire(1, None)
        late = await decided(other, there, [transfer("late", (BANK, ALICE, 1))])
        await settled(journal, fence, [flags("account.freeze", "f", ALICE)])
        assert await other.commit(there, *late) is Verdict.STALE


async def test_a_closing_is_grown_when_the_account_was_credited_meanwhile(journals):
    async with journals.open() as journal, journals.open() as other:
        fence = await committed(journal, await journal.acquire(0, None), OPENING)
        fence = await committed(journal, fence, [open_account(CAROL)])
        there = await committed(other, await other.acquire(1, None), [open_account(BOB)])
        closing = await decided(journal, fence, [flags("account.close", "c", CAROL)])
        await committed(other, there, [transfer("late", (BANK, CAROL, 1), home=BOB)])
        assert await journal.commit(fence, *closing) is Verdict.GROWN
        assert await journal.fence(0) == fence


async def test_a_batch_of_no_rows_moves_the_fence(journals):
    async with journals.open() as journal:
        fence = await journal.acquire(0, None)
        after, decision = await decided(journal, fence, [])
        moved = replace(after, next_offset=9, poisoned=2)
        assert await journal.commit(fence, moved, decision) is Verdict.COMMITTED
        assert await journal.fence(0) == moved


# -- Postgres alone -----------------------------------------------------------------------------


@asynccontextmanager
async def connected(dsn: str):
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def superuser_dsn(postgres):
    """The superuser's way into a test's database."""

    def dsn(roles: dict[str, str]) -> str:
        return postgres.address.dsn("postgres", roles["ledger_owner"].rsplit("/", 1)[1])

    return dsn


@pytest.fixture
async def filled(ledger) -> dict[str, str]:
    """A ledger with a few rows on two partitions."""
    journals = PostgresJournals(ledger["ledger_writer"], "test", PARTITIONS)
    async with journals.open() as journal, journals.open() as other:
        fence = await committed(journal, await journal.acquire(0, None), OPENING)
        await committed(journal, fence, [transfer("pay", (ALICE, BANK, 30))])
        there = await committed(other, await other.acquire(1, None), [open_account(BOB)])
        await committed(other, there, [transfer("x", (BANK, BOB, 7)), reject("y", BOB, "no")])
    return ledger


@pytest.fixture
async def operated(filled) -> dict[str, str]:
    """The same, with a hold in part captured, a reversal and a freeze."""
    journals = PostgresJournals(filled["ledger_writer"], "test", PARTITIONS)
    async with journals.open() as journal:
        await settled(journal, await journal.acquire(0, None), OPERATIONS)
    return filled


async def test_migrating_twice_changes_nothing_and_the_check_says_what_is_missing(new_database):
    dsns = new_database("ledger")
    with pytest.raises(Corrupt, match=r"python -m ledger_writer\.migrate"):
        await check(dsns["ledger_writer"])
    one, two = await asyncio.gather(migrate(dsns["ledger_owner"]), migrate(dsns["ledger_owner"]))
    assert sorted(one + two) == [each.name for each in migrations()]
    assert await migrate(dsns["ledger_owner"]) == []
    await check(dsns["ledger_writer"])


REFUSED = (
    "update ledger.journal set reason = 'x'",
    "delete from ledger.journal",
    "truncate ledger.journal",
    "delete from ledger.journal_00000000",
    "truncate ledger.journal_00000000",
    "update ledger.identities set position = 9",
    "delete from ledger.identities",
    "truncate ledger.identities",
    "delete from ledger.shares",
    "delete from ledger.accounts",
    "delete from ledger.partitions",
    "delete from ledger.holds",
    "delete from ledger.reversals",
)


async def test_nobody_changes_or_removes_what_was_written(operated):
    for role in ("ledger_owner", "ledger_writer", "ledger_reader"):
        async with connected(operated[role]) as connection:
            for statement in REFUSED:
                with pytest.raises(asyncpg.PostgresError) as refused:
                    await connection.execute(statement)
                expected = "HR003" if role == "ledger_owner" else "42501"
                assert refused.value.sqlstate == expected, (role, statement)


NOT_ALLOWED = (
    ("ledger_writer", "create table ledger.more ()"),
    ("ledger_writer", "update ledger.accounts set min_balance_minor = -5"),
    ("ledger_writer", "update ledger.accounts set account_id = 'x'"),
    ("ledger_reader", "update ledger.holds set state = 'voided'"),
    ("ledger_writer", "drop table ledger.journal"),
    ("ledger_reader", "insert into ledger.identities values (gen_random_uuid(), 0, 1)"),
    ("ledger_reader", "update ledger.shares set posted_minor = 1"),
    ("ledger_reader", "select ledger.ensure_journal(1)"),
)


async def test_each_role_may_do_only_its_own(filled):
    for role, statement in NOT_ALLOWED:
        async with connected(filled[role]) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_the_views_say_the_ledger_in_words(filled):
    async with connected(filled["ledger_reader"]) as connection:
        balances = await connection.fetch("select * from ledger.balances")
        assert {line["account_id"]: line["posted_minor"] for line in balances} == {
            ALICE: 70,
            BOB: 7,
            BANK: -77,
        }
        entries = await connection.fetch(
            "select * from ledger.entries order by share, position, ordinal"
        )
        assert [(e["account_id"], e["amount_minor"], e["posted_minor"]) for e in entries[:2]] == [
            (BANK, -100, -100),
            (ALICE, 100, 100),
        ]
        assert sum(entry["amount_minor"] for entry in entries) == 0
        outcomes = await connection.fetch(
            "select * from ledger.outcomes order by partition, position"
        )
        assert [line["reason"] for line in outcomes] == [None] * 6 + ["no"]
        assert len({line["identity"] for line in outcomes}) == 7


@pytest.fixture
async def agreed(operated) -> dict[str, str]:
    """The same, with transfers that two homes agreed on, one under way, and a cap."""
    capped = account_on(1, PARTITIONS, skip=1)
    given = transfer("capped", (CAROL, capped, 4))
    under_way = transfer("open", (CAROL, capped, 1), (CAROL, BOB, 1))
    journals = PostgresJournals(operated["ledger_writer"], "test", PARTITIONS)
    async with journals.open() as journal, journals.open() as other:
        there = await other.acquire(1, None)
        there, _ = await settled(other, there, [open_account(capped, max_balance_minor=9)])
        fund = transfer("carol", (BANK, CAROL, 50))
        here = await journal.acquire(0, None)
        here, _ = await settled(journal, here, [open_account(CAROL), fund, given, under_way])
        prepares = [linked("transfer.prepare", each, capped) for each in (given, under_way)]
        there, rows = await settled(other, there, prepares)
        assert {row.type for row in rows} == {"transfer.prepared"}
        await settled(journal, here, [linked("transfer.commit", given, CAROL, 0)])
        await settled(other, there, [linked("transfer.commit", given, capped)])
    return operated


async def test_the_audit_names_what_was_paid_back_beyond_its_original(agreed, superuser_dsn):
    statement = "update ledger.reversals set reversed_minor = 101"
    async with tampered(superuser_dsn(agreed), statement):
        result = await audit(agreed["ledger_reader"], PARTITIONS)
    wanted = {"partition": 0, "position": 3}
    wanted["problem"] = "of leg 0, 101 was paid back, more than it moved"
    assert wanted in result["findings"], result["findings"]


async def test_an_export_whose_reader_has_left_ends_quietly(filled):
    env = {"PATH": os.environ["PATH"], "HEADRACE_LEDGER_READER_DSN": filled["ledger_reader"]}
    for what, at_once in ((["journal"], ""), (["journal"], "1"), (["statement", ALICE], "1")):
        env["PYTHONUNBUFFERED"] = at_once  # then it breaks in mid-copy, else at the end
        read, write = os.pipe()
        os.close(read)
        command = [sys.executable, "-m", "ledger_writer.cli", "export", *what]
        ended = await asyncio.to_thread(
            subprocess.run, command, env=env, cwd=ROOT, stdout=write, stderr=subprocess.PIPE,
            check=False, timeout=60,
        )  # fmt: skip
        os.close(write)
        assert (ended.returncode, ended.stderr) == (READER_LEFT, b"")


async def test_the_audit_finds_nothing_in_a_sound_ledger(operated):
    result = await audit(operated["ledger_reader"], PARTITIONS)
    assert result["findings"] == []
    assert result["ok"]
    assert (result["rows"], result["entries"], result["accounts"]) == (14, 12, 3)


STRANGER = f"(select account_no from ledger.accounts where account_id = '{BOB}')"
SWAP = (
    "update ledger.journal set position = case position when 3 then 40 else 3 end"
    " where partition = 0 and position in (3, 4)"
)
TAMPERINGS = [
    "update ledger.journal set entries[3] = entries[3] - 1 where partition = 0 and position = 3",
    "update ledger.journal set tenant = 'x' where partition = 0 and position = 3",
    "update ledger.journal set chain_hash = body_hash where partition = 0 and position = 3",
    "delete from ledger.journal where partition = 0 and position = 3",
    "update ledger.journal set extra = null where partition = 0 and position = 1",
    f"update ledger.journal set entries[1] = {STRANGER} where partition = 0 and position = 3",
    f"{SWAP}; update ledger.journal set position = 4 where position = 40",
]
TABLE_TAMPERINGS = [
    "delete from ledger.journal where partition = 0 and position = 4",
    "update ledger.shares set posted_minor = posted_minor + 1 where share = 0",
    "update ledger.accounts set min_balance_minor = -5 where kind = 'customer'",
    "delete from ledger.identities where position = 3",
    "update ledger.identities set position = 4 where position = 3",
    "update ledger.partitions set chain_hash = sha256('') where partition = 1",
    "delete from ledger.shares where share = 1",
    "update ledger.holds set captured_minor = captured_minor - 1",
    "delete from ledger.holds",
    "update ledger.reversals set reversed_minor = reversed_minor - 1",
    "delete from ledger.reversals",
    "update ledger.accounts set credits_frozen = not credits_frozen",
]


TABLES = (
    "journal", "shares", "accounts", "identities", "partitions", "holds", "reversals", "links",
    "rooms",
)  # fmt: skip


@asynccontextmanager
async def tampered(dsn: str, statement: str):
    """Change what the owner can't, as a superuser with the triggers off, and put it back."""
    changed = [table for table in TABLES if f"ledger.{table} " in f"{statement} "]
    assert changed
    async with connected(dsn) as connection:
        await connection.execute("set session_replication_role = replica")
        async with connection.transaction():
            for table in changed:
                await connection.execute(f"create table saved_{table} as table ledger.{table}")
            await connection.execute(statement)
        yield
        for table in changed:
            await connection.execute(
                f"delete from ledger.{table}; insert into ledger.{table} table saved_{table};"
                f"drop table saved_{table}"
            )


async def test_the_audit_names_the_first_broken_row(filled, superuser_dsn):
    for statement in TAMPERINGS:
        async with tampered(superuser_dsn(filled), statement):
            result = await audit(filled["ledger_reader"], PARTITIONS)
        assert not result["ok"]
        broken = 1 if "extra" in statement else 4 if "delete" in statement else 3
        found = result["findings"][0]
        assert (found["partition"], found["position"]) == (0, broken), statement
    assert (await audit(filled["ledger_reader"], PARTITIONS))["ok"]


# Another value for each type, that its column's checks allow.
OTHER = {
    "bigint": "coalesce({0} + 1, 100)",
    "integer": "{0} + 1",
    "smallint": "coalesce({0} + 1, 0)",
    "text": "coalesce({0} || 'x', 'x')",
    "json": '\'{{"reference":"x"}}\'',
    "ARRAY": "coalesce({0}[1:2] || {0}[3] + 1 || {0}[4:], '{{}}')",
    "bytea": "set_byte({0}, 31, (get_byte({0}, 31) + 1) % 256)",
    "uuid": "md5({0}::text)::uuid",
    "boolean": "not {0}",
}
SPELLED_OUT = {
    "identity": "right(saga_id, 26)",
    "transfer_id": "saga_id",
    "entries": "'{}'",
}
"""Values that come to the same as what was left out."""
UNPROVABLE = {
    ("partitions", "epoch"),
    ("partitions", "poisoned"),
    ("partitions", "next_offset"),
    ("partitions", "published_position"),
    ("shares", "foreign_minor"),
}
"""What the rows do not tell: how often a fence was taken, and what a writer saw or skipped."""


async def test_the_audit_finds_any_column_of_any_table_changed(agreed, superuser_dsn):
    async with connected(agreed["ledger_owner"]) as owner:
        columns = await owner.fetch(
            "select table_name, column_name, data_type from information_schema.columns"
            " where table_schema = 'ledger' and table_name = any($1)",
            TABLES,
        )
    assert len(columns) > 50
    refused = []
    for table, column, kind in (tuple(line.values()) for line in columns):
        if (table, column) in UNPROVABLE:
            continue
        value = OTHER[kind].format(column)
        if column in {"kind", "state"}:
            value = "case when {0} in ('customer', 'external') then 'external' else 'posted' end"
            value = value.format(column) if column == "kind" else "'voided'"
        if table == "links" and column in {"kind", "state"}:
            value = "'credit'" if column == "kind" else "'aborted'"
        if (table, column) == ("shares", "held_minor"):
            value = "held_minor + 1"
        key = {"accounts": f"account_id = '{ALICE}'", "shares": "share = 1 and posted_minor > 0"}
        key["links"] = "link_id like '%/1'"
        where = key.get(table, "true")
        if table == "journal":
            where = "partition = 0 and position = 3"
        if table in {"partitions", "identities"}:
            where = "partition = 1" + (" and position = 1" if table == "identities" else "")
        if column in {"partition", "account_no", "position"}:
            value = f"{column} + 50"
        statement = f"update ledger.{table} set {column} = {value} where {where}"
        try:
            async with tampered(superuser_dsn(agreed), statement):
                result = await audit(agreed["ledger_reader"], PARTITIONS)
        except asyncpg.CheckViolationError:
            refused.append((table, column))
            continue
        assert not result["ok"], statement
        if table == "journal" and column not in {"position", "partition"}:
            found = result["findings"][0]
            assert (found["partition"], found["position"]) == (0, 3), (statement, found)
    assert refused == [("holds", "remaining_minor")], "Postgres itself refuses no more than this"
    assert (await audit(agreed["ledger_reader"], PARTITIONS))["ok"]


async def test_what_was_left_out_may_not_be_put_in_unseen(operated, superuser_dsn):
    for column, value in SPELLED_OUT.items():
        where = "entries is null" if column == "entries" else "position = 3"
        statement = f"update ledger.journal set {column} = {value} where {where}"
        async with tampered(superuser_dsn(operated), statement):
            result = await audit(operated["ledger_reader"], PARTITIONS)
        assert not result["ok"], statement
        assert column in result["findings"][0]["problem"] or column == "entries", result


REMOVED = {
    "position = 1 and partition = 0": 2,
    "position = 5 and partition = 0": 6,
    "partition = 0 and position = (select next_position - 1 from ledger.partitions"
    " where partition = 0)": 11,
    "partition = 0 and position > 7": 9,
}


async def test_the_audit_finds_rows_removed_from_anywhere(operated, superuser_dsn):
    for where, position in REMOVED.items():
        statement = f"delete from ledger.journal where {where}"
        async with tampered(superuser_dsn(operated), statement):
            result = await audit(operated["ledger_reader"], PARTITIONS)
        found = result["findings"][0]
        assert (found["partition"], found["position"]) == (0, position), (statement, result)


async def test_the_audit_finds_rows_that_no_fence_leads_to(operated, superuser_dsn):
    statement = (
        "create table pg_temp.one as select * from ledger.journal where partition = 0"
        " and position = 3; update pg_temp.one set partition = 9;"
        "insert into ledger.journal table pg_temp.one"
    )
    async with tampered(superuser_dsn(operated), statement):
        result = await audit(operated["ledger_reader"], PARTITIONS)
    assert not result["ok"]


async def test_the_audit_finds_what_contradicts_the_rows(operated, superuser_dsn):
    for statement in TABLE_TAMPERINGS:
        async with tampered(superuser_dsn(operated), statement):
            result = await audit(operated["ledger_reader"], PARTITIONS)
        assert not result["ok"], statement
    assert (await audit(operated["ledger_reader"], PARTITIONS))["ok"]


async def test_tables_of_the_journal_are_created_ahead(ledger):
    async with connected(ledger["ledger_owner"]) as owner:
        await owner.execute(
            "create or replace function ledger.journal_span() returns int8 immutable"
            " language sql as 'select 8::int8'; drop table ledger.journal_00000000"
        )
    journals = PostgresJournals(ledger["ledger_writer"], "test", PARTITIONS)
    async with journals.open() as journal:
        fence = await committed(journal, await journal.acquire(0, None), OPENING)
        for number in range(20):
            records = [transfer(f"{number}-{each}", (BANK, ALICE, 1)) for each in range(3)]
            fence = await committed(journal, fence, records)
        assert len(await journal.rows(0, 1, 100)) == 63
    async with connected(ledger["ledger_reader"]) as reader:
        children = await reader.fetch("select relid from pg_partition_tree('ledger.journal')")
        assert len(children) >= 9


async def test_a_flag_changed_anywhere_makes_the_next_commit_stale(filled, superuser_dsn):
    journals = PostgresJournals(filled["ledger_writer"], "test", PARTITIONS)
    async with journals.open() as journal:
        fence = await journal.acquire(0, None)
        after, decision = await decided(journal, fence, [transfer("z", (BANK, ALICE, 1))])
        async with connected(superuser_dsn(filled)) as operator:
            await operator.execute(
                f"update ledger.accounts set credits_frozen = true where account_id = '{ALICE}';"
                "update ledger.partitions set accounts_version = accounts_version + 1"
            )
        assert await journal.commit(fence, after, decision) is Verdict.STALE
        assert (await journal.standings(0, [ALICE]))[ALICE].account.credits_frozen


SLOW_CLAIMS = """
    create function ledger.slowly() returns trigger language plpgsql as $$
    begin perform pg_sleep(0.01); return new; end $$;
    create trigger slowly before insert on ledger.identities
        for each row execute function ledger.slowly();"""


async def test_two_writers_that_claim_the_same_keys_at_once_do_not_deadlock(ledger):
    async with connected(ledger["ledger_owner"]) as owner:
        await owner.execute(SLOW_CLAIMS)
    journals = PostgresJournals(ledger["ledger_writer"], "test", PARTITIONS)
    shared = [f"key-{number}" for number in range(20)]
    async with journals.open() as journal, journals.open() as other:
        here = await committed(journal, await journal.acquire(0, None), OPENING)
        there = await committed(other, await other.acquire(1, None), [open_account(BOB)])
        one = await decided(journal, here, [reject(key, ALICE, "no") for key in shared])
        two = await decided(other, there, [reject(key, BOB, "no") for key in reversed(shared)])
        verdicts = await asyncio.gather(journal.commit(here, *one), other.commit(there, *two))
        assert sorted(verdict.value for verdict in verdicts) == ["committed", "taken"]


async def test_partitions_that_change_flags_at_once_do_not_deadlock(ledger):
    journals = PostgresJournals(ledger["ledger_writer"], "test", PARTITIONS)

    async def freeze(journal: Journal, fence: Fence, account_id: str) -> None:
        for number in range(20):
            kind = "account.unfreeze" if number % 2 else "account.freeze"
            records = [flags(kind, f"{account_id}-{number}", account_id)]
            records.append(transfer(f"{account_id}-{number}", (BANK, account_id, 1)))
            current = await journal.fence(fence.partition)
            fence, rows = await settled(journal, current, records)
            assert rows[1].reason == (None if number % 2 else "account_frozen")

    async with journals.open() as journal, journals.open() as other:
        here = await committed(journal, await journal.acquire(0, None), OPENING)
        there = await committed(other, await other.acquire(1, None), [open_account(BOB)])
        await asyncio.gather(freeze(journal, here, ALICE), freeze(other, there, BOB))
        assert (await journal.fence(0)).accounts_version == 40


async def test_a_partition_acquired_first_while_flags_change_knows_of_it(ledger, superuser_dsn):
    journals = PostgresJournals(ledger["ledger_writer"], "test", PARTITIONS)
    async with journals.open() as journal, journals.open() as other:
        fence = await committed(journal, await journal.acquire(0, None), OPENING)
        async with connected(superuser_dsn(ledger)) as holding:
            held = holding.transaction()
            await held.start()
            await holding.execute("select from ledger.partitions for update")
            freezing = asyncio.create_task(
                settled(journal, fence, [flags("account.freeze", "f", ALICE)])
            )
            await waiting(holding, 1)
            acquiring = asyncio.create_task(other.acquire(1, None))
            await waiting(holding, 2)
            await held.rollback()
        await freezing
        assert (await acquiring).accounts_version == 1


async def waiting(connection: asyncpg.Connection, count: int) -> None:
    """Wait until as many statements wait for a lock."""
    for _ in range(500):
        found = await connection.fetchval(
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        )
        if found == count:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{count} statements never waited")


async def test_a_lost_connection_is_unavailable_and_acquiring_again_tells_the_outcome(filled):
    journals = PostgresJournals(filled["ledger_writer"], "test", PARTITIONS)
    async with journals.open() as journal:
        fence = await journal.acquire(0, None)
        after, decision = await decided(journal, fence, [transfer("z", (BANK, ALICE, 1))])
        async with connected(filled["ledger_writer"]) as other:
            await other.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'headrace test' and pid <> pg_backend_pid()"
            )
        with pytest.raises(Unavailable):
            await journal.commit(fence, after, decision)
    async with journals.open() as journal:
        again = await journal.acquire(0, fence.epoch)
        assert again.next_offset == fence.next_offset
        with pytest.raises(Fenced):
            await journal.commit(fence, after, decision)
