"""The ledger writer measured, every check and the chain on, every commit on disk.

`headrace bench ledger`; N (commands a leg), BATCH (of the centre point), SECONDS (of a peer),
AGAINST=1 (peers beside it; TIGERBEETLE=path of a server binary), CURVE=1 or MILLIONS=n (the rate as
the journal grows, and nothing else) in the environment. One axis moves at a time around a centre
point: batch 1,000, 10,000 accounts, uniform, half of the payees on another partition.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import uvloop

from deploy.local.home import PROJECT
from deploy.local.settings import settings_from
from loadtest.bench import ledger_against, ledger_legs
from loadtest.bench.ledger_load import Shape
from loadtest.bench.ledger_rig import Rig, Sizes, servers
from loadtest.bench.report import Report, print_table, say
from schemas import logs

USAGE: Final = (
    "headrace bench ledger   (N, BATCH, SECONDS, AGAINST=1, TIGERBEETLE, CURVE=1, MILLIONS)"
)
BATCHES: Final = (1, 10, 100, 1_000, 4_000)
RATE_AIM: Final = 30_000
BYTES_AIM: Final = 600
FLAT_AIM: Final = 85
AUDIT_AIM: Final = 100_000
LOCKS_AIM: Final = 20


def main(argv: list[str]) -> int:
    """Run the bench; returns the exit code."""
    if argv:
        print(f"{__doc__}\n{USAGE}")
        return 0 if argv[0] in {"-h", "--help"} else 2
    for name in ("aiokafka", "asyncio"):  # what a client says as it is stopped
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logs.configure("bench", "bench", "warning")
    settings = settings_from(os.environ, PROJECT, Path.cwd())
    sizes = Sizes.of(os.environ)
    say(f"ledger bench: {sizes}")
    with servers(settings, sizes) as rig:
        uvloop.run(_grow(rig) if sizes.millions else _measure(rig))
    return 0


async def _measure(rig: Rig) -> None:
    report = Report("ledger", "applied transfers/s, from Kafka, batch 1,000, every check")
    centre, batch = Shape(), rig.sizes.batch
    say("from memory, then from Kafka")
    rows = [await ledger_legs.memory(rig, centre, each) for each in sorted({*BATCHES, batch})]
    in_kafka = [await ledger_legs.kafka(rig, centre, each) for each in sorted({*BATCHES, batch})]
    served = [await ledger_legs.processes(rig, centre, batch, each) for each in (1, 2)]
    _show(report, "batch", [*rows, *in_kafka, *served])
    say("other accounts, spreads and payees, from memory")
    shapes = [replace(centre, accounts=each) for each in (10, 1_000_000)]
    shapes += [replace(centre, skew=each) for each in (1.0, 2.0)]
    shapes += [replace(centre, cross=each) for each in (0.0, 1.0)]
    shapes.append(replace(centre, mixed=True))
    found = [await ledger_legs.memory(rig, each, batch) for each in shapes]
    _show(report, "shape", found)
    audited = await ledger_legs.audit(rig, centre)
    _show(report, "audit", [audited])
    report.at_least("audit, per core", audited["rows/s of CPU"], AUDIT_AIM, "rows/s")
    best = max(served, key=lambda row: row["applied/s"])
    report.headline = best["applied/s"]
    report.at_least(
        f"applied from Kafka, {best['from'].partition(', ')[2]}", report.headline, RATE_AIM, "/s"
    )
    of_batch = next(row for row in rows if row["batch"] == batch)
    report.at_least("applied from memory, one process", of_batch["applied/s"], RATE_AIM, "/s")
    report.at_most("bytes on disk per transfer", best["bytes each"], BYTES_AIM, "B")
    if rig.sizes.against:
        say("peers")
        zipf = next(row for row in found if row["spread"] == "Zipf 2")
        against = await ledger_against.compare(rig)
        _show(report, "against", against)
        report.against = {row["what"]: row["transfers/s"] for row in against}
        locked = report.against[f"{ledger_against.LOCKS}, Zipf 2"]
        report.at_least("SELECT FOR UPDATE, Zipf 2", zipf["applied/s"] / locked, LOCKS_AIM, "x")
    report.finish()


async def _grow(rig: Rig) -> None:
    report = Report("ledger", "% of the rate at 1 million, at the last")
    rows = await ledger_legs.curve(rig)
    _show(report, "growth", rows)
    last, first = rows[-1], rows[0]
    report.headline = last["at the end"] / first["at the end"] * 100
    name = f"rate at {last['million']} million against that at 1 million"
    report.at_least(name, report.headline, FLAT_AIM, "%")
    whole = last["commands/s"] / first["commands/s"] * 100
    say(f"the last million against the first, which began with nothing: {whole:.1f} %")
    report.at_most("bytes on disk per transfer", rows[-1]["bytes each"], BYTES_AIM, "B")
    report.finish()


def _show(report: Report, leg: str, rows: list[dict[str, Any]]) -> None:
    print_table(leg, rows)
    report.results += [{"leg": leg, **row} for row in rows]
