"""The ledger bench's own load, and what it counts, on the ledger in memory."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from ledger_writer.command import read_command
from ledger_writer.port import Record
from loadtest.bench.ledger_load import OVERDRAWN_EVERY, PARTITIONS, Load, Shape, drawer
from loadtest.bench.ledger_rig import Sizes
from loadtest.bench.ledger_writers import Feeds, Timed
from schemas import ids
from schemas.wire import decode


def commands(shape: Shape, count: int):
    for number, (partition, key, value) in enumerate(Load(shape).commands(count)):
        record = decode("ledger.commands", value)
        assert key == record["home_account"].encode()
        yield partition, read_command(record, number, 1)


@pytest.mark.parametrize("cross", [0.0, 0.5, 1.0])
def test_payees_are_elsewhere_as_often_as_asked_and_payers_always_at_home(cross):
    shape = Shape(accounts=400, cross=cross)
    found = list(commands(shape, 2_000))
    elsewhere = 0
    for partition, command in found:
        [leg] = command.legs
        homes = [
            ids.partition_of(ids.slot_of(name), PARTITIONS)
            for name in (leg.source, leg.destination)
        ]
        assert homes[0] == partition == ids.partition_of(command.slot, PARTITIONS)
        assert leg.source != leg.destination
        elsewhere += homes[1] != partition
    assert elsewhere / len(found) == pytest.approx(cross, abs=0.05)


def test_every_two_hundredth_command_of_a_partition_overdraws_its_source():
    load = Load(Shape(accounts=40))
    poor = {each.account_id for each in load.opened if not each.posted_minor}
    found = [command for _, command in commands(load.shape, PARTITIONS * OVERDRAWN_EVERY * 2)]
    assert sum(command.legs[0].source in poor for command in found) == PARTITIONS * 2
    assert not any(command.legs[0].destination in poor for command in found)


def test_the_same_shape_gives_the_same_commands_however_they_are_asked_for():
    load = Load(Shape(accounts=40, skew=1.0, mixed=True))
    parts = [*load.commands(300), *load.commands(500)]
    assert parts == list(Load(load.shape).commands(800))


def test_a_mixed_load_repeats_holds_and_captures():
    found = [command for _, command in commands(Shape(accounts=40, mixed=True), 4_000)]
    kinds = Counter(command.type for command in found)
    assert kinds["hold.place"] == pytest.approx(80, abs=8)
    assert kinds["hold.post"] == pytest.approx(80, abs=8)
    assert len(found) - len({command.identity for command in found}) == 40


def test_a_drawer_of_zipf_two_draws_its_first_name_three_times_in_five():
    draw = drawer(range(1_000), 2.0, Random(1))
    drawn = Counter(draw() for _ in range(5_000))
    assert drawn[0] / 5_000 == pytest.approx(0.61, abs=0.03)


async def test_feeds_go_on_where_they_ended_and_time_full_batches_only():
    feeds = Feeds()
    timed = Timed(feeds)
    async with timed.open(1, 0) as log:
        taken: list[Record] = []
        for count in (20, 12):
            feeds.feed([(1, b"k", b"%d" % number) for number in range(count)])
            while found := await log.take(8):
                taken += found
    assert [record.offset for record in taken] == list(range(32))
    assert len(timed.batches_s) == 3  # 8 and 8 of the first feed, 8 of the second


def test_sizes_come_from_the_environment():
    usual = Sizes.of({})
    assert (usual.batch, usual.against, usual.millions, usual.tigerbeetle) == (
        1_000,
        False,
        0,
        None,
    )
    asked = Sizes.of({"CURVE": "1", "AGAINST": "1", "BATCH": "50", "TIGERBEETLE": "/opt/tb"})
    assert (asked.millions, asked.against, asked.batch, str(asked.tigerbeetle)) == (
        10,
        True,
        50,
        "/opt/tb",
    )
