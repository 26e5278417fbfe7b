"""Record batches in the making hold every record once, in order, whatever their size."""

from __future__ import annotations

import pytest
from aiokafka.record.memory_records import MemoryRecords

from streams.engine.faults import Refused
from streams.engine.unsent import BATCH_BYTES, Unsent, pack

OUTS = [
    (None if number % 7 == 0 else b"k%d" % number, b"v" * (number % 5_000), ())
    for number in range(1, 1_500)
]


def records(batch: Unsent, first: int) -> list[tuple[int, int, bytes | None, bytes | None]]:
    data = MemoryRecords(bytes(batch.build(5, 3, first)))
    found = []
    while data.has_next():
        read = data.next_batch()
        assert read.validate_crc()
        assert (read.producer_id, read.is_transactional) == (5, True)
        found += [(each.offset, each.timestamp, each.key, each.value) for each in read]
    return found


def test_records_are_packed_in_order_into_batches_that_a_broker_takes() -> None:
    batches = pack(OUTS, 1_000)
    assert len(batches) > 2
    assert sum(batch.records for batch in batches) == len(OUTS)
    unpacked = [record for batch in batches for record in records(batch, 0)]
    assert [(key, value) for _, _, key, value in unpacked] == [out[:2] for out in OUTS]
    assert {at_ms for _, at_ms, _, _ in unpacked} == {1_000}
    assert all(len(batch.build(5, 3, 0)) <= BATCH_BYTES for batch in pack(OUTS, 1_000))


def test_a_record_larger_than_a_batch_is_one_of_its_own() -> None:
    large = (b"k", b"v" * (BATCH_BYTES + 1), ())
    assert [batch.records for batch in pack([OUTS[0], large, OUTS[1]], 1_000)] == [1, 1, 1]


def test_nothing_is_an_empty_batch() -> None:
    (batch,) = pack([], 1_000)
    assert batch.records == 0


@pytest.mark.parametrize("bad", ["text", 7])
def test_what_is_not_bytes_is_refused(bad: object) -> None:
    with pytest.raises(Refused, match="not bytes"):
        pack([(b"k", bad, ())], 1_000)  # type: ignore[list-item]
