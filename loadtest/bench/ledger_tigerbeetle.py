"""TigerBeetle beside the ledger writer: one replica of the binary given, its own Python client.

Accounts may not be overdrawn (`debits_must_not_exceed_credits`), ids rise with time as its
documentation recommends, and batches are sent one after another by one client. Nothing of it is
imported or started unless a server binary is named.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import time
from random import Random
from typing import TYPE_CHECKING, Any, Final

from deploy.local.child import Child, Command, wait_for
from deploy.local.ports import accepts, free_port
from loadtest.bench.ledger_load import drawer
from loadtest.bench.report import say
from loadtest.bench.streams_meter import BenchError
from loadtest.bench.streams_rig import running

if TYPE_CHECKING:
    from pathlib import Path

    from loadtest.bench.ledger_rig import Rig

ACCOUNTS: Final = 10_000
BATCHES: Final = (1, 10, 100, 1_000, 8_000)
LEDGER, CODE = 1, 1
SOURCE_ID: Final = ACCOUNTS + 1
FUNDS: Final = 1_000_000_000_000
CHUNK: Final = 8_000
"""Events of one request, below the server's bound of 8,189."""

FORMAT_WITHIN_S: Final = 60.0
READY_WITHIN_S: Final = 30.0


def tigerbeetle(rig: Rig) -> list[dict[str, Any]]:
    """Return a row for each batch size; empty when the client is not installed."""
    try:
        client_library: Any = importlib.import_module("tigerbeetle")
    except ImportError:
        say("  TigerBeetle: not run; its Python client (package tigerbeetle) is not installed")
        return []
    assert rig.sizes.tigerbeetle is not None
    file = rig.folder / "tigerbeetle.data"
    file.unlink(missing_ok=True)
    try:
        return _measured(rig, client_library, rig.sizes.tigerbeetle, file)
    finally:
        file.unlink(missing_ok=True)


def _measured(rig: Rig, tb: Any, server: Path, file: Path) -> list[dict[str, Any]]:
    port = free_port()
    with running(_server(rig, server, file, port)) as child:
        if not wait_for(lambda: child.running() and accepts(port), READY_WITHIN_S):
            raise BenchError(f"TigerBeetle does not start: read {child.command.log}")
        with tb.ClientSync(cluster_id=0, replica_addresses=str(port)) as client:
            _open_accounts(tb, client)
            rows = []
            for batch in BATCHES:
                for skew, spread in ((0.0, "uniform"), (2.0, "Zipf 2")):
                    rate = _rate(tb, client, batch, skew, rig.sizes.seconds)
                    what = f"TigerBeetle, Python client, batch {batch}, {spread}"
                    rows.append({"what": what, "transfers/s": rate, "batch": batch})
                    say(f"  {what}: {rate:,.0f}/s")
            return rows


def _server(rig: Rig, server: Path, file: Path, port: int) -> Child:
    formatted = subprocess.run(
        [server, "format", "--cluster=0", "--replica=0", "--replica-count=1", file],
        capture_output=True,
        text=True,
        check=False,
        timeout=FORMAT_WITHIN_S,
    )
    if formatted.returncode:
        raise BenchError(f"{server} cannot format {file}: {formatted.stderr.strip()}")
    return Child(
        Command(
            name="tigerbeetle",
            argv=(str(server), "start", f"--addresses=127.0.0.1:{port}", str(file)),
            log=rig.folder / "logs" / "tigerbeetle.log",
            env={"PATH": os.environ.get("PATH", os.defpath)},
            cwd=rig.folder,
            stop_within_s=20.0,
        )
    )


def _open_accounts(tb: Any, client: Any) -> None:
    """Open the accounts and give each its funds from one that has no bound."""
    bounded = tb.AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS
    accounts = [_account(tb, number, bounded) for number in range(1, ACCOUNTS + 1)]
    accounts.append(_account(tb, SOURCE_ID, 0))
    for begin in range(0, len(accounts), CHUNK):
        results = client.create_accounts(accounts[begin : begin + CHUNK])
        _check(results, tb.CreateAccountStatus.CREATED, "an account")
    funds = [_transfer(tb, SOURCE_ID, number, FUNDS) for number in range(1, ACCOUNTS + 1)]
    for begin in range(0, len(funds), CHUNK):
        _send(tb, client, funds[begin : begin + CHUNK])


def _rate(tb: Any, client: Any, batch: int, skew: float, seconds: float) -> float:
    """Applied transfers a second; making the objects is part of it, as it is for the writer."""
    random = Random(1)
    draw = drawer(range(1, ACCOUNTS + 1), skew, random)
    made, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        transfers: list[Any] = []
        while len(transfers) < batch:
            source, destination = draw(), draw()
            if source != destination:
                transfers.append(_transfer(tb, source, destination, random.randint(1, 100)))
        _send(tb, client, transfers)
        made += batch
    return made / (time.perf_counter() - began)


def _send(tb: Any, client: Any, transfers: list[Any]) -> None:
    results = client.create_transfers(transfers)
    _check(results, tb.CreateTransferStatus.CREATED, "a transfer")


def _check(results: Any, created: Any, what: str) -> None:
    """Every event must have been created: the answer has a status for each."""
    refused = [result.status for result in results if result.status != created]
    if refused:
        raise BenchError(f"TigerBeetle refuses {what}: {refused[0]}")


def _account(tb: Any, number: int, flags: Any) -> Any:
    return tb.Account(
        id=number,
        debits_pending=0,
        debits_posted=0,
        credits_pending=0,
        credits_posted=0,
        user_data_128=0,
        user_data_64=0,
        user_data_32=0,
        ledger=LEDGER,
        code=CODE,
        flags=flags,
        timestamp=0,
    )


def _transfer(tb: Any, source: int, destination: int, amount: int) -> Any:
    return tb.Transfer(
        id=tb.id(),
        debit_account_id=source,
        credit_account_id=destination,
        amount=amount,
        pending_id=0,
        user_data_128=0,
        user_data_64=0,
        user_data_32=0,
        timeout=0,
        ledger=LEDGER,
        code=CODE,
        flags=0,
        timestamp=0,
    )
