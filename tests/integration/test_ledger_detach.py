"""The journal's beginning detached: what is refused, what is proved after, and what is answered."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import orjson
import pytest

from ledger_writer.audit import audit
from ledger_writer.audit_export import audit_export, manifest_path
from ledger_writer.command import read_command
from ledger_writer.crash import CrashPoint
from ledger_writer.detach import detach
from ledger_writer.export import Range, export_journal
from ledger_writer.index import index
from ledger_writer.intake import Intake
from ledger_writer.migrate import migrate
from ledger_writer.model import Decision, Fence, Row
from ledger_writer.port import Journal, Verdict
from ledger_writer.postgres import PostgresJournals
from ledger_writer.progress import Progress
from ledger_writer.samples import account_on, capture, hold, open_account, reverse, transfer, void
from ledger_writer.settle import Settler
from schemas.errors import Rejected

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS = 2
SPAN = 32
NAMES = [account_on(number % 2, PARTITIONS, skip=number // 2) for number in range(4)]
BANKS = [account_on(number, PARTITIONS, "external") for number in range(2)]
SMALL = f"""
    drop table ledger.journal_00000000;
    create or replace function ledger.journal_span() returns int8 immutable
        language sql as 'select {SPAN}::int8';
    create or replace function ledger.index_span() returns int8 immutable
        language sql as 'select 8::int8';
    select ledger.ensure_journal(1)"""
MOVED = {number: (NAMES[number], NAMES[number + 2]) for number in range(2)}
FIRST = {number: transfer(f"pay-{number}-0", (*MOVED[number], 1)) for number in range(2)}


@asynccontextmanager
async def connected(dsn: str):
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


class CutMeanwhile:
    """A journal that is cut just before a batch's second commit."""

    def __init__(self, journal: Journal, cut: Callable[[], Awaitable[object]]) -> None:
        self._journal, self._cut, self._commits = journal, cut, 0

    def __getattr__(self, name: str):
        return getattr(self._journal, name)

    async def commit(self, before: Fence, after: Fence, decision: Decision) -> Verdict:
        self._commits += 1
        if self._commits == 2:
            await self._cut()
        return await self._journal.commit(before, after, decision)


class Ledger:
    """A ledger with small tables, written one command at a time, a second apart."""

    def __init__(self, dsns: dict[str, str], folder: Path) -> None:
        self.dsns, self.folder = dsns, folder
        self.clock = 0
        self.fences = {}

    async def send(self, *records: dict) -> list[Row]:
        """Decide these, each in a session of its own, as after a restart."""
        rows = []
        journals = PostgresJournals(self.dsns["ledger_writer"], "test", PARTITIONS)
        async with journals.open() as journal:
            settlers = {n: Settler(n, PARTITIONS, journal, CrashPoint()) for n in range(PARTITIONS)}
            fences = {n: await journal.acquire(n, None) for n in range(PARTITIONS)}
            for record in records:
                at = record["slot"] % PARTITIONS
                fence = fences[at]
                self.clock += 1
                command = read_command(record, fence.next_offset, 1_000 * self.clock)
                intake = Intake([command], [], {}, fence.next_offset + 1)
                published = fence.next_position - 1
                fences[at], decision = await settlers[at].settle(fence, intake, published)
                rows += decision.rows
        return rows

    async def fill(self, tag: str, count: int) -> None:
        """Move money on both partitions."""
        for number, pair in MOVED.items():
            pays = [
                transfer(f"{tag}-{number}-{n}", (*pair, 1), reference=f"{tag}-{n}")
                for n in range(count)
            ]
            await self.send(*pays)

    async def export(self, first: int | None, last: int) -> Path:
        path = self.folder / f"{first}-{last}.jsonl"
        with path.open("w", newline="") as out:
            manifest = await export_journal(
                self.dsns["ledger_reader"], Range(None, first, last), "jsonl", out, Progress(None)
            )
        manifest_path(path).write_bytes(orjson.dumps(manifest))
        return path

    async def cut(self, before: int, export: Path | None, **how: bool) -> dict:
        return await detach(self.dsns["ledger_owner"], (before, None), export, **how)

    async def audit(self) -> dict:
        return await audit(self.dsns["ledger_reader"], PARTITIONS)

    async def ask(self, sql: str, *arguments):
        async with connected(self.dsns["ledger_reader"]) as reader:
            return await reader.fetch(sql, *arguments)

    async def tables(self) -> set[str]:
        found = await self.ask(
            "select relname from pg_class where relnamespace = 'ledger'::regnamespace"
            " and relkind = 'r' and relname ~ '[0-9]$'"
        )
        return {line["relname"] for line in found}


