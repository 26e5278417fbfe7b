"""Arrays of a batch as Postgres takes them, held against a reader of its documented binary form."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ledger_writer import packing

INT8S = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
ROWS = st.tuples(
    *(INT8S, INT8S, INT8S, INT8S, st.none() | INT8S),
    st.integers(1, 2**31 - 1),
    *(st.none() | st.integers(0, 63), st.none() | st.integers(0, 1023)),
    *(TEXTS, TEXTS, TEXTS, TEXTS),
    *(st.none() | TEXTS, st.none() | TEXTS, st.none() | TEXTS | st.just("")),
    *(st.none() | TEXTS, st.none() | st.just('{"a":1}')),
    st.none() | st.lists(INT8S, max_size=20),
    *(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32)),
)
PLAIN = (1, 2, 3, 4, None, 1, None, None, "t", "acme", "pay", "post", *[None] * 2, "", *[None] * 2)


class Reader:
    """Walks bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big", signed=True)

    def take(self, size: int) -> bytes:
        self.at += size
        assert self.at <= len(self.data)
        return self.data[self.at - size : self.at]

    def array(self, element_type: int):
        dimensions, nulls, found = self.number(4), self.number(4), self.number(4)
        assert (nulls, found) == (0, element_type)
        if not dimensions:
            return
        count, first = self.number(4), self.number(4)
        assert (dimensions, first) == (1, 1)
        for _ in range(count):
            yield Reader(self.take(self.number(4)))
        assert self.at == len(self.data)


def read_row(reader: Reader) -> tuple[object, ...]:
    assert reader.number(4) == len(packing.ROW_TYPES)
    row: list[object] = []
    for expected in packing.ROW_TYPES:
        assert reader.number(4) == expected
        size = reader.number(4)
        if size == -1:
            row.append(None)
            continue
        data = reader.take(size)
        if expected in {packing.INT2, packing.INT4, packing.INT8}:
            row.append(int.from_bytes(data, "big", signed=True))
        elif expected == packing.INT8_ARRAY:
            row.append([each.number(8) for each in Reader(data).array(packing.INT8)])
        else:
            row.append(data if expected == packing.BYTEA else data.decode())
    assert reader.at == len(reader.data)
    return tuple(row)


@given(st.lists(ROWS, max_size=4))
def test_packed_rows_read_back_as_they_were(rows):
    packed = packing.packed_rows(77, rows)
    assert [read_row(each) for each in Reader(packed).array(77)] == rows


def test_the_usual_row_reads_back_as_it_was():
    row = (*PLAIN, list(range(10)), b"b" * 32, b"c" * 32)
    assert [read_row(each) for each in Reader(packing.packed_rows(77, [row])).array(77)] == [row]


@given(st.lists(INT8S, max_size=9))
def test_packed_numbers_read_back_as_they_were(numbers):
    packed = packing.packed_numbers(numbers)
    assert [each.number(8) for each in Reader(packed).array(packing.INT8)] == numbers
    assert packing.unpacked_numbers(packed) == numbers


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=5))
def test_packed_keys_read_back_as_they_were(keys):
    packed = packing.packed_keys(keys)
    assert [each.data for each in Reader(packed).array(packing.UUID_OID)] == keys
    assert packing.unpacked_keys(packed) == keys
