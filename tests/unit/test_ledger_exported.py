"""Exported rows: whole, in one form, and proven from their file alone. COPY lines likewise."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import orjson
import pytest
from msgspec.structs import replace

from ledger_writer.audit_export import audit_export, manifest_path
from ledger_writer.chain import canonical
from ledger_writer.cli import main
from ledger_writer.columns import stored
from ledger_writer.command import read_command
from ledger_writer.copied import Name, Taker
from ledger_writer.decide import decide
from ledger_writer.exported import CSV_HEADER, csv_line, json_line, read_csv, read_json
from ledger_writer.identity import claimed_by
from ledger_writer.model import GENESIS, Account, Standing, View
from ledger_writer.progress import Progress
from ledger_writer.samples import (
    TENANT,
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
from ledger_writer.verify import Verifier

ALICE, BOB = account_on(0, 2), account_on(0, 2, skip=1)
BANK, FAR = account_on(0, 2, "external"), account_on(1, 2)
FUND = transfer("fund", (BANK, ALICE, 100), reference='r"\\,ü', metadata={"k": "a\tb\n"})
HELD = hold("held", ALICE, BOB, 9, expires_at_us=1)
LINKED = transfer("linked", (ALICE, FAR, 3), (FAR, ALICE, 1))
ELSEWHERE = Account(1025, FAR, TENANT, "EUR", "customer", None, 0, 50, 1)
DECISION = decide(
    View(0, 2, 1, 0, GENESIS, {FAR: Standing(ELSEWHERE, 0, 0, 0, 9, None)}, {}, set()),
    [
        read_command(record, 3 * offset, 1_700_000_000_000 + offset)
        for offset, record in enumerate(
            [
                open_account(ALICE, account_name='Ali"ce\\’s'),
                open_account(BOB),
                open_account(BANK),
                FUND,
                transfer("pay", (ALICE, BOB, 60), effective_at_us=5),
                transfer("pay", (ALICE, BOB, 60), effective_at_us=5),
                transfer("poor", (ALICE, BOB, 60), transfer_id="tr_1"),
                transfer("pay", (ALICE, BOB, 61)),
                reject("slow", BOB, "velocity_limit"),
                transfer("legs", (ALICE, BOB, 1), (BOB, BANK, 2), identity="a" * 26),
                transfer("try", (ALICE, BOB, 1), dry_run=True),
                transfer("out", (ALICE, BANK, 1)),
                HELD,
                capture("part", HELD, 4),
                expire(HELD),
                reverse("back", FUND, 7),
                flags("account.freeze", "freeze", BOB, credits=True),
                LINKED,
                linked("transfer.commit", LINKED, ALICE, 0),
            ]
        )
    ],
)
ROWS = DECISION.rows
NAMES = {
    str(a.account_no): Name(a.account_no, a.account_id, a.currency)
    for a in [*DECISION.opened, ELSEWHERE]
}
KINDS = {
    "account.opened", "account.frozen", "hold.placed", "hold.posted", "hold.voided",
    "transfer.posted", "transfer.rejected", "transfer.reversed", "transfer.prepared",
    "transfer.committed",
}  # fmt: skip
assert {row.type for row in ROWS} == KINDS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.position}-{row.type}-{row.reason}")
def test_an_exported_row_comes_back_with_all_that_its_hash_covers(row):
    for line, read in ((json_line(row), read_json), (csv_line(row), read_csv)):
        back = read(line)
        assert canonical(back) == canonical(row)
        assert replace(back, repeats=None) == replace(row, repeats=None)
        assert line.count("\n") == 1


def exported(folder: Path, form: str, first: int = 1) -> Path:
    path = folder / f"journal.{form}"
    rows = [row for row in ROWS if row.position >= first]
    text = CSV_HEADER if form == "csv" else ""
    text += "".join(csv_line(row) if form == "csv" else json_line(row) for row in rows)
    path.write_text(text)
    before = GENESIS if first == 1 else ROWS[first - 2].chain_hash
    part = {"partition": 0, "from": first, "to": ROWS[-1].position}
    part |= {"chain_hash_before": before.hex(), "chain_hash": ROWS[-1].chain_hash.hex()}
    manifest = {"form": 1, "format": form, "rows": len(rows), "partitions": [part]}
    manifest["sha256"] = sha256(text.encode()).hexdigest()
    manifest_path(path).write_bytes(orjson.dumps(manifest))
    return path


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("first", range(1, len(ROWS) + 1))
def test_an_export_is_proven_from_its_file_alone(tmp_path, form, first):
    result = audit_export(exported(tmp_path, form, first), Progress(None))
    assert result["ok"], result
    assert result["rows"] == len(ROWS) - first + 1


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_any_byte_of_an_export_that_was_changed_is_found_at_its_row(tmp_path, form):
    path = exported(tmp_path, form)
    sound = path.read_bytes()
    rows_start = sound.index(b"\n") + 1 if form == "csv" else 0
    first_mention = sound.index(b":1025,") + 1  # of an account whose opening is not in the file
    for at in range(0, len(sound), 31):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        result = audit_export(path, Progress(None))
        assert not result["ok"], at
        named = not first_mention <= at < first_mention + 4
        if named and at >= rows_start and sound[at : at + 1] != b"\n":
            row = sound[rows_start:at].count(b"\n") + 1
            found = result["findings"][0]
            stands = f"stands where {row} belongs" in found["problem"]
            assert stands or found["position"] == row, (at, result["findings"])


def test_a_number_that_its_opening_row_contradicts_is_found(tmp_path):
    path = exported(tmp_path, "jsonl")
    lines = path.read_text().splitlines(keepends=True)
    manifest = orjson.loads(manifest_path(path).read_bytes())
    manifest["partitions"].insert(0, manifest["partitions"][0] | {"partition": 1, "to": 1})
    far = replace(ROWS[0], partition=1, entries=ROWS[-1].entries[1:2])
    wrong = json_line(replace(far, type="transfer.posted")).replace(":1025,", ":2049,")
    opened = json_line(replace(far, type="account.opened", position=2, home_account=FAR))
    path.write_text(wrong + opened + "".join(lines))
    manifest_path(path).write_bytes(orjson.dumps(manifest))
    problems = [found["problem"] for found in audit_export(path, Progress(None))["findings"]]
    assert any("is number 2049, not " in problem for problem in problems), problems


def test_rows_removed_from_an_export_or_swapped_in_it_are_found(tmp_path):
    path = exported(tmp_path, "jsonl")
    lines = path.read_text().splitlines(keepends=True)
    swapped = [*lines[:4], lines[5], lines[4], *lines[6:]]
    for told in (lines[1:], lines[:4] + lines[5:], lines[:-1], lines[:3], swapped, []):
        path.write_text("".join(told))
        assert not audit_export(path, Progress(None))["ok"], len(told)


def copied(row) -> str:
    """The row as Postgres's COPY writes it."""

    def text(value) -> str:
        if value is None:
            return "\\N"
        if isinstance(value, bytes):
            return "\\\\x" + value.hex()
        if isinstance(value, list):
            return "{" + ",".join(map(str, value)) + "}"
        return str(value).replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")

    return "\t".join(map(text, stored(row)))


