"""The demo as a command: it starts its own stack, proves it, writes its figures, leaves nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from deploy.local.home import Home
from deploy.local.stackfile import read_record
from loadtest import demo

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)


def test_a_small_demo_holds_writes_its_figures_and_leaves_nothing_running(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = run_folder / "demo-home"
    monkeypatch.setenv("HEADRACE_HOME", str(home))
    monkeypatch.setenv("HEADRACE_SESSION_TIMEOUT_MS", "4000")
    monkeypatch.setenv("HEADRACE_LAKE_COMMIT_INTERVAL_MS", "1000")
    arguments = ["--payments", "1500", "--rate", "300", "--accounts", "100", "--webhooks", "100"]
    code = demo.main([*arguments, "--no-kills"])
    printed = capsys.readouterr()
    assert code == 0, printed.out[-3_000:] + printed.err

    document = json.loads((home / "demo.json").read_text())
    assert document["ok"] is True
    assert document["in_flight"] == 0
    rejected = document["rejected"]
    assert document["accepted"] == document["settled"] + sum(rejected.values()) > 1_500
    assert rejected["insufficient_funds"] > 0
    assert rejected["velocity_limit"] > 0
    assert document["repeated"] == 75
    assert document["conflicting"] == 8
    assert document["webhooks"]["verified"] == 100
    assert document["webhooks"]["quarantined"] == 1
    assert document["latency_ms"]["p50"] > 0
    assert {"gateway", "streams", "ledger_writer", "kafka", "postgres"} <= document[
        "cpu_ms_per_payment"
    ].keys()
    assert document["verify"]["ok"] is True
    assert "<svg" in (home / "demo.html").read_text()

    assert not (home / "demo" / "stack.json").exists()
    record = read_record(Home(home / "demo"))
    assert record is None or not record.alive()
