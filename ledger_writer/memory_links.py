"""What the database checks of links and promised room, for the journal in memory. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger_writer.operations import OPEN
from schemas.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ledger_writer.model import Decision
    from ledger_writer.operations import Link, LinkKey


def incoming_minor(links: Mapping[LinkKey, Link], account_id: str) -> int:
    """Return what open links are about to credit to an account."""
    return sum(
        link.amount_minor
        for link in links.values()
        if link.destination == account_id and link.state == OPEN
    )


def check_links(
    decision: Decision, links: Mapping[LinkKey, Link], promised: Mapping[str, int]
) -> None:
    """Raise Corrupt unless links and rooms are as the decision knows them."""
    for link in decision.links:
        known = links.get((link.link_id, link.kind))
        if link.stored != (known is not None) or (known and known.state != OPEN):
            raise Corrupt("a link is not as known")
    for room in decision.rooms:
        if promised.get(room.account_id, 0) != room.stored_minor:
            raise Corrupt("a room is not as known")
