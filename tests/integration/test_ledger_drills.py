"""The short set of the ledger's fault drills, and proof that their checker can fail."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import cache

import pytest

from ledger_writer.crash import CrashPoint
from ledger_writer.event import event_bytes
from ledger_writer.intake import read_records
from ledger_writer.memory import MemoryJournal, MemoryLedger, Weather
from ledger_writer.port import Record
from ledger_writer.settle import Settler
from loadtest.drills import ledger_tables
from loadtest.drills.ledger import drill, summary
from loadtest.drills.ledger_check import Commit, Evidence, Logged, replay
from loadtest.drills.ledger_faults import kind_of
from loadtest.drills.ledger_load import Load
from schemas.wire import decode, encode

SHORT_SET = (1, 5, 7, 12, 15)
PARTITIONS = 2
FAVORED = {"close": 1.0, "reverse": 3.0, "capture": 3.0}


@pytest.mark.timeout(240)
async def test_what_the_ledger_leaves_after_faults_is_what_a_model_says(
    kafka, postgres, run_folder
):
    verdicts = await drill(run_folder / "drills", kafka, postgres, SHORT_SET)
    assert [verdict.differences for verdict in verdicts] == [[]] * len(SHORT_SET)
    assert {"crash points", "zombie", "in commit", "cuts", "races"} <= {
        kind_of(seed) for seed in SHORT_SET
    }
    kept = summary(verdicts, 1.0)
    assert kept["differences"] == 0
    assert kept["transfers_checked"] > 100
    assert all(verdict.faults for verdict in verdicts)


# -- the checker, on what a faultless writer left ------------------------------------------------


@cache
def evidence() -> Evidence:
    return asyncio.run(_decided())


async def _decided() -> Evidence:
    ledger = MemoryLedger()
    journal = MemoryJournal(ledger, Weather())
    fences = {n: await journal.acquire(n, None) for n in range(PARTITIONS)}
    settlers = {n: Settler(n, PARTITIONS, journal, CrashPoint()) for n in range(PARTITIONS)}
    commands, events, dead = ({n: [] for n in range(PARTITIONS)} for _ in range(3))
    commits = []
    for fed in Load(3, PARTITIONS, 1_700_000_000_000).records(250, FAVORED):
        n = fed.partition
        record = Record(2 * len(commands[n]), fed.at_ms, fed.key, fed.value, ())
        commands[n].append(Logged(record.offset, fed.at_ms, fed.key, fed.value, {}))
        before, intake = fences[n], read_records([record])
        headers = {"dlq.offset": b"%d" % record.offset}
        dead[n] += [replace(commands[n][-1], headers=headers) for _ in intake.dead]
        after, decision = await settlers[n].settle(before, intake, 0)
        fences[n] = after
        commits.append(
            Commit(
                n, before.next_position, after.next_position, before.next_offset, after.next_offset
            )
        )
        for row in decision.rows:
            key = row.home_account.encode()
            events[n].append(Logged(len(events[n]), 0, key, event_bytes(row), {}))
    left = Evidence(PARTITIONS, commands, events, dead, commits, {})
    wanted = ledger_tables.expected(left, replay(left))
    tables = {name: [dict(enumerate(line)) for line in lines] for name, lines in wanted.items()}
    return replace(left, tables=tables)


def found(left: Evidence) -> list[str]:
    proof = replay(left)
    return proof.differences or list(ledger_tables.differences(left, proof))


def test_a_faultless_ledger_shows_no_difference():
    proof = replay(evidence())
    assert found(evidence()) == []
    assert proof.counts["transfers"] > 50
    assert {"account.closed", "transfer.reversed", "hold.posted"} <= set(proof.outcomes)


def with_event(change) -> Evidence:
    """Return the evidence with the first posted event of partition 0 changed."""
    left = evidence()
    at = next(
        index
        for index, logged in enumerate(left.events[0])
        if decode("ledger.events", logged.value)["type"] == "transfer.posted"
    )
    told = change(decode("ledger.events", left.events[0][at].value))
    records = list(left.events[0])
    records[at] = replace(records[at], value=encode("ledger.events", told))
    return replace(left, events={**left.events, 0: records})


@pytest.mark.parametrize(
    "change",
    [
        {"type": "transfer.rejected"},
        {"reason": "insufficient_funds"},
        {"booked_at_us": 1},
        {"tenant": "rival"},
        {"repeated": True},
        {"entries": []},
        {"command_offset": 1},
        {"metadata": {"a": "b"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_one_changed_field_of_one_event_is_a_difference(change):
    assert found(with_event(lambda told: {**told, **change}))


def test_one_minor_unit_too_much_is_a_difference():
    def more(told):
        told["entries"][1]["amount_minor"] += 1
        return told

    assert found(with_event(more))


@pytest.mark.parametrize("fault", ["lost", "doubled", "swapped", "other bytes"])
def test_events_that_are_not_the_rows_in_order_are_a_difference(fault):
    left = evidence()
    records = list(left.events[1])
    match fault:
        case "lost":
            del records[len(records) // 2]
        case "doubled":
            last = decode("ledger.events", records[-1].value)
            extra = {**last, "position": last["position"] + 1}
            records.append(replace(records[-1], value=encode("ledger.events", extra)))
        case "swapped":
            records[3], records[4] = records[4], records[3]
        case _:
            told = {**decode("ledger.events", records[2].value), "effective_at_us": 7}
            records.insert(3, replace(records[2], value=encode("ledger.events", told)))
    assert found(replace(left, events={**left.events, 1: records}))


def test_an_event_published_twice_is_none():
    left = evidence()
    records = list(left.events[1])
    records.insert(5, records[3])
    assert found(replace(left, events={**left.events, 1: records})) == []


def test_a_command_that_was_never_decided_is_a_difference():
    left = evidence()
    last = left.commands[0][-1]
    more = [*left.commands[0], replace(last, offset=last.offset + 2)]
    assert found(replace(left, commands={**left.commands, 0: more}))


def test_a_commit_lost_or_done_twice_is_a_difference():
    left = evidence()
    middle = len(left.commits) // 2
    twice = [*left.commits[:middle], left.commits[middle - 1], *left.commits[middle:]]
    assert found(replace(left, commits=twice))
    assert found(replace(left, commits=[*left.commits[:middle], *left.commits[middle + 1 :]]))


def test_a_dead_letter_missing_or_without_cause_is_a_difference():
    left = evidence()
    number = next(number for number, dead in left.dead.items() if dead)
    assert found(replace(left, dead={**left.dead, number: left.dead[number][1:]}))
    innocent = replace(left.commands[0][0], headers={"dlq.offset": b"0"})
    assert found(replace(left, dead={**left.dead, 0: [*left.dead[0], innocent]}))


def test_a_refusal_that_no_look_can_explain_is_a_difference():
    """The account was there when its partition last committed: it can't have been missed since."""

    def not_found(told):
        return {
            **told, "type": "transfer.rejected", "reason": "account_not_found", "failed_leg": 0,
            "entries": [],
        }  # fmt: skip

    assert "account_not_found" in found(with_event(not_found))[0]


@pytest.mark.parametrize(
    "table",
    ["accounts", "shares", "balances", "holds", "reversals", "identities", "partitions", "rows",
     "entries"],
)  # fmt: skip
@pytest.mark.parametrize("fault", ["lost", "doubled", "changed"])
def test_one_line_of_a_table_lost_doubled_or_changed_is_a_difference(table, fault):
    left = evidence()
    lines = list(left.tables[table])
    assert lines
    match fault:
        case "lost":
            del lines[0]
        case "doubled":
            lines.append(lines[0])
        case _:
            lines[0] = {**lines[0], 1: "another"}
    assert found(replace(left, tables={**left.tables, table: lines}))
