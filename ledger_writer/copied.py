"""Reads rows of the journal in Postgres's COPY text form, and has a verifier take them.

Most rows are plain transfers: those are checked straight from the text. A row that is anything
else, or with which anything is wrong, is read in full and taken by `Verifier.take`, which says
what. Both ways come to the same; the second also holds a row to the one form in which it may lie in
its table, so that no byte of it can change unseen. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

import orjson

from ledger_writer.columns import only_place, restored, stored
from ledger_writer.identity import claimed_by, key_of
from ledger_writer.model import POSTED, Row
from ledger_writer.verify import Chain, Finding, Verifier
from schemas.errors import HeadraceError
from schemas.ids import IDENTITY_LENGTH, is_guarded

COLUMNS: Final = (
    "position command_offset booked_at_us effective_at_us repeats_position attempt failed_leg"
    " repeats_partition type tenant saga_id step identity home_account transfer_id reason extra"
    " entries body_hash chain_hash"
).split()
"""In the order in which `stored` gives them."""

_INTEGERS: Final = frozenset(COLUMNS[:8])
_OPTIONAL: Final = frozenset(
    "repeats_position failed_leg repeats_partition identity home_account transfer_id reason extra"
    " entries".split()
)
_HASHES: Final = frozenset({"body_hash", "chain_hash"})
_NULL: Final = "\\N"
_PLAIN: Final = (_NULL, _NULL, _NULL, POSTED, _NULL, _NULL, "", _NULL)
_rarities: Final = itemgetter(4, 6, 7, 8, 12, 13, 14, 15)
"""The columns that tell a plain transfer, in which all that can be left out is."""

_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

Keys = dict[int, bytes]
"""Position -> the key that was claimed there, as `identities` has it."""


class Name:
    """An account as entries name it: `text` is the start of an entry's canonical bytes."""

    __slots__ = ("account_id", "account_no", "currency", "guarded", "text")

    def __init__(self, account_no: int, account_id: str, currency: str) -> None:
        self.account_no = account_no
        self.account_id = account_id
        self.currency = currency
        self.guarded = is_guarded(account_id) if len(account_id) > 5 else False
        self.text = orjson.dumps([account_id, currency]).decode()[:-1]