def taken(lines: list[str]) -> tuple[Verifier, list]:
    verifier = Verifier()
    keys = {row.position: key for row in ROWS if (key := claimed_by(row))}
    return verifier, list(Taker(verifier, NAMES).take(0, lines, keys))


def test_rows_read_from_copied_text_come_to_the_same_as_rows():
    verifier, findings = taken([copied(row) for row in ROWS])
    plain = Verifier()
    assert [*findings, *(f for row in ROWS for f in plain.take(0, row))] == []
    for name in ("rows", "entries", "shares", "accounts", "debited_minor"):
        assert getattr(verifier, name) == getattr(plain, name), name
    assert verifier.chain(0).seal == plain.chain(0).seal == ROWS[-1].chain_hash


def test_any_column_of_copied_text_that_was_changed_is_found_at_its_row():
    for row in ROWS:
        until = [copied(each) for each in ROWS[: row.position - 1]]
        fields = copied(row).split("\t")
        for column, text in enumerate(fields):
            for other in ("\\N", "", text + "1", "1", "{}", "{1,2}", "\\\\x00", "[1:1]={3}"):
                if other == text:
                    continue
                changed = "\t".join([*fields[:column], other, *fields[column + 1 :]])
                findings = taken([*until, changed])[1]
                assert findings, (row.position, column, text, other)
                if column:
                    assert findings[0].position in {0, row.position}, (findings, column, other)
                else:
                    stands = f"where {row.position} belongs" in findings[0].problem
                    assert stands or findings[0].position == 0, findings


def test_any_byte_of_any_value_of_copied_text_that_was_changed_is_found_at_its_row():
    lines, found = [copied(row) for row in ROWS], 0
    for row in ROWS:
        until = lines[: row.position - 1]
        fields = lines[row.position - 1].split("\t")
        for column, text in enumerate(fields):
            form = 3 if text.startswith("\\\\x") else text.startswith("{")  # COPY's, no value
            for at in range(form, len(text) - text.endswith("}") if text != "\\N" else 0):
                other = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
                changed = "\t".join([*fields[:column], other, *fields[column + 1 :]])
                findings = taken([*until, changed])[1]
                assert findings, (row.position, column, text, other)
                if column:  # else it says that it is another row
                    assert findings[0].position in {0, row.position}, (text, other, findings)
                found += 1
    assert found > 5_000


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["export", "journal", "--from", "0"], "--from: '0' is not a position"),
        (["export", "journal", "--partition", "x"], "--partition: 'x' is not a partition"),
        (["export", "journal", "--format", "xml"], "--format: invalid choice: 'xml'"),
        (["export", "statement", "a", "--from", "today"], "--from: 'today' is not a time"),
        (["export", "journal", "--from", "5", "--to", "4"], "--to: 4 is before --from 5"),
        (["audit", "--export", "/nowhere/x"], "--export: /nowhere/x: its manifest can't be read"),
    ],
)
def test_wrong_input_is_told_by_field_and_rule(argv, told, capsys):
    try:
        code = main(argv)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert told in capsys.readouterr().err
