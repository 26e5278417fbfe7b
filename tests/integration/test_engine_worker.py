"""The engine on real Kafka, one worker: what comes out is what a plain model says."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import CommitFailedError

from deploy.local import blocking
from deploy.local.admin import connected
from deploy.local.child import Child, wait_for
from deploy.local.kafka import Kafka
from schemas.ids import account_id
from tests.integration.engine_drill import crash_drill, drained, rows
from tests.integration.engine_rig import DRAIN_S, PARTITIONS, START_S, Rig, consuming

RigMaker = Callable[..., Rig]


@pytest.fixture
def rig(kafka: Kafka, tmp_path: Path) -> Iterator[RigMaker]:
    """Rigs of this test; their workers end with it."""
    made: list[Rig] = []

    def make(kind: str = "drill", **changes: object) -> Rig:
        made.append(Rig(kafka.bootstrap, tmp_path, kind, **changes))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.stop()


def test_outputs_state_timers_and_dead_letters_are_what_a_plain_model_says(rig: RigMaker) -> None:
    drill = rig()
    drill.produce(f"{drill.name}.a", rows(1, 600, poison=0.01))
    drill.start()
    drill.produce(f"{drill.name}.b", rows(2, 400))
    drained(drill)
    assert drill.differences() == []
    drill.workers["w0"].stop()
    assert drill.workers["w0"].exit_code() == 0
    assert drill.disk_state() == drill.changelog_state()


@pytest.mark.timeout(300)
def test_killed_at_every_step_nothing_is_lost_or_doubled(rig: RigMaker) -> None:
    assert crash_drill(rig(), seed=20261124) == []


def test_a_wiped_disk_is_rebuilt_from_the_changelog_and_a_kept_one_needs_no_restore(
    rig: RigMaker,
) -> None:
    drill = rig()
    drill.produce(f"{drill.name}.a", rows(3, 500))
    drill.start()
    drained(drill)
    drill.workers["w0"].stop()
    before = drill.disk_state()
    for wipe in (False, True):
        if wipe:
            shutil.rmtree(drill.state_dir())
        drill.start()
        drill.wait_ready()
        shown = drill.metrics()
        drill.workers["w0"].stop()
        assert drill.disk_state() == before
        restored = [line for line in drill.log() if line["event"] == "state_restored"]
        assert [line["rebuilt"] for line in restored[-PARTITIONS:]] == [wipe] * PARTITIONS
        told = {line["partition"]: line["records"] for line in restored[-PARTITIONS:]}
        assert any(told.values()) == wipe
        for number, records in told.items():
            of = f'partition="{number}",task="{drill.name}"'
            assert shown[f"headrace_streams_restore_records{{{of}}}"] == records
            assert shown[f"headrace_streams_restore_seconds{{{of}}}"] > 0


def test_what_the_broker_refuses_is_found_and_dead_lettered_alone(rig: RigMaker) -> None:
    # The topic takes batches of 100 kB; the engine alone would pass 300 kB on.
    swell = rig("swell")
    blocking.run(lambda: alter(swell, f"{swell.name}.out", "max.message.bytes", "100000"))
    sizes = [b"10", b"20", b"300000", b"30", b"40", b"50"]
    swell.produce(f"{swell.name}.a", [(0, b"k%d" % at, size) for at, size in enumerate(sizes)])
    swell.start()
    assert wait_for(swell.consumed, DRAIN_S), swell.workers["w0"].log_tail()
    out = swell.read(f"{swell.name}.out")
    assert [len(record.value) for record in out] == [10, 20, 30, 40, 50]
    labels = f'partition="0",reason="refused",task="{swell.name}"'
    assert swell.metrics()[f"headrace_streams_aborts_total{{{labels}}}"] >= 1
    [letter] = swell.read(f"{swell.name}.a.dlq")
    assert letter.value == b"300000"
    assert b"MessageSizeTooLarge" in dict(letter.headers)["dlq.reason"]
    assert sorted(key[3:] for key in swell.changelog_state()) == [b"k0", b"k1", b"k3", b"k4", b"k5"]


def test_a_worker_stops_within_its_time_under_load_and_goes_on_where_it_was(rig: RigMaker) -> None:
    drill = rig()
    for round_ in range(3):
        drill.produce(f"{drill.name}.a", rows(round_, 2_000))
        child = drill.start()
        drill.wait_ready()
        began = time.monotonic()
        child.send(signal.SIGTERM)
        assert wait_for(partial(ended, child), 5.0), child.log_tail()
        print(f"stopped after {time.monotonic() - began:.2f} s")
        assert child.exit_code() == 0
    drill.start()
    drained(drill)
    assert drill.differences() == []


def test_a_paused_owner_whose_partitions_have_moved_is_fenced_and_doubles_nothing(
    rig: RigMaker,
) -> None:
    drill = rig(settings={"session_timeout_ms": 1_500, "transaction_timeout_ms": 1_500})
    drill.produce(f"{drill.name}.a", rows(5, 3_000))
    zombie = drill.start("w0", batch_max=10)
    assert wait_for(lambda: len(drill.read(f"{drill.name}.out")) > 100, START_S), zombie.log_tail()
    zombie.send(signal.SIGSTOP)
    drill.start("w1")
    drill.wait_ready("w1")
    drill.produce(f"{drill.name}.b", rows(6, 300))
    running = f'headrace_streams_running{{partition="0",task="{drill.name}"}}'
    assert wait_for(lambda: drill.metrics("w1").get(running) == 1.0, START_S)
    zombie.send(signal.SIGCONT)
    assert wait_for(lambda: not zombie.running(), START_S), zombie.log_tail()
    assert zombie.exit_code() == 1
    drained(drill, "w1")
    assert drill.differences() == []


def test_workers_that_come_and_go_share_the_work_and_double_nothing(rig: RigMaker) -> None:
    drill = rig(settings={"session_timeout_ms": 1_500})
    drill.produce(f"{drill.name}.a", rows(8, 1_000))
    drill.start("w0", batch_max=10)
    drill.wait_ready("w0")
    for round_ in range(4):
        drill.start("w1", batch_max=10)
        drill.wait_ready("w1")
        drill.produce(f"{drill.name}.b", rows(round_, 200))
        drill.workers["w1"].kill() if round_ % 2 else drill.workers["w1"].stop()
    drained(drill)
    assert drill.differences() == []


def test_a_restart_within_the_session_time_out_moves_no_partition(rig: RigMaker) -> None:
    drill = rig(settings={"session_timeout_ms": 20_000})
    for worker in ("w0", "w1"):
        drill.start(worker)
        drill.wait_ready(worker)
    assert wait_for(lambda: shared(drill), START_S), drill.workers["w0"].log_tail()
    mine, before = owned(drill, "w0"), len(taken(drill, "w1"))
    for kill in (False, True):
        child = drill.workers["w0"]
        child.kill() if kill else child.stop()
        drill.start("w0")
        drill.wait_ready("w0")
        assert wait_for(lambda: owned(drill, "w0") == mine, START_S)
        assert len(taken(drill, "w1")) == before
    drill.produce(f"{drill.name}.a", rows(12, 200))
    drained(drill, "w1")
    assert drill.differences() == []


@pytest.mark.timeout(300)
def test_without_a_broker_one_worker_stops_in_time_and_another_goes_on_once_there_is_one(
    rig: RigMaker, kafka: Kafka
) -> None:
    drill = rig(settings={"session_timeout_ms": 2_000})
    drill.produce(f"{drill.name}.a", rows(9, 2_000))
    child, leaver = (drill.start(worker, batch_max=10) for worker in ("w0", "w1"))
    assert wait_for(lambda: shared(drill), START_S), child.log_tail()
    kafka.kill()
    leaver.send(signal.SIGTERM)
    assert wait_for(partial(ended, leaver), 5.0), leaver.log_tail()
    assert leaver.exit_code() == 0
    kafka.start()
    drill.produce(f"{drill.name}.b", rows(10, 300))
    drained(drill)
    assert child.running()
    assert drill.differences() == []


def test_offsets_changed_from_outside_stop_the_worker_with_both_numbers(rig: RigMaker) -> None:
    drill = rig()
    drill.produce(f"{drill.name}.a", [(0, b"k", b"1")] * 5)
    drill.start()
    drained(drill)
    drill.workers["w0"].stop()
    blocking.run(lambda: commit(drill, f"{drill.name}.a", 3))
    child = drill.start()
    assert wait_for(lambda: not child.running(), START_S)
    assert child.exit_code() == 1
    assert any("up to 5" in str(line) and "committed 3" in str(line) for line in drill.log())


def test_the_readmes_example_runs_as_it_stands(rig: RigMaker) -> None:
    shown = rig("readme")
    accounts = [account_id("tenant", f"key-{number}", "customer").encode() for number in range(3)]
    shown.produce("paid", [(0, each, b"%d" % amount) for each in accounts for amount in (5, 7)])
    shown.start()
    assert wait_for(shown.consumed, DRAIN_S), shown.workers["w0"].log_tail()
    told = [(record.key, record.value) for record in shown.read("paid.totals")]
    assert told == [(each, total) for each in accounts for total in (b"5", b"12")]


def test_metrics_tell_rate_lag_stages_and_state_per_partition(rig: RigMaker) -> None:
    drill = rig()
    drill.produce(f"{drill.name}.a", [(0, b"k", b"10")] * 5 + [(0, b"k", b"1")] * 42)
    drill.produce(f"{drill.name}.a", [(0, b"k", b"poison")] * 3)
    drill.start()
    drained(drill)
    of = f'partition="0",task="{drill.name}"'
    entries = f"headrace_streams_state_entries{{{of}}}"
    assert wait_for(lambda: drill.metrics().get(entries, 0) > 0, START_S)
    shown = drill.metrics()
    by_topic = f'{{{of},topic="{drill.name}.a"}}'
    assert shown[f"headrace_streams_records_total{by_topic}"] == 50
    assert shown[f"headrace_streams_lag_records{by_topic}"] == 0
    assert shown[f"headrace_streams_running{{{of}}}"] == 1
    assert shown[f"headrace_streams_dead_letters_total{{{of}}}"] == 3
    assert shown[f"headrace_streams_timers_fired_total{{{of}}}"] == 5
    written = 47 + 42 + 3 + 5 + 5  # its own, of odd ones another, letters, timers, what they cause
    assert shown[f"headrace_streams_emitted_total{{{of}}}"] == written
    assert shown[f"headrace_streams_changes_total{{{of}}}"] > 0
    assert shown[f"headrace_streams_batch_records_sum{{{of}}}"] >= 50
    assert shown[f"headrace_streams_transaction_seconds_count{{{of}}}"] >= 1
    assert shown[f"headrace_streams_lag_seconds{{{of}}}"] == 0
    assert shown[f"headrace_streams_restore_ratio{{{of}}}"] == 1
    assert shown[f"headrace_streams_restore_records{{{of}}}"] == 0
    assert shown[f"headrace_streams_state_bytes{{{of}}}"] > 0
    for reason in ("unavailable", "fenced", "refused"):
        labels = f'partition="0",reason="{reason}",task="{drill.name}"'
        assert shown[f"headrace_streams_aborts_total{{{labels}}}"] == 0
    for stage in ("handle", "send", "commit", "store"):
        labels = f'partition="0",stage="{stage}",task="{drill.name}"'
        assert shown[f"headrace_streams_stage_seconds_count{{{labels}}}"] >= 1


def owned(each: Rig, worker: str) -> set[int]:
    """The partitions that a worker handles now."""
    shown = each.metrics(worker)
    name = 'headrace_streams_running{{partition="{}",task="{}"}}'
    return {at for at in range(PARTITIONS) if shown.get(name.format(at, each.name)) == 1}


def shared(each: Rig) -> bool:
    return [len(owned(each, worker)) for worker in ("w0", "w1")] == [PARTITIONS // 2] * 2


def taken(each: Rig, worker: str) -> list[dict[str, object]]:
    """Every take-over of a partition by a worker."""
    return [line for line in each.log(worker) if line["event"] == "partition_running"]


def ended(child: Child) -> bool:
    return not child.running()


async def alter(each: Rig, topic: str, setting: str, value: str) -> None:
    async with connected(each.bootstrap) as admin:
        wanted = ConfigResource(ConfigResourceType.TOPIC, topic, {setting: value})
        await admin.alter_configs([wanted])


async def commit(each: Rig, topic: str, offset: int) -> None:
    """Commit an offset by hand, once the group has forgotten its member."""
    tp = TopicPartition(topic, 0)
    async with consuming(each.bootstrap, group_id=each.name) as consumer:
        consumer.assign([tp])
        for _ in range(100):
            try:
                await consumer.commit({tp: offset})
            except CommitFailedError:
                await asyncio.sleep(0.1)
            else:
                return
    raise AssertionError("the group does not forget its member")


def test_agents_and_timers_of_faust_work_beside_the_tasks(rig: RigMaker) -> None:
    drill = rig("control")
    drill.produce(f"{drill.name}.a", rows(11, 200))
    drill.start()
    drill.produce(f"{drill.name}.out", [(0, b"told", b"hello")])
    told = drill.folder / f"{drill.name}.told"
    assert wait_for(told.exists, START_S), drill.workers["w0"].log_tail()
    assert told.read_bytes() == b"hello"
    assert wait_for(drill.consumed, DRAIN_S)
    assert wait_for((drill.folder / f"{drill.name}.tick").exists, START_S)
    drill.workers["w0"].stop()
    assert drill.workers["w0"].exit_code() == 0


def test_the_same_input_gives_the_same_bytes_out(rig: RigMaker) -> None:
    # With no timers and one input everything is a function of the log, whatever the batches were.
    written = []
    for batch_max in (7, 200):
        swell = rig("swell")
        some = [(0, b"k%d" % (at % 5), b"%d" % (at % 90)) for at in range(300)]
        swell.produce(f"{swell.name}.a", some)
        swell.start(batch_max=batch_max)
        assert wait_for(swell.consumed, DRAIN_S), swell.workers["w0"].log_tail()
        out = swell.read(f"{swell.name}.out")
        written.append([(record.key, record.value, record.headers) for record in out])
        assert len(out) == 300
    assert written[0] == written[1]
