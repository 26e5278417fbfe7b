"""What several homes must agree on, in the plain ledger: agreed to, then ended. Pure.

Each home sets aside what it must of each leg of a transfer, or of a reversal; a saga then commits
or aborts what it agreed to, and neither can be refused any more. What is to be paid back of a leg
counts as paid back until it is aborted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from loadtest.drills.ledger_desk import Desk
from loadtest.drills.ledger_state import Link, No, Row, State
from loadtest.drills.ledger_words import Move, Outcome, Record, agreed_on
from schemas.ids import partition_of, slot_of

Effect = Callable[[], None]


class Agreements(State):
    """A state with the commands that let homes agree."""

    def prepare(self, record: Record, desk: Desk) -> tuple[Outcome, Effect]:
        """Agree to all that is asked of this partition, or to nothing."""
        beginning = record["type"] == "transfer.post"
        if self._kept(record, desk) and not beginning and not record["dry_run"]:
            raise No("already_prepared")
        if record["original_id"]:
            return self._prepare_back(record, desk)
        home = partition_of(slot_of(record["saga_id"]), self.partitions)
        agreed = desk.agree(record, desk.partition if beginning else home)
        told = _told(record["legs"], [] if record["dry_run"] else agreed)
        outcome = Outcome("transfer.prepared", moves=tuple(desk.moves), rare=told)
        return outcome, lambda: self._keep(agreed_on(record), record["legs"], agreed, desk)

    def begin_back(
        self, record: Record, desk: Desk, of: tuple[Row, list[Record]], amounts: dict[int, int]
    ) -> tuple[Outcome, Effect]:
        """Agree to this home's part of a reversal, and name all legs and homes of it."""
        row, legs = of
        back = {i: back_of(legs[i]) | {"amount_minor": minor} for i, minor in amounts.items()}
        left = sum(desk.left(row, legs, i) - minor for i, minor in amounts.items())
        outcome, effect = self._agree_back(record, desk, of, back)
        told = {"parts": desk.parts_back(record, back, legs), "legs": [*back.values()]}
        outcome.rare |= told | {"original_legs": [*back], "remaining_minor": left}
        return outcome, effect

    def end(self, how: str, record: Record, desk: Desk) -> tuple[Outcome, Effect]:
        """Move what was agreed to here, or give it up."""
        state = "committed" if how == "commit" else "aborted"
        keys = [
            (agreed_on(record), index, kind)
            for index in range(len(record["legs"]))
            for kind in ("debit", "credit")
        ]
        found = [(key, link) for key in keys if (link := self._open_link(key, desk.partition))]
        if how == "commit" and not found and not self._nothing_to_do(record, desk):
            raise No("not_prepared")
        moves = [move for _, link in found for move in _ending(link, state)]

        def effect() -> None:
            for (name, index, kind), link in found:
                link.state, link.ended = state, self.commit
                debit = self.links.get((name, index, "debit"))
                here = debit is not None and debit.partition == desk.partition
                if kind == "credit" and (state == "aborted" or here):
                    self.promised[link.leg["destination"]] -= link.leg["amount_minor"]
                if kind == "debit" and state == "aborted" and record["original_id"]:
                    self._count_back(record, index, -link.leg["amount_minor"])

        told = _told(record["legs"], [key[1:] for key, _ in found])
        if record["original_id"]:
            told["amount_minor"] = total_of(record["legs"])
        if how == "abort":
            told |= {"reason": record["reason"], "failed_leg": record["failed_leg"]}
        return Outcome(f"transfer.{state}", moves=tuple(moves), rare=told), effect

    def _prepare_back(self, record: Record, desk: Desk) -> tuple[Outcome, Effect]:
        row, legs = desk.original(record["original_id"])
        if not legs:
            raise No("original_not_found")
        back = dict(zip(record["original_legs"], record["legs"], strict=True))
        for index, leg in back.items():
            minor = {"amount_minor": leg["amount_minor"]}
            if index >= len(legs) or leg != back_of(legs[index]) | minor:
                raise No("original_not_found", index)
            mine = desk.keeper(legs, index) == desk.partition
            if mine and leg["amount_minor"] > desk.left(row, legs, index):
                raise No("amount_exceeds_original", index)
        return self._agree_back(record, desk, (row, legs), back)

    def _agree_back(
        self, record: Record, desk: Desk, of: tuple[Row, list[Record]], back: dict[int, Record]
    ) -> tuple[Outcome, Effect]:
        row, legs = of
        agreed, asked = desk.agree_back(back, legs), list(back.values())
        told = _told(asked, agreed) | {"amount_minor": total_of(asked)}

        def effect() -> None:
            self._keep(agreed_on(record | {"original_id": True}), asked, agreed, desk)
            for number, kind in agreed:
                if kind == "debit":
                    place = *row.place, [*back][number]
                    self.paid_back[place].add(asked[number]["amount_minor"], self.commit)

        return Outcome("transfer.prepared", moves=tuple(desk.moves), rare=told), effect

    def _keep(
        self, name: str, legs: list[Record], agreed: Iterable[tuple[int, str]], desk: Desk
    ) -> None:
        for index, kind in agreed:
            self.links[name, index, kind] = Link(desk.partition, kind, legs[index], self.commit)
            if kind == "credit":
                self.promised[legs[index]["destination"]] += legs[index]["amount_minor"]

    def _kept(self, record: Record, desk: Desk) -> bool:
        """Tell whether this partition has agreed to any of it before."""
        name = agreed_on(record)
        return any(
            key[0] == name and link.partition == desk.partition for key, link in self.links.items()
        )

    def _nothing_to_do(self, record: Record, desk: Desk) -> bool:
        """Tell whether it is right that this partition has agreed to nothing of a reversal."""
        if not record["original_id"] or self._kept(record, desk):
            return False
        try:
            _, legs = desk.original(record["original_id"])
        except No:
            return True
        asked = zip(record["original_legs"], record["legs"], strict=True)
        return not legs or not any(desk.concerns(leg, legs, index) for index, leg in asked)

    def _count_back(self, record: Record, number: int, minor: int) -> None:
        row = self.claims[record["original_id"][-26:]]
        place = *row.place, record["original_legs"][number]
        self.paid_back[place].add(minor, self.commit)

    def _open_link(self, key: tuple[str, int, str], partition: int) -> Link | None:
        link = self.links.get(key)
        return link if link and link.partition == partition and link.state == "open" else None


def back_of(leg: Record) -> Record:
    """Return a movement the other way."""
    return leg | {"source": leg["destination"], "destination": leg["source"]}


def total_of(legs: list[Record]) -> int | None:
    """Return what legs come to, if that is one currency's."""
    one_currency = len({leg["currency"] for leg in legs}) == 1
    return sum(leg["amount_minor"] for leg in legs) if one_currency else None


def _told(legs: list[Record], agreed: Iterable[tuple[int, str]]) -> Record:
    held = [index for index, kind in agreed if kind == "debit"]
    return {"legs_total": len(legs), "leg_indexes": held}


def _ending(link: Link, state: str) -> list[Move]:
    if link.kind == "credit":
        return []
    source, minor = link.leg["source"], link.leg["amount_minor"]
    if state == "aborted":
        return [Move(source, 0, -minor)]
    return [Move(source, -minor, -minor), Move(link.leg["destination"], minor)]
