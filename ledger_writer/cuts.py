"""Reads where the journal was cut, as a reader: for the audit, exports, and the next cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ledger_writer.cut import Anchor, begun, state_hash
from ledger_writer.verify import Finding, Verifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import asyncpg

    from ledger_writer.cut import Line

ANCHORS: Final = """
    select distinct on (partition) * from ledger.detached
     order by partition, first_position desc"""
NO_CUT: Final = "lock table ledger.journal in access share mode"
"""Has a cut wait until a transaction that reads the journal has ended."""
STATE: Final = "select kind, key, value from ledger.detached_state order by kind, key"


class Cut(msgspec.Struct, frozen=True):
    """The newest cut; no anchors when there was none."""

    anchors: Sequence[Anchor]
    lines: Sequence[Line]
    hashes: frozenset[bytes]

    @property
    def kept(self) -> dict[int, int]:
        """The first position kept, by partition."""
        return {anchor.partition: anchor.first_position for anchor in self.anchors}

    @property
    def state_hash(self) -> bytes:
        """The hash over all of it."""
        return state_hash(self.anchors, self.lines)

    @property
    def altered(self) -> bool:
        """Whether any of it is not as it was recorded."""
        return bool(self.anchors) and self.hashes != {self.state_hash}

    def verifier(self) -> Verifier:
        """Return a verifier that stands at the cut; at the beginning where the state is unreadable.

        It then finds everything wrong, and `findings` says why.
        """
        try:
            return begun(self.anchors, self.lines)
        except (ValueError, TypeError):
            return begun(self.anchors, ())

    def findings(self, claims: dict[int, bytes]) -> Iterator[Finding]:
        """Tell what of the cut is not as it was made; `claims` by partition, as they are now."""
        if self.altered:
            yield Finding(0, 0, "ledger.detached or detached_state is not what the cut recorded")
        for anchor in self.anchors:
            if claims.get(anchor.partition) != anchor.claims_hash:
                problem = "the identities that its detached rows claimed are not what they were"
                yield Finding(anchor.partition, anchor.first_position - 1, problem)


async def newest_cut(connection: asyncpg.Connection) -> Cut:
    """Read the newest cut."""
    found = await connection.fetch(ANCHORS)
    lines = await connection.fetch(STATE) if found else []
    return Cut(
        [Anchor(*(line[name] for name in Anchor.__struct_fields__)) for line in found],
        [(line["kind"], line["key"], line["value"]) for line in lines],
        frozenset(line["state_hash"] for line in found),
    )
