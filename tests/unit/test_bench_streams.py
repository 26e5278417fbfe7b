"""The stream bench's own arithmetic: what it calls steady, its percentiles, and its load."""

import os
from pathlib import Path

import pytest

from loadtest.bench import streams_records as records
from loadtest.bench.streams_kafka import outcome_of
from loadtest.bench.streams_latency import TICK_S, cut
from loadtest.bench.streams_meter import BenchError, Seen, by_output, steady
from loadtest.bench.streams_payments import ANSWERED_AFTER_US, REQUESTS, STEP_US, Load
from loadtest.bench.streams_plain import Names, plain
from loadtest.bench.streams_rig import RULES
from loadtest.generator.histogram import exact_quantile
from schemas import ids, wire
from streams.engine.memory import MemoryRecord, MemoryTask
from streams.payments import task as payments_task
from streams.payments import velocity

NOW_US = 1_800_000_000_000_000


def looks(*points):
    return [Seen(at, done, at * 0.5, at * 0.25) for at, done in points]


def test_steady_leaves_out_the_start_and_the_wait_for_the_last_commit():
    seen = looks((0, 0), (5, 0), (6, 100), (7, 200), (8, 500), (9, 800), (10, 900), (15, 1000))
    found = steady(seen, os.getpid())
    assert (found.records, found.seconds) == (700, 3)
    assert found.rate == pytest.approx(700 / 3)
    assert found.cpu_us == pytest.approx(1.5 / 700 * 1e6)


def test_few_large_commits_are_measured_to_the_end():
    found = steady(looks((0, 0), (5, 400), (10, 1000)), os.getpid())
    assert (found.records, found.seconds) == (600, 5)


def test_where_commits_are_rare_the_output_tells_what_happened_between_them():
    seen = [Seen(at, 0, at, at, written=written) for at, written in ((0, 0), (1, 110), (2, 220))]
    seen += [Seen(3, 0, 3, 3, written=330), Seen(8, 300, 8, 8, written=330)]
    assert [each.done for each in by_output(seen)] == [0, 100, 200, 300, 300]
    assert steady(by_output(seen), os.getpid()).rate == pytest.approx(100)


def test_one_commit_is_no_measurement():
    with pytest.raises(BenchError, match="raise N"):
        steady(looks((0, 0), (5, 1000)), os.getpid())


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(share, value):
    assert exact_quantile(range(1, 101), share) == value


def test_a_schedule_keeps_the_rate_and_the_order():
    source = [(number % 2, b"k", b"%d" % number) for number in range(1_000)]
    ticks = cut(source, per_second=333, seconds=1, partitions=2)
    sent = [value for tick in ticks for partition in tick for _, value in partition]
    assert len(ticks) == round(1 / TICK_S)
    assert sorted(sent, key=int) == [b"%d" % number for number in range(333)]
    assert max(len(part) for tick in ticks for part in tick) <= 2


def test_the_plain_task_writes_what_the_model_says():
    made = list(records.payments(2_000, accounts=50, partitions=4))
    task = plain(Names("t", "in"), None)
    written = []
    for partition in range(4):
        memory = MemoryTask(task, partition)
        mine = [(key, value) for where, key, value in made if where == partition]
        fetched = [MemoryRecord("in", at, 1, *each) for at, each in enumerate(mine)]
        memory.feed_fetched(fetched)
        written += [(partition, key, value) for _, key, value, _ in memory.outputs["t.out"]]
    model = outcome_of(records.expected(iter(made)))
    assert outcome_of(written).differences(model) == 0
    lost, changed = outcome_of(written[1:]), outcome_of([*written[:-1], (0, b"k", b"v")])
    assert lost.differences(model)
    assert changed.differences(model)


def test_the_window_holds_five_minutes_and_no_more():
    ring = [0] * 3 * records.BUCKETS
    start = records.STARTS_AT_US // records.MINUTE_US * records.MINUTE_US
    for minute in range(4):
        records.turn(ring, start + minute * records.MINUTE_US, 10)
    assert records.turn(ring, start + 4 * records.MINUTE_US, 10) == (5, 50)
    assert records.turn(ring, start + 5 * records.MINUTE_US, 10) == (5, 50)
    assert records.turn(ring, start + 60 * records.MINUTE_US, 10) == (1, 10)


def test_the_payment_load_settles_every_payment_under_at_least_five_rules():
    rules = velocity.parse_rules(yaml_of(RULES))
    assert sum(rule.mode == "enforce" for rule in rules.rules) >= 5
    load = Load(400, accounts=50, partitions=1, starts_at_us=NOW_US)
    memory = MemoryTask(payments_task.task(rules), 0, 1)
    for (_, key, value, at_ms), (_, _, answer, answered_ms) in zip(
        load.requests(), load.answers(), strict=True
    ):
        assert answered_ms - at_ms == ANSWERED_AFTER_US // 1000
        memory.feed([(REQUESTS, key, value, at_ms * 1000)])
        memory.feed([("ledger.events", key, answer, answered_ms * 1000)])
    events = [wire.decode("payments.events", each[2]) for each in memory.outputs["payments.events"]]
    assert [each["type"] for each in events] == ["payment.accepted", "payment.settled"] * 400
    assert len(memory.outputs["gateway.replies"]) == 80
    assert not memory.outputs["ledger.events.dlq"]


def test_the_payment_load_comes_on_the_partition_its_slot_says():
    for partition, key, value, at_ms in Load(50, 20, 4, NOW_US).requests():
        request = wire.decode(REQUESTS, value)
        assert ids.partition_of(ids.slot_of(key.decode()), 4) == partition
        assert request["received_at_us"] // 1000 == at_ms
    assert (at_ms * 1000 - NOW_US) // STEP_US == 49


def yaml_of(path: Path):
    import yaml

    return yaml.safe_load(path.read_text())