class Taker:
    """Has a verifier take lines; `names` by account number in decimal.

    `keys` are what rows claimed: each row must find its own there, and takes it out.
    """

    def __init__(self, verifier: Verifier, names: dict[str, Name]) -> None:
        self._verifier = verifier
        self._names = names
        self._numbers = {
            name.account_no: (name.account_id, name.currency) for name in names.values()
        }

    def take(self, partition: int, lines: Sequence[str], keys: Keys) -> Iterator[Finding]:
        """Check these lines, which follow those taken before."""
        verifier, plain = self._verifier, self._take_plain
        chain = verifier.chain(partition)
        for line in lines:
            fields = line.split("\t")
            try:
                taken = plain(chain, fields, keys)
            except ValueError:
                taken = False  # no number where there must be one
            if not taken:
                yield from self._take_any(partition, fields, keys)

    def _take_plain(self, chain: Chain, fields: list[str], keys: Keys) -> bool:
        """Take a plain transfer with which all is right; tell whether it was one."""
        if _rarities(fields) != _PLAIN:
            return False
        (
            position, offset, booked, effective, _, attempt, _, _, _,
            tenant, saga_id, step, _, _, _, _, extra, entries, body, seal,
        ) = fields  # fmt: skip
        words = f'{tenant}","{saga_id}","{step}'
        numbers = entries[1:-1].split(",")
        if (
            words.count('"') != 4
            or "\\" in words
            or not words.isprintable()
            or len(numbers) != 10
            or step != "post"
        ):
            return False
        names = self._names
        source, destination = names.get(numbers[0]), names.get(numbers[5])
        if source is None or destination is None or source.currency != destination.currency:
            return False
        if extra == _NULL:
            extra = "null"
        elif '"dry_run":' in extra:
            return False
        else:
            extra = orjson.dumps(_unescaped(extra)).decode()
        home = source if source.guarded or not destination.guarded else destination
        identity = saga_id[-IDENTITY_LENGTH:]
        text = (
            f'[1,{chain.partition},{position},{offset},{booked},{effective},"{POSTED}","{words}"'
            f',{attempt},"{identity}","{body[3:]}","{home.account_id}","{saga_id}",null,null,null,'
            f"{extra},[{source.text},{','.join(numbers[1:5])}],"
            f"{destination.text},{','.join(numbers[6:])}]]]"
        )
        place = int(position)
        verifier = self._verifier
        stopped = verifier.derived.stopped
        if keys.get(place) != key_of(identity):
            return False
        if stopped and (source.account_no in stopped or destination.account_no in stopped):
            return False
        _, version, amount, posted, held, _, its_version, its_amount, its_posted, its_held = map(
            int, numbers
        )
        if amount > 0 or not chain.take_transfer(
            (place, int(offset), int(booked)),
            text.encode(),
            bytes.fromhex(seal[3:]),
            (source.account_no, version, amount, posted, held),
            (destination.account_no, its_version, its_amount, its_posted, its_held),
        ):
            return False
        del keys[place]
        verifier.rows += 1
        verifier.entries += 2
        verifier.debited_minor[source.currency] -= amount
        return True

    def _take_any(self, partition: int, fields: list[str], keys: Keys) -> Iterator[Finding]:
        """Take any row in full, and say what is wrong with it."""
        position = 0
        try:
            columns = columns_of(partition, fields)
            position = columns["position"]
            row = row_of(columns, self._numbers)
        except (HeadraceError, ValueError, IndexError) as error:
            yield Finding(partition, position, f"the row can't be read: {error}")
            return
        for name in misplaced(columns, row):
            yield Finding(partition, position, f"{name} is not in the form in which it was written")
        yield from self._verifier.take(partition, row)
        claimed, expected = keys.pop(position, None), claimed_by(row)
        if claimed != expected:
            what = "claims nothing" if claimed is None else "claims another identity than its own"
            yield Finding(partition, position, f"the row {what}")


def columns_of(partition: int, fields: Sequence[str]) -> dict[str, Any]:
    """Return the columns in these fields of a line; ValueError when they can't be such."""
    if len(fields) != len(COLUMNS):
        raise ValueError(f"{len(fields)} columns, not {len(COLUMNS)}")
    columns: dict[str, Any] = {"partition": partition}
    for name, text in zip(COLUMNS, fields, strict=True):
        columns[name] = None if text == _NULL else _value(name, text)
        if text == _NULL and name not in _OPTIONAL:
            raise ValueError(f"it has no {name}")
    return columns


def row_of(columns: dict[str, Any], numbers: dict[int, tuple[str, str]]) -> Row:
    """Return the row; of a row that it repeats it knows only the place."""
    first = None
    if columns["repeats_position"] is not None:
        first = only_place(columns["repeats_partition"], columns["repeats_position"])
    return restored(columns, numbers, first)


def misplaced(columns: dict[str, Any], row: Row) -> Iterator[str]:
    """Tell which columns hold this row in another form than the writer gives them."""
    for name, value in zip(COLUMNS, stored(row), strict=True):
        if columns[name] != value:
            yield name


def _value(name: str, text: str) -> Any:
    if name in _INTEGERS:
        return int(text)
    if name in _HASHES:
        return bytes.fromhex(text.removeprefix("\\\\x"))
    if name == "entries":
        return [int(number) for number in text.removeprefix("{").removesuffix("}").split(",")]
    return _unescaped(text)


def _unescaped(text: str) -> str:
    """Undo COPY's escapes."""
    if "\\" not in text:
        return text
    first, *rest = text.split("\\")
    made = [first]
    pieces = iter(rest)
    for piece in pieces:
        if piece:
            made.append(_ESCAPES.get(piece[0], piece[0]) + piece[1:])
        else:
            made.append("\\" + next(pieces, ""))
    return "".join(made)
