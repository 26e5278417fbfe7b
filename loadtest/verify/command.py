"""The command `headrace verify`: reads, compares, prints a line per check and the verdict."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson
from aiokafka.errors import KafkaError

from loadtest import stack
from loadtest.verify import compare
from loadtest.verify.evidence import Evidence, gather
from schemas.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadtest.verify.compare import Verdict


def main(argv: list[str]) -> int:
    """Verify the stack that is up; 0 if nothing differs, 1 if something does or can't be read."""
    parser = argparse.ArgumentParser(prog="headrace verify", description=__doc__)
    parser.parse_args(argv)
    try:
        running = stack.read(stack.home())
        evidence, verdicts = asyncio.run(verify(running))
    except (stack.NoStack, Unavailable, KafkaError, OSError, asyncpg.PostgresError) as error:
        print(f"headrace verify: {error}", file=sys.stderr)
        return 1
    result = summary(evidence.unsettled, verdicts)
    print(json.dumps(result))
    return 0 if result["ok"] else 1


async def verify(running: stack.Stack) -> tuple[Evidence, list[Verdict]]:
    """Read everything and run every check, printing progress."""
    started = time.monotonic()
    evidence = await gather(running, lambda line: print(f"  {line}", flush=True))
    for line in evidence.unsettled:
        print(f"  not at rest in time: {line}", flush=True)
    read_s = time.monotonic() - started
    verdicts = []
    for verdict in compare.run(evidence.tables):
        verdicts.append(verdict)
        print(line_of(verdict), flush=True)
    print(f"  read in {read_s:.1f} s, compared in {time.monotonic() - started - read_s:.1f} s")
    return evidence, verdicts


def line_of(verdict: Verdict) -> str:
    """Return the line that people read about one check."""
    mark = "ok  " if verdict.ok else "FAIL"
    line = f"  {mark} {verdict.name:<34} {verdict.count:>9,}  {verdict.says}"
    if verdict.ok:
        return line
    shown = "\n".join(
        f"         {orjson.dumps(row, default=str).decode()}" for row in verdict.examples
    )
    return f"{line}\n       {verdict.differences:,} differences, for instance:\n{shown}"


def summary(unsettled: list[str], verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Return the object that is printed last. What did not come to rest in time is a difference
    only through the checks that found something missing."""
    checks = {
        verdict.name: {
            "ok": verdict.ok,
            "count": verdict.count,
            "differences": verdict.differences,
        }
        for verdict in verdicts
    }
    differences = sum(check["differences"] for check in checks.values())
    result: dict[str, Any] = {"ok": differences == 0, "checks": checks, "differences": differences}
    return result | ({"unsettled": unsettled} if unsettled else {})
