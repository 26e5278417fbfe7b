"""Arrays in the binary form in which Postgres takes them, made in one pass.

The driver's own way through rows of twenty columns, element by element, cost more than deciding
them. `packed_rows` takes rows in the form of `columns.stored`; a row's shape is that of the type
`ledger.new_row`, and the writer checks at every connect that the database's is the same. Pure.
"""

from __future__ import annotations

from functools import cache, lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

INT2, INT4, INT8, TEXT, JSON, BYTEA = 21, 23, 20, 25, 114, 17
UUID_OID: Final = 2950
INT8_ARRAY: Final = 1016
UUID_ARRAY: Final = 2951

ROW_TYPES: Final = (
    *(INT8, INT8, INT8, INT8, INT8, INT4, INT2, INT2),
    *(TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT),
    *(JSON, INT8_ARRAY, BYTEA, BYTEA),
)
"""The types of the columns of `ledger.new_row`, by number."""

_NULL: Final = -1
_FIELD: Final = Struct(">ii")
_ARRAY: Final = Struct(">iiiii")
_LENGTH: Final = Struct(">i")
_WIDTHS: Final = {INT2: Struct(">iih"), INT4: Struct(">iii"), INT8: Struct(">iiq")}
_PLAIN_HEAD: Final = Struct(">i iiq iiq iiq iiq ii iii ii ii")
_ELEMENT_BYTES: Final = 12
_HASH: Final = _FIELD.pack(BYTEA, 32)
_NO_TEXT: Final = _FIELD.pack(TEXT, _NULL)
_PLAIN_TAIL: Final = b"".join(
    (_NO_TEXT, _NO_TEXT, _FIELD.pack(TEXT, 0), _NO_TEXT, _FIELD.pack(JSON, _NULL))
)
"""identity, home_account and transfer_id as they follow from the rest; no reason, no extra."""


def packed_rows(row_type: int, rows: Sequence[tuple[Any, ...]]) -> bytes:
    """Return an array of `ledger.new_row`, whose number is `row_type`."""
    if not rows:
        return empty(row_type)
    parts = [_ARRAY.pack(1, 0, row_type, len(rows), 1)]
    for row in rows:
        packed = _row(row)
        parts.append(_LENGTH.pack(len(packed)))
        parts.append(packed)
    return b"".join(parts)


def packed_numbers(numbers: Sequence[int]) -> bytes:
    """Return an array of int8."""
    count = len(numbers)
    if not count:
        return empty(INT8)
    flat = [8] * (2 * count)
    flat[1::2] = numbers
    return _numbers_form(count).pack(1, 0, INT8, count, 1, *flat)


def unpacked_numbers(data: bytes) -> list[int]:
    """Return the numbers of an array of int8 that has no nulls."""
    count = (len(data) - _ARRAY.size) // _ELEMENT_BYTES
    return list(_numbers_form(count).unpack(data)[6::2]) if count > 0 else []


def packed_keys(keys: Sequence[bytes]) -> bytes:
    """Return an array of uuid."""
    if not keys:
        return empty(UUID_OID)
    size = _LENGTH.pack(16)
    return _ARRAY.pack(1, 0, UUID_OID, len(keys), 1) + size + size.join(keys)


def unpacked_keys(data: bytes) -> list[bytes]:
    """Return the keys of an array of uuid that has no nulls."""
    first, step = _ARRAY.size + _LENGTH.size, 16 + _LENGTH.size
    return [data[i : i + 16] for i in range(first, len(data), step)]


def empty(element_type: int) -> bytes:
    """Return an array of nothing."""
    return _ARRAY.pack(0, 0, element_type, 0, 0)[: 3 * _LENGTH.size]


def _row(row: tuple[Any, ...]) -> bytes:
    (position, offset, booked, effective, repeated, attempt, leg, share) = row[:8]
    (kind, tenant, saga_id, step, identity, home, transfer_id, reason) = row[8:16]
    (extra, entries, body_hash, chain_hash) = row[16:]
    if not (repeated is leg is share is None) or entries is None:
        return _any_row(row)
    saga = saga_id.encode()
    plain = extra is None and identity is home is reason is None and transfer_id == ""
    return b"".join(
        (
            _PLAIN_HEAD.pack(
                *(len(ROW_TYPES), INT8, 8, position, INT8, 8, offset, INT8, 8, booked),
                *(INT8, 8, effective, INT8, _NULL, INT4, 4, attempt, INT2, _NULL, INT2, _NULL),
            ),
            _often(kind),
            _often(tenant),
            _FIELD.pack(TEXT, len(saga)),
            saga,
            _often(step),
            _PLAIN_TAIL if plain else b"".join(map(_field, _TAIL_TYPES, row[12:17])),
            _numbers_field(entries),
            _HASH,
            body_hash,
            _HASH,
            chain_hash,
        )
    )


_TAIL_TYPES: Final = ROW_TYPES[12:17]


def _any_row(row: tuple[Any, ...]) -> bytes:
    return _LENGTH.pack(len(row)) + b"".join(map(_field, ROW_TYPES, row))


def _field(kind: int, value: Any) -> bytes:
    if value is None:
        return _FIELD.pack(kind, _NULL)
    if kind in _WIDTHS:
        form = _WIDTHS[kind]
        return form.pack(kind, form.size - _FIELD.size, value)
    if kind == INT8_ARRAY:
        return _numbers_field(value)
    data: bytes = value if kind == BYTEA else value.encode()
    return _FIELD.pack(kind, len(data)) + data


def _numbers_field(numbers: list[int]) -> bytes:
    packed = packed_numbers(numbers)
    return _FIELD.pack(INT8_ARRAY, len(packed)) + packed


@lru_cache(4096)
def _often(text: str) -> bytes:
    """Return a text that many rows have."""
    return _field(TEXT, text)


@cache
def _numbers_form(count: int) -> Struct:
    return Struct(">iiiii" + "iq" * count)
