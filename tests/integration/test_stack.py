"""The stack as a whole: what dies comes back, two stacks live side by side, and down is down."""

from __future__ import annotations

import io
import os
import re
import signal
import stat
import urllib.request
from pathlib import Path

import pytest

from deploy.local import control
from deploy.local.child import identify, wait_for
from deploy.local.credentials import load_or_create
from deploy.local.home import Home
from deploy.local.settings import DSN_OF_ROLE
from deploy.local.stackfile import read_record, read_stack
from deploy.local.units import fetch
from schemas.topics import TOPICS

pytestmark = pytest.mark.timeout(240)

ROLES = ("gateway", "streams", "ledger_writer", "views", "lake")
CONTRACT = {
    "gateway_url",
    "webhooks_url",
    "kafka",
    "postgres",
    "lake",
    "api_keys",
    "processes",
}


@pytest.fixture(scope="module")
def other(unstarted_stack):
    """A second stack beside the session's; what a test did to it the next one finds."""
    second = unstarted_stack("other")
    try:
        second.start()
        yield second
    finally:
        second.stop()


def members(home: Home) -> set[int]:
    """Every process that has this home in its command line or environment."""
    found = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if re.search(re.escape(str(home.root).encode()) + rb"[/\0]", text):
            found.add(int(folder.name))
    return {pid for pid in found if identify(pid)}


def listening_addresses(pids: set[int]) -> set[str]:
    """The local addresses, in hex as the kernel shows them, on which these processes listen."""
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = descriptor.readlink().name
            except OSError:
                continue
            if target.startswith("socket:["):
                sockets.add(target[8:-1])
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                addresses.add(fields[1].partition(":")[0])
    return addresses


def test_the_stack_file_says_what_clients_rely_on(stack):
    assert set(stack.file) >= CONTRACT
    assert set(stack.file["postgres"]) == {"ledger", "views", "lake_catalog"}
    assert set(stack.file["lake"]) == {"catalog", "warehouse"}
    assert {entry["role"] for entry in stack.file["processes"]} == set(ROLES)
    assert stat.S_IMODE(stack.home.stack_file.stat().st_mode) == 0o600
    for entry in stack.file["processes"]:
        assert b"headrace_ready 1" in fetch(entry["metrics_url"])


def test_the_gateway_is_ready_when_up_returns(stack):
    with urllib.request.urlopen(f"{stack.url}/readyz", timeout=5) as answer:
        assert answer.status == 200


def test_nothing_listens_beyond_the_loopback_interface(stack):
    pids = members(stack.home)
    assert len(pids) >= len(ROLES) + 3  # the supervisor, Kafka, Postgres
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, also as an IPv6 one
    assert listening_addresses(pids) <= loopback


@pytest.mark.parametrize("role", ROLES)
def test_a_killed_process_is_started_again_under_a_new_pid(stack, role):
    old = stack.kill(role)
    stack.await_back(role, old)
    assert stack.process(role)["pid"] != old
    assert stack.process(role)["restarts"] >= 1


def test_a_wiped_worker_comes_back(stack):
    stack.wipe_state("streams")
    assert stack.home.state("streams-0").exists()


def test_a_restarted_broker_keeps_its_address(stack):
    before = stack.kafka
    stack.restart("kafka")
    assert stack.kafka == before


def test_a_second_stack_in_another_folder_runs_at_the_same_time(stack, other):
    assert other.url != stack.url
    assert other.kafka != stack.kafka
    assert other.api_key != stack.api_key
    assert stack.is_ready()
    assert other.is_ready()


def test_down_leaves_no_process_even_when_the_supervisor_was_killed(stack, other):
    paused = other.pause("streams")
    os.kill(read_record(other.home).supervisor.pid, signal.SIGKILL)
    other.supervisor.process.wait()
    control.down(other.home, io.StringIO())
    assert wait_for(lambda: not members(other.home), 20), members(other.home)
    assert identify(paused) is None
    assert read_stack(other.home) is None
    assert read_record(other.home) is None
    assert stack.is_ready()


def test_a_stack_comes_up_again_on_its_data_and_goes_down_clean(other):
    other.stop()
    other.start()
    assert other.api_key == load_or_create(other.home.credentials).api_key
    starts = re.findall(r"\((\d+) new\)", other.home.log("supervisor").read_text())
    assert starts == [str(len(TOPICS)), "0"]
    assert members(other.home)
    other.stop()
    assert not members(other.home)


def test_a_part_that_cannot_start_is_named_and_nothing_is_left(new_stack, run_folder):
    before = {folder.name for folder in run_folder.iterdir()}
    with pytest.raises(control.ControlError, match=r"no Java 17(.|\n)*HEADRACE_JAVA"):
        new_stack(HEADRACE_JAVA="/nowhere/java")
    (folder,) = {folder.name for folder in run_folder.iterdir()} - before
    assert wait_for(lambda: not members(Home(run_folder / folder)), 20)


def test_servers_that_are_given_are_used_and_not_started(new_stack, clean_topics, new_database):
    given = {"HEADRACE_KAFKA": clean_topics()}
    for database in ("ledger", "views", "lake"):
        urls = new_database(database)
        given |= {DSN_OF_ROLE[role]: url for role, url in urls.items()}
    stack = new_stack(**given)
    assert stack.file["servers"] == []
    assert stack.kafka == given["HEADRACE_KAFKA"]
    assert stack.dsn("ledger_writer") == given["HEADRACE_LEDGER_DSN"]
    assert not stack.home.kafka.exists()
    assert not stack.home.postgres.exists()
