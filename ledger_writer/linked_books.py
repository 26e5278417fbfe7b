"""Books that can also keep what one partition agrees to of a transfer that several must agree on.

A link is made whole for all legs of a command or not at all, and once it stands it can be kept: the
source's amount is held, the payee's room is promised, and an account with open links can't be
closed. So a link is finished without asking again. Room that was promised counts as if it were
posted, until the credit is posted here or given up; what another partition credited stays counted,
so stale shares are never needed to tell what room is left. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from ledger_writer.books import Books, change, undo
from ledger_writer.model import BALANCE_MINOR_MAX, Entry, Leg, Standing
from ledger_writer.operations import ABORTED, CREDIT, DEBIT, OPEN, Link, LinkKey, Room
from ledger_writer.outcome import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger_writer.model import View

LINKED_MINOR_MAX: Final = BALANCE_MINOR_MAX // 2
"""A share beyond this agrees to nothing more, so that a link can't meet the bound later."""


class Ask(msgspec.Struct, frozen=True, gc=False):
    """What is asked of this partition for one leg: to hold the debit, to keep room, or both."""

    link_id: str
    index: int
    leg: Leg
    debit: bool
    credit: bool


class LinkedBooks(Books):
    """The state of a batch while it is decided, links included."""

    __slots__ = ("_links", "_rooms")

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._links: dict[LinkKey, Link] = {}
        self._rooms: dict[str, Room] = {}

    def agree(
        self, tenant: str, asks: Sequence[Ask], *, keep: bool = True
    ) -> tuple[Entry, ...] | Refusal:
        """Agree to all that is asked, or to nothing; without `keep`, only tell."""
        entries: list[Entry] = []
        agreed: list[tuple[Ask, Standing, Standing]] = []
        refusal = None
        for ask in asks:
            source, destination = self.standing(ask.leg.source), self.standing(ask.leg.destination)
            reason = self._link_obstacle(tenant, ask, source, destination)
            if reason is not None:
                refusal = Refusal(reason, ask.index)
                break
            assert source is not None
            assert destination is not None
            if ask.debit:
                entries.append(change(source, 0, ask.leg.amount_minor))
            if ask.credit:
                destination.promised_minor += ask.leg.amount_minor
            agreed.append((ask, source, destination))
        if refusal is not None or not keep:
            for ask, source, destination in reversed(agreed):
                if ask.debit:
                    undo(source, 0, ask.leg.amount_minor)
                if ask.credit:
                    destination.promised_minor -= ask.leg.amount_minor
            return refusal or ()
        for ask, _, destination in agreed:
            self._keep(ask, destination)
        return tuple(entries)

    def finish(self, link: Link, state: str) -> tuple[Entry, ...]:
        """Move what an open link has agreed to, or give it up; the accounts are not asked again."""
        source, destination = self.standing(link.source), self.standing(link.destination)
        assert source is not None
        assert destination is not None
        assert link.state == OPEN
        self._links[link.link_id, link.kind] = replace(link, state=state)
        if link.kind == CREDIT:
            posted_here = self.link(link.link_id, DEBIT)
            if state == ABORTED or (posted_here and posted_here.partition == self.partition):
                destination.promised_minor -= link.amount_minor
                self._promised(destination)
            return ()
        if state == ABORTED:
            return (change(source, 0, -link.amount_minor),)
        debit = change(source, -link.amount_minor, -link.amount_minor)
        return debit, change(destination, link.amount_minor)

    def link(self, link_id: str, kind: str) -> Link | None:
        """Return a link of any partition, as it stands now."""
        key = link_id, kind
        return self._links.get(key) or self._view.known.links.get(key)

    def incoming_minor(self, account_id: str) -> int:
        """Return what open links are about to credit to an account to be closed."""
        incoming_minor = self.elsewhere(account_id).incoming_minor
        for link in self._links.values():
            if link.destination == account_id:
                before, now = link.stored, link.state == OPEN
                incoming_minor += (now - before) * link.amount_minor
        return incoming_minor

    def links(self) -> Sequence[Link]:
        """Return the links that were made or finished."""
        return tuple(self._links.values())

    def rooms(self) -> Sequence[Room]:
        """Return the accounts of whose room more or less is promised."""
        return tuple(self._rooms.values())

    def _keep(self, ask: Ask, destination: Standing) -> None:
        leg = ask.leg
        for kind, asked in ((DEBIT, ask.debit), (CREDIT, ask.credit)):
            if asked:
                self._links[ask.link_id, kind] = Link(
                    ask.link_id,
                    kind,
                    self.partition,
                    leg.source,
                    leg.destination,
                    leg.currency,
                    leg.amount_minor,
                    OPEN,
                    stored=False,
                )
        if ask.credit:
            self._promised(destination)

    def _promised(self, standing: Standing) -> None:
        account_id = standing.account.account_id
        known = self._view.standings.get(account_id)
        self._rooms[account_id] = Room(
            account_id,
            standing.account.account_no,
            standing.promised_minor,
            known.promised_minor if known else 0,
        )

    def _link_obstacle(
        self, tenant: str, ask: Ask, source: Standing | None, destination: Standing | None
    ) -> str | None:
        reason = self._accounts_obstacle(tenant, ask.leg, source, destination)
        if reason is not None:
            return reason
        assert source is not None
        assert destination is not None
        amount_minor = ask.leg.amount_minor
        if ask.debit:
            reason = self._debit_obstacle(source, amount_minor)
            beyond = (
                source.posted_minor - amount_minor < -LINKED_MINOR_MAX
                or source.held_minor + amount_minor > LINKED_MINOR_MAX
                or destination.posted_minor + amount_minor > LINKED_MINOR_MAX
            )
            if reason is None and beyond:
                reason = "balance_limit_exceeded"
        if reason is None and ask.credit:
            reason = self._credit_obstacle(destination, amount_minor)
        return reason