@pytest.fixture
async def ledger(new_database, tmp_path) -> Ledger:
    """Accounts, a hold posted in part and given back, a reversal; then 66 movements a partition."""
    dsns = new_database("ledger")
    await migrate(dsns["ledger_owner"])
    async with connected(dsns["ledger_owner"]) as owner:
        await owner.execute(SMALL)
    ledger = Ledger(dsns, tmp_path)
    await ledger.send(*(open_account(each) for each in [*NAMES, *BANKS]))
    funds = [transfer(f"fund-{n}", (BANKS[n], MOVED[n][0], 1_000)) for n in range(PARTITIONS)]
    held = hold("hold", NAMES[0], BANKS[0], 5)
    opening = [held, capture("part", held, 2), void("rest", held), reverse("back", funds[0], 9)]
    await ledger.send(*funds, *opening, *FIRST.values())
    await ledger.fill("early", 66)
    await index(dsns["ledger_writer"])
    return ledger


async def test_what_remains_is_proved_from_the_cut(ledger):
    before = await ledger.audit()
    assert before["ok"]
    export = await ledger.export(1, SPAN - 1)
    tried = await ledger.cut(SPAN, export, dry_run=True)
    assert (tried["detached"], tried["tables"]) == (False, ["journal_00000000"])
    assert "journal_00000000" in await ledger.tables()
    told = await ledger.cut(SPAN, export)
    assert (told["detached"], told["rows"]) == (True, 2 * (SPAN - 1))
    assert "detached_00000000" in await ledger.tables()
    assert "journal_00000000" not in await ledger.tables()
    after = await ledger.audit()
    assert (after["findings"], after["heads"]) == ([], before["heads"])
    assert after["rows"] == before["rows"] - 2 * (SPAN - 1)
    assert after["detached"]["before"] == {0: SPAN, 1: SPAN}
    assert (await ledger.cut(SPAN, None))["detached"] is False

    await ledger.fill("late", 40)
    await index(ledger.dsns["ledger_writer"])
    with pytest.raises(Rejected, match="detached before position 32"):
        await ledger.export(1, 2 * SPAN - 1)
    second = await ledger.export(None, 2 * SPAN - 1)
    told = await ledger.cut(2 * SPAN, second, drop=True)
    assert (told["detached"], told["dropped"]) == (True, ["detached_00000000"])
    assert not {"detached_00000000", "detached_00000001"} & await ledger.tables()
    assert (await ledger.audit())["findings"] == []
    for each in (export, second):
        assert audit_export(each, Progress(None))["ok"]


async def test_the_command_says_what_it_did_and_what_is_wrong(ledger):
    export = await ledger.export(1, SPAN - 1)
    env = {"PATH": os.environ["PATH"], "HEADRACE_LEDGER_OWNER_DSN": ledger.dsns["ledger_owner"]}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ledger_writer.cli", "detach", *arguments]
        return subprocess.run(
            command, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )

    told = await asyncio.to_thread(run, "--before", "32", "--export", str(export), "--dry-run")
    assert (told.returncode, orjson.loads(told.stdout)["rows"]) == (0, 62), told.stderr
    told = await asyncio.to_thread(run, "--before", "33")
    assert told.returncode == 2
    assert told.stderr == ("headrace ledger: --before: 33 is not where a table begins: 32, 64\n")
    told = await asyncio.to_thread(run, "--before", "1970-01-01")
    assert "no table has only rows that were booked before this time" in told.stderr


