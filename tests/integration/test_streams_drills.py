"""The short set of the stream engine's fault drills, and proof that they can fail."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from loadtest.drills import streams_model as model
from loadtest.drills.streams import drill
from loadtest.drills.streams_kinds import kind_of
from loadtest.drills.streams_load import Mix, feed
from loadtest.drills.streams_model import Logged, Wrote
from tests.integration.streams_canaries import noticed

SHORT_SET = (2, 3, 4, 9, 12, 14)
CANARIES_SHORT = (
    "commits_before_the_offsets",
    "drops_dead_letters",
    "writes_the_store_before_the_commit",
)


@pytest.mark.timeout(240)
async def test_what_the_engine_leaves_after_faults_is_what_a_model_says(kafka, run_folder):
    verdicts = await drill(run_folder / "drills", kafka, SHORT_SET, jobs=3)
    assert [verdict.differences for verdict in verdicts] == [[]] * len(SHORT_SET)
    assert {"crash points", "SIGKILL", "zombie", "generations"} <= {
        kind_of(seed) for seed in SHORT_SET
    }
    assert all(verdict.checked for verdict in verdicts)
    assert all(verdict.faults for verdict in verdicts)


@pytest.mark.timeout(240)
async def test_an_engine_that_is_broken_on_purpose_shows_differences(kafka, run_folder):
    found = await asyncio.gather(*(noticed(kafka, run_folder, name) for name in CANARIES_SHORT))
    assert all(found), dict(zip(CANARIES_SHORT, found, strict=True))


def case():
    """A partition's input, and what a faultless task wrote of it."""
    logs: dict[bool, list[Logged]] = {False: [], True: []}
    for fed in feed(1, Mix(records=900, keys=8, partitions=1)):
        log = logs[fed.side]
        log.append(Logged(len(log), 1, fed.key, fed.value))
    wanted = model.expect(logs[False], logs[True])
    dead = [
        Logged(0, 1, *pair, {"dlq.offset": b"%d" % offset, "dlq.reason": reason.encode()})
        for offset, (reason, pair) in wanted.dead.items()
    ]
    topics = {
        "out": [Logged(0, 1, *pair) for pair in wanted.out],
        "side.out": [Logged(0, 1, *pair) for pair in wanted.side_out],
        "fired": [Logged(0, wanted.may_fire[pair], *pair) for pair in wanted.must_fire.items()],
        "in.dlq": dead,
        "small": [],
        "side.dlq": [],
    }
    state = {1: wanted.totals, 2: wanted.sides}
    return wanted, Wrote(topics, state, timers_left=0, store_differs=0)


def test_a_faultless_task_shows_no_difference():
    wanted, wrote = case()
    assert wanted.must_fire
    assert wanted.dead
    assert not model.differences(wanted, wrote)


@pytest.mark.parametrize("name", ["out", "side.out", "fired", "in.dlq"])
@pytest.mark.parametrize("fault", ["lost", "doubled", "changed"])
def test_one_record_lost_doubled_or_changed_is_a_difference(name, fault):
    wanted, wrote = case()
    records = list(wrote.topics[name])
    match fault:
        case "lost":
            del records[len(records) // 2]
        case "doubled":
            records.append(records[-1])
        case _:
            records[0] = replace(records[0], key=b"another", headers={"dlq.offset": b"77777"})
    wrote = replace(wrote, topics={**wrote.topics, name: records})
    assert len(model.differences(wanted, wrote)) == 1


def test_two_outputs_that_changed_places_are_a_difference():
    wanted, wrote = case()
    swapped = [*wrote.topics["out"]]
    swapped[3], swapped[4] = swapped[4], swapped[3]
    wrote = replace(wrote, topics={**wrote.topics, "out": swapped})
    assert model.differences(wanted, wrote) == ["out: the order differs"]


@pytest.mark.parametrize("collection", [1, 2, 3])
def test_one_state_value_that_should_not_be_is_a_difference(collection):
    wanted, wrote = case()
    state = {**wrote.state, collection: {**wrote.state.get(collection, {}), b"x": b"1"}}
    assert len(model.differences(wanted, replace(wrote, state=state))) == 1


def test_a_timer_left_behind_and_a_store_that_disagrees_are_differences():
    wanted, wrote = case()
    assert len(model.differences(wanted, replace(wrote, timers_left=1, store_differs=2))) == 2


def test_a_timer_that_fired_early_is_a_difference():
    wanted, wrote = case()
    early = [replace(each, at_ms=each.at_ms - 1) for each in wrote.topics["fired"]]
    wrote = replace(wrote, topics={**wrote.topics, "fired": early})
    assert "fired early" in model.differences(wanted, wrote)[0]


def test_passing_over_a_poisoned_record_is_a_difference():
    wanted, wrote = case()
    first = min(wanted.dead)
    before = [each for each in wrote.topics["out"] if int(each.value[1:].split(b",")[0]) < first]
    assert not model.prefix_differences(wanted, before, first)
    assert model.prefix_differences(wanted, before, first + 1)
    assert model.prefix_differences(wanted, before[:-1], first)
