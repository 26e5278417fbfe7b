"""Where a journal was cut: what the rows before came to, so that what remains can be proved.

`restored(state_of(verifier)) ` puts a new verifier where the old one stood. The state is lines of
text in one order and one form, so that a hash over them tells whether any was changed. Pure.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from ledger_writer.model import Account
from ledger_writer.operations import Hold, Link
from ledger_writer.verify import Chain, Verifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Line = tuple[str, str, str]
"""Kind, key and value, as `detached_state` has them."""

SHARE: Final = "share"
ACCOUNT: Final = "account"
HOLD: Final = "hold"
LINK: Final = "link"
REVERSAL: Final = "reversal"


class Anchor(msgspec.Struct, frozen=True):
    """Where one partition's journal begins, and how it stood before; see `ledger.detached`."""

    partition: int
    first_position: int
    chain_hash: bytes
    command_offset: int
    booked_at_us: int
    claims_hash: bytes


def state_of(verifier: Verifier) -> list[Line]:
    """Return all that the rows taken so far came to, but for where the chains end."""
    derived = verifier.derived
    lines = [
        _line(SHARE, f"{number}/{chain.partition}", share)
        for chain in verifier.chains.values()
        for number, share in chain.shares.items()
    ]
    lines += [_line(ACCOUNT, str(a.account_no), _values(a)) for a in verifier.accounts.values()]
    lines += [_line(HOLD, hold.hold_id, _values(hold)) for hold in derived.holds.values()]
    lines += [
        _line(LINK, f"{link_id} {kind}", _values(link))
        for (link_id, kind), link in derived.links.known.items()
    ]
    lines += [
        _line(REVERSAL, "/".join(map(str, place)), (*place, minor, derived.payers.get(place)))
        for place, minor in derived.reversed_minor.items()
    ]
    return sorted(lines)


def begun(anchors: Iterable[Anchor], lines: Iterable[Line]) -> Verifier:
    """Return a verifier that has taken all before the cut; ValueError or TypeError if it can't."""
    verifier = Verifier()
    for anchor in anchors:
        chain = Chain(anchor.partition, anchor.first_position - 1, anchor.chain_hash)
        chain.offset, chain.booked_at_us = anchor.command_offset, anchor.booked_at_us
        verifier.chains[anchor.partition] = chain
    derived = verifier.derived
    for kind, key, value in lines:
        told = orjson.loads(value)
        if kind == SHARE:
            number, partition = map(int, key.split("/"))
            version, posted, held = told
            verifier.chain(partition).shares[number] = version, posted, held
        elif kind == ACCOUNT:
            _open(verifier, Account(*told))
        elif kind == HOLD:
            derived.holds[key] = Hold(*told)
        elif kind == LINK:
            link = Link(*told)
            derived.links.known[link.link_id, link.kind] = link
        elif kind == REVERSAL:
            partition, position, leg, minor, payer = told
            derived.reversed_minor[partition, position, leg] = minor
            derived.payers[partition, position, leg] = payer
    return verifier


def state_hash(anchors: Sequence[Anchor], lines: Iterable[Line]) -> bytes:
    """Return a hash over all of a cut; anchors in order of partition, lines in theirs."""
    digest = sha256()
    for anchor in anchors:
        told = [each.hex() if isinstance(each, bytes) else each for each in _values(anchor)]
        digest.update(orjson.dumps(told) + b"\n")
    for line in lines:
        digest.update(orjson.dumps(line) + b"\n")
    return digest.digest()


def _open(verifier: Verifier, account: Account) -> None:
    verifier.accounts[account.account_no] = account
    verifier.derived.numbers[account.account_id] = account.account_no
    if account.closed or account.debits_frozen or account.credits_frozen:
        verifier.derived.stopped[account.account_no] = account


def _line(kind: str, key: str, value: object) -> Line:
    return kind, key, orjson.dumps(value).decode()


def _values(struct: msgspec.Struct) -> Sequence[Any]:
    return msgspec.structs.astuple(struct)
