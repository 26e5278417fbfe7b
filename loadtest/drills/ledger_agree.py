"""Transfers that several homes must agree on, in the plain ledger: agreed to, then ended. Pure.

Each home sets aside what it must of each leg; a saga then commits or aborts what it agreed to,
and neither can be refused any more.
"""

from __future__ import annotations

from collections.abc import Callable

from loadtest.drills.ledger_desk import Desk
from loadtest.drills.ledger_state import Link, No, State
from loadtest.drills.ledger_words import Move, Outcome, Record
from schemas.ids import partition_of, slot_of

Effect = Callable[[], None]


class Agreements(State):
    """A state with the commands that let homes agree."""

    def prepare(self, record: Record, desk: Desk) -> tuple[Outcome, Effect]:
        """Agree to all that is asked of this partition, or to nothing."""
        beginning = record["type"] == "transfer.post"
        saga_id, legs = record["saga_id"], record["legs"]
        kept = any(
            key[0] == saga_id and link.partition == desk.partition
            for key, link in self.links.items()
        )
        if kept and not beginning and not record["dry_run"]:
            raise No("already_prepared")
        home = partition_of(slot_of(saga_id), self.partitions)
        agreed = desk.agree(record, desk.partition if beginning else home)

        def effect() -> None:
            for index, kind in agreed:
                link = Link(desk.partition, kind, legs[index], self.commit)
                self.links[saga_id, index, kind] = link
                if kind == "credit":
                    self.promised[legs[index]["destination"]] += legs[index]["amount_minor"]

        told: Record = {"legs_total": len(legs), "leg_indexes": []}
        if not record["dry_run"]:
            told["leg_indexes"] = [index for index, kind in agreed if kind == "debit"]
        return Outcome("transfer.prepared", moves=tuple(desk.moves), rare=told), effect

    def end(self, how: str, record: Record, desk: Desk) -> tuple[Outcome, Effect]:
        """Move what was agreed to here, or give it up."""
        state = "committed" if how == "commit" else "aborted"
        keys = [
            (record["saga_id"], index, kind)
            for index in range(len(record["legs"]))
            for kind in ("debit", "credit")
        ]
        found = [(key, link) for key in keys if (link := self._open_link(key, desk.partition))]
        if how == "commit" and not found:
            raise No("not_prepared")
        moves = [move for _, link in found for move in _ending(link, state)]

        def effect() -> None:
            for (saga_id, index, kind), link in found:
                link.state, link.ended = state, self.commit
                debit = self.links.get((saga_id, index, "debit"))
                here = debit is not None and debit.partition == desk.partition
                if kind == "credit" and (state == "aborted" or here):
                    self.promised[link.leg["destination"]] -= link.leg["amount_minor"]

        told: Record = {
            "leg_indexes": [key[1] for key, _ in found if key[2] == "debit"],
            "legs_total": len(record["legs"]),
        }
        if how == "abort":
            told |= {"reason": record["reason"], "failed_leg": record["failed_leg"]}
        return Outcome(f"transfer.{state}", moves=tuple(moves), rare=told), effect

    def _open_link(self, key: tuple[str, int, str], partition: int) -> Link | None:
        link = self.links.get(key)
        return link if link and link.partition == partition and link.state == "open" else None


def _ending(link: Link, state: str) -> list[Move]:
    if link.kind == "credit":
        return []
    source, minor = link.leg["source"], link.leg["amount_minor"]
    if state == "aborted":
        return [Move(source, 0, -minor)]
    return [Move(source, -minor, -minor), Move(link.leg["destination"], minor)]