async def test_a_time_cuts_where_all_before_was_booked(ledger):
    booked = await ledger.ask(
        "select max(booked_at_us) as at_us from ledger.journal where position = $1", SPAN - 1
    )
    export = await ledger.export(1, SPAN - 1)
    owner = ledger.dsns["ledger_owner"]
    with pytest.raises(Rejected, match="no table has only rows"):
        await detach(owner, (None, booked[0]["at_us"]), export)
    told = await detach(owner, (None, booked[0]["at_us"] + 1), export)
    assert (told["before"], told["detached"]) == (SPAN, True)
    assert (await ledger.audit())["ok"]


@pytest.mark.parametrize(
    "harm",
    [
        "update ledger.detached_state set value = '[1,2,3]' where kind = 'share'",
        "delete from ledger.detached_state where kind = 'hold'",
        "delete from ledger.detached_state where kind = 'account'",
        "update ledger.detached set chain_hash = sha256('x') where partition = 1",
        "update ledger.detached set state_hash = sha256('x')",
        "update ledger.detached set first_position = 33 where partition = 0",
        "delete from ledger.identities where (partition, position) = (0, 9)",
        "update ledger.journal set body_hash = sha256('x') where (partition, position) = (1, 32)",
        "delete from ledger.journal where (partition, position) = (0, 32)",
        "update ledger.shares set posted_minor = posted_minor + 1 where share = 1",
    ],
)
async def test_a_cut_or_a_row_that_was_changed_is_found(ledger, harm):
    await ledger.cut(SPAN, await ledger.export(1, SPAN - 1))
    assert (await ledger.audit())["ok"]
    async with connected(ledger.dsns["ledger_owner"]) as owner:
        for table in ("detached", "identities", "journal", "shares"):
            await owner.execute(f"alter table ledger.{table} disable trigger user")
        assert await owner.execute(harm) not in ("UPDATE 0", "DELETE 0")
    assert not (await ledger.audit())["ok"]


async def test_what_is_still_needed_or_not_proved_is_not_detached(ledger):
    export = await ledger.export(1, SPAN - 1)
    short = await ledger.export(1, SPAN - 2)
    lines = export.read_text().splitlines(keepends=True)
    forged = ledger.folder / "forged.jsonl"
    forged.write_text("".join([lines[0], lines[1].replace("1", "2", 1), *lines[2:]]))
    manifest_path(forged).write_bytes(manifest_path(export).read_bytes())
    for before, path, told in (
        (SPAN, None, "make one first: headrace ledger export journal --from 1 --to 31"),
        (SPAN, short, "does not cover"),
        (SPAN, forged, "does not verify"),
        (SPAN, ledger.folder / "nowhere", "its manifest can't be read"),
        (SPAN + 1, export, "33 is not where a table begins: 32, 64"),
        (3 * SPAN, export, "96 is"),
    ):
        with pytest.raises(Rejected, match=told):
            await ledger.cut(before, path)
    async with connected(ledger.dsns["ledger_owner"]) as owner:
        await owner.execute("update ledger.indexed set next_span = 3 where partition = 1")
        with pytest.raises(Rejected, match="partition 1 is indexed only before 24"):
            await ledger.cut(SPAN, export)
        await owner.execute("update ledger.indexed set next_span = 8 where partition = 1")
    assert (await ledger.audit())["ok"]
    assert (await ledger.cut(SPAN, export))["detached"]


