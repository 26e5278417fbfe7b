"""Record batches in the making hold every record once, in order, whatever their size, and are the
same bytes from either encoder.
"""

from __future__ import annotations

import pytest
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from streams.engine import unsent
from streams.engine.faults import Refused
from streams.engine.unsent import BATCH_BYTES, Unsent, pack

OUTS = [
    (None if number % 7 == 0 else b"k%d" % number, b"v" * (number % 5_000), ())
    for number in range(1, 1_500)
]
ENCODERS = [False, True] if unsent.COMPILED else [False]
each_encoder = pytest.mark.parametrize("compiled", ENCODERS)
compiled_too = pytest.mark.skipif(not unsent.COMPILED, reason="not compiled, or no instruction")

BYTES = st.none() | st.binary(max_size=70)
HEADERS = st.lists(st.tuples(st.text(max_size=5), BYTES), max_size=3).map(tuple)


def records(batch: Unsent, first: int) -> list[tuple[int, int, bytes | None, bytes | None]]:
    data = MemoryRecords(bytes(batch.build(5, 3, first)))
    found = []
    while data.has_next():
        read = data.next_batch()
        assert read.validate_crc()
        assert (read.producer_id, read.is_transactional) == (5, True)
        found += [(each.offset, each.timestamp, each.key, each.value) for each in read]
    return found


def built(outs: list[unsent.Out], *, compiled: bool) -> list[tuple[int, bytes]]:
    batches = pack(outs, 1_790_000_000_000, compiled=compiled)
    return [(each.records, bytes(each.build(2**40, 2**15 - 1, 2**31 - 1))) for each in batches]


@each_encoder
def test_records_are_packed_in_order_into_batches_that_a_broker_takes(compiled: bool) -> None:
    batches = pack(OUTS, 1_000, compiled=compiled)
    assert len(batches) > 2
    assert sum(batch.records for batch in batches) == len(OUTS)
    unpacked = [record for batch in batches for record in records(batch, 0)]
    assert [(key, value) for _, _, key, value in unpacked] == [out[:2] for out in OUTS]
    assert {at_ms for _, at_ms, _, _ in unpacked} == {1_000}
    again = pack(OUTS, 1_000, compiled=compiled)
    assert all(len(batch.build(5, 3, 0)) <= BATCH_BYTES for batch in again)


@each_encoder
def test_a_record_larger_than_a_batch_is_one_of_its_own(compiled: bool) -> None:
    large = (b"k", b"v" * (BATCH_BYTES + 1), ())
    batches = pack([OUTS[0], large, OUTS[1]], 1_000, compiled=compiled)
    assert [batch.records for batch in batches] == [1, 1, 1]


@each_encoder
def test_nothing_is_an_empty_batch(compiled: bool) -> None:
    (batch,) = pack([], 1_000, compiled=compiled)
    assert batch.records == 0


@each_encoder
@pytest.mark.parametrize("bad", ["text", 7])
def test_what_is_not_bytes_is_refused(bad: object, compiled: bool) -> None:
    with pytest.raises(Refused, match="not bytes"):
        pack([(b"k", bad, ())], 1_000, compiled=compiled)  # type: ignore[list-item]


@each_encoder
def test_a_header_whose_name_is_no_text_is_refused(compiled: bool) -> None:
    with pytest.raises(Refused, match="not bytes"):
        pack([(b"k", b"v", (("\ud800", b""),))], 1_000, compiled=compiled)


@compiled_too
@given(outs=st.lists(st.tuples(BYTES, BYTES, HEADERS), max_size=80))
def test_both_encoders_give_the_same_bytes(outs: list[unsent.Out]) -> None:
    assert built(outs, compiled=True) == built(outs, compiled=False)


@compiled_too
@pytest.mark.parametrize("short", range(64))
def test_both_encoders_end_a_batch_at_the_same_record(short: int) -> None:
    half = (b"key", b"v" * (BATCH_BYTES // 2 - 61 - short), ())
    outs = [half, half, *OUTS[:300]]
    assert built(outs, compiled=True) == built(outs, compiled=False)


@compiled_too
def test_both_encoders_give_the_same_bytes_of_many_large_records() -> None:
    assert built(OUTS, compiled=True) == built(OUTS, compiled=False)