async def test_a_hold_still_open_keeps_its_rows(new_database, tmp_path):
    dsns = new_database("ledger")
    await migrate(dsns["ledger_owner"])
    async with connected(dsns["ledger_owner"]) as owner:
        await owner.execute(SMALL)
    ledger = Ledger(dsns, tmp_path)
    await ledger.send(*(open_account(each) for each in [*NAMES, *BANKS]))
    held = hold("hold", NAMES[0], BANKS[0], 5)
    await ledger.send(*(transfer(f"f-{n}", (BANKS[n], NAMES[n], 99)) for n in range(2)), held)
    await ledger.fill("early", 40)
    await index(dsns["ledger_writer"])
    export = await ledger.export(1, SPAN - 1)
    with pytest.raises(Rejected, match="began in the range are open"):
        await ledger.cut(SPAN, export)
    await ledger.send(void("rest", held))
    assert (await ledger.cut(SPAN, export))["detached"]
    assert (await ledger.audit())["ok"], "it was open at the cut, and ended after"


async def test_what_was_detached_is_neither_repeated_nor_paid_back(ledger):
    await ledger.cut(SPAN, await ledger.export(1, SPAN - 1))
    balances = await ledger.ask("select * from ledger.balances order by account_id")
    repeat = FIRST[0]
    conflict = transfer("pay-0-0", (*MOVED[1], 3))
    rows = await ledger.send(repeat, conflict, reverse("undo", FIRST[1]))
    assert [(row.type, row.reason, row.entries) for row in rows] == [
        ("transfer.rejected", "outcome_archived", ()),
        ("transfer.rejected", "outcome_archived", ()),
        ("transfer.rejected", "original_archived", ()),
    ]
    assert await ledger.ask("select * from ledger.balances order by account_id") == balances
    kept = await ledger.send(transfer("early-0-60", (*MOVED[0], 1), reference="early-60"))
    assert (kept[0].type, kept[0].repeats is None) == ("transfer.posted", False)
    assert (await ledger.audit())["findings"] == []


async def test_a_batch_decided_before_the_cut_is_decided_again(ledger):
    export = await ledger.export(1, SPAN - 1)
    journals = PostgresJournals(ledger.dsns["ledger_writer"], "test", PARTITIONS)
    async with journals.open() as real:
        journal = CutMeanwhile(real, lambda: ledger.cut(SPAN, export))
        fence = await journal.acquire(0, None)
        command = read_command(FIRST[0], fence.next_offset, 1_000_000)
        intake = Intake([command], [], {}, fence.next_offset + 1)
        settler = Settler(0, PARTITIONS, journal, CrashPoint())
        _, decision = await settler.settle(fence, intake, fence.next_position - 1)
    assert [row.reason for row in decision.rows] == ["outcome_archived"]
    assert (await ledger.audit())["findings"] == []


async def test_a_question_about_what_was_detached_is_refused(ledger):
    name = NAMES[0]
    cut_at = (
        await ledger.ask(
            "select max(booked_at_us) as m from ledger.journal where position = $1", SPAN - 1
        )
    )[0]["m"]
    now = "select * from ledger.balance_at($1, $2)"
    since = "select * from ledger.statement($1, $2, $3)"
    search = "select * from ledger.search('acme', 'reference', $1)"
    asked = [(now, name, cut_at), (now, name, 2**62), (since, name, cut_at + 1, 2**62)]
    answers = [await ledger.ask(*each) for each in asked]
    found = await ledger.ask(search, "early-60")
    await ledger.cut(SPAN, await ledger.export(1, SPAN - 1))
    assert [await ledger.ask(*each) for each in asked] == answers
    assert await ledger.ask(search, "early-60") == found
    for each in [
        (now, name, 1),
        (since, name, 0, 2**62),
        ("select ledger.effective_balance_at($1, $2)", name, 1),
        (search, "early-0"),
    ]:
        with pytest.raises(asyncpg.PostgresError, match="detached") as refused:
            await ledger.ask(*each)
        assert refused.value.sqlstate == "HR004"
