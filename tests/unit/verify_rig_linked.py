"""Transfers that several homes agree on, added to the small world that is right."""

from __future__ import annotations

import json
from typing import Any

from schemas import ids
from tests.unit.verify_rig import PARTITIONS, A, B, Row, World, account, operated_world

C0, D3, CAPPED, EXTERNAL = account("k"), account("f"), account("j"), account("mint", "external")
"""Accounts at home on partitions 0, 3 and 1, and one that is not guarded."""

CAP = 500
Leg = tuple[str, str, int]


def home_of(who: str) -> int:
    return ids.slot_of(who) % PARTITIONS


class Linked:
    """One such transfer, step by step; `refused` is what a home answers instead of preparing."""

    def __init__(self, world: World, key: str, legs: list[Leg], *, payment: bool = False) -> None:
        self.world, self.payment = world, payment
        names = ("source", "destination", "amount_minor")
        self.legs = [dict(zip(names, leg, strict=True)) | {"currency": "EUR"} for leg in legs]
        source, destination, amount = legs[0]
        home = ids.home_account(source, destination)
        self.places = [self._place(source, destination, home) for source, destination, _ in legs]
        self.parts = [home]
        for source, destination, _ in legs:
            posts = self._capped(destination) or not ids.is_guarded(source)
            for who in (source, *((destination,) if posts else ())):
                if ids.is_guarded(who) and home_of(who) not in map(home_of, self.parts):
                    self.parts.append(who)
        make = ids.payment_id if payment else ids.transfer_id
        self.id = make("demo", key, home)
        asked: Row = {"legs": self.legs, "dry_run": False}
        if payment:
            asked = {"amount_minor": amount, "currency": "EUR", "source_account": source,
                     "destination_account": destination}  # fmt: skip
        kind = "payment.create" if payment else "transfer.create"
        self.request = world._request(kind, self.id, home, key, **asked)
        if payment:
            world._tell(self.request, "payment.accepted", "accepted", None)

    def prepare(self, number: int, refused: str | None = None, failed: int = 0) -> None:
        """Have a home prepare its part, or refuse."""
        part = self.parts[number]
        told: Row = {"held": self._held(part), "reserved": self._reserved(part),
                     "legs": len(self.legs)}  # fmt: skip
        if number == 0:
            told |= self._first()
        moves = [(self.legs[i]["source"], 0, amount) for i, amount, _ in told["held"]]
        kind, legs, asks = self._asks("prepare", number)
        outcome = self.world._decide(
            self.request, self._step("prepare", number), legs,
            "transfer.rejected" if refused else "transfer.prepared", refused,
            kind=kind, moves=moves, home=part, asks=asks,
            extra=None if refused else {"linked": told} | self._facts(told["held"], number),
        )  # fmt: skip
        if refused:
            return
        for kind, sides in (("debit", told["held"]), ("credit", told["reserved"])):
            for index, *_ in sides:
                self.world.ledger["links"].append(
                    self.legs[index] | {"link_id": f"{self.agreed_on}/{index}", "kind": kind,
                                        "partition": home_of(part), "state": "open"}
                )  # fmt: skip
        if number == 0:
            self.world.sagas.setdefault(self.id, {})["place"] = outcome
        self._count(told["held"], part, 1)

    def end(self, number: int, state: str, reason: str | None = None) -> Row:
        """Have a home commit or abort its part; say so to whom asked where it is the last home."""
        part, kind = self.parts[number], {"committed": "commit", "aborted": "abort"}[state]
        held = [side[:2] for side in self._held(part)]
        told: Row = {"held": held, "reserved": [side[:2] for side in self._reserved(part)],
                     "legs": len(self.legs)}  # fmt: skip
        if reason:
            told |= {"reason": reason, "failed_leg": 1}
        moves = []
        for index, amount in held:
            if state == "committed":
                moves += [(self.legs[index]["source"], -amount, -amount),
                          (self.legs[index]["destination"], amount, 0)]  # fmt: skip
            else:
                moves.append((self.legs[index]["source"], 0, -amount))
        kind, legs, asks = self._asks(kind, number)
        outcome = self.world._decide(
            self.request, self._step(kind.partition(".")[2], number), legs, f"transfer.{state}",
            None, kind=kind, moves=moves, home=part,
            extra={"linked": told} | self._facts(held, number),
            asks=asks | {"reason": reason, "failed_leg": 1 if reason else None},
        )  # fmt: skip
        if state == "aborted":
            self._count(held, part, -1)
        for link in self.world.ledger["links"]:
            if link["link_id"].startswith(self.agreed_on) and link["partition"] == home_of(part):
                link["state"] = state
        self._keep_rooms()
        if not self.payment:
            self._show(part, state, reason, outcome)
        return outcome

    def tell(self, outcome: Row, reason: str | None = None) -> None:
        """Tell the end, by what the transfer's own home has decided."""
        kind, done = ("payment", "settled") if self.payment else ("transfer", "posted")
        status = "rejected" if reason else done
        if self.payment and not reason:
            self.world.sagas[self.id]["captured_minor"] = self.legs[0]["amount_minor"]
        self.world._tell(self.request, f"{kind}.{status}", status, outcome | {"reason": reason})

    def agree(self) -> str:
        """Go the whole way to a commit."""
        numbers = range(len(self.parts))
        for number in numbers:
            self.prepare(number)
        ended = [self.end(number, "committed") for number in numbers]
        self.tell(ended[0])
        return self.id

    def fail(self, reason: str) -> str:
        """Have the last home refuse, and all others abort."""
        *others, last = range(len(self.parts))
        for number in others:
            self.prepare(number)
        self.prepare(last, reason)
        ended = [self.end(number, "aborted", reason) for number in others]
        self.tell(ended[0], reason)
        return self.id

    @property
    def agreed_on(self) -> str:
        return self.id

    def _step(self, kind: str, number: int) -> str:
        return "post" if (kind, number) == ("prepare", 0) else f"{kind}-{number}"

    def _asks(self, kind: str, number: int) -> tuple[str, list[Row], Row]:
        """Return the command's type, its legs, and what else it says."""
        first = (kind, number) == ("prepare", 0)
        return "transfer.post" if first else f"transfer.{kind}", self.legs, {}

    def _first(self) -> Row:
        """Return what the first home tells beside its part."""
        return {"parts": self.parts}

    def _facts(self, held: list[list[Any]], number: int) -> Row:
        return {}

    def _count(self, held: list[list[Any]], part: str, sign: int) -> None:
        pass

    def _place(self, source: str, destination: str, home: str) -> int:
        guarded = [who for who in (source, destination) if ids.is_guarded(who)]
        return home_of(guarded[0] if guarded else home)

    def _capped(self, who: str) -> bool:
        accounts = self.world.ledger["accounts"]
        return any(a["account_id"] == who and a["max_balance_minor"] for a in accounts)

    def _held(self, part: str) -> list[list[Any]]:
        return [[i, leg["amount_minor"], leg["destination"]] for i, leg in enumerate(self.legs)
                if self.places[i] == home_of(part)]  # fmt: skip

    def _reserved(self, part: str) -> list[list[Any]]:
        names = ("amount_minor", "source", "destination", "currency")
        return [[i, *(leg[name] for name in names)] for i, leg in enumerate(self.legs)
                if self._capped(leg["destination"])
                and home_of(leg["destination"]) == home_of(part)]  # fmt: skip

    def _keep_rooms(self) -> None:
        links = self.world.ledger["links"]
        debits = {link["link_id"]: link["partition"] for link in links if link["kind"] == "debit"}
        promised: dict[str, int] = {}
        for link in links:
            if link["kind"] == "credit":
                stays = link["state"] == "open" or (
                    link["state"] == "committed" and debits[link["link_id"]] != link["partition"]
                )
                who = link["destination"]
                promised[who] = promised.get(who, 0) + stays * link["amount_minor"]
        self.world.ledger["rooms"] = [
            {"account_id": who, "promised_minor": minor} for who, minor in promised.items()
        ]

    def _shown_as(self) -> tuple[str | None, int | None]:
        return None, None

    def _show(self, part: str, state: str, reason: str | None, outcome: Row) -> None:
        views, home = self.world.views["view_transfers"], part == self.parts[0]
        shown = next((v for v in views if v["transfer_id"] == self.id), None)
        if state == "aborted" and (not home or shown):
            return
        if shown is None:
            self.world._show_transfer(outcome, *self._shown_as())
            shown = views[-1]
            shown |= {"entries": "[]", "ledger_position": 0}
        if home:
            shown["ledger_position"] = outcome["position"]
        if state == "aborted":
            shown |= {"status": "rejected", "reason": reason, "failed_leg": 1}
            shown |= {"reversed_minor": None}
            return
        sides = [
            entry | {"leg": self._held(part)[at // 2][0]}
            for at, entry in enumerate(self.world.entries_of(outcome))
        ]
        shown["entries"] = json.dumps(json.loads(shown["entries"]) + sides)


class Returned(Linked):
    """A reversal of such a transfer, whose payees have several homes; told to nobody but views."""

    def __init__(self, world: World, key: str, of: Linked) -> None:
        self.world, self.payment, self.original = world, False, of
        self.indexes = [*reversed(range(len(of.legs)))]
        self.legs = [
            of.legs[i] | {"source": of.legs[i]["destination"], "destination": of.legs[i]["source"]}
            for i in self.indexes
        ]
        self.places = [home_of(leg["source"]) for leg in self.legs]
        home = of.legs[0]["destination"]
        self.parts = [home]
        for leg in self.legs:
            if home_of(leg["source"]) not in map(home_of, self.parts):
                self.parts.append(leg["source"])
        self.id = ids.transfer_id("demo", key, home)
        self.request = world._request("transfer.reverse", self.id, home, key, target_id=of.id)

    @property
    def agreed_on(self) -> str:
        return f"{self.id}/{self.request['identity']}"

    def tell(self, outcome: Row, reason: str | None = None) -> None:
        """Only the asker is told."""

    def _step(self, kind: str, number: int) -> str:
        if (kind, number) == ("prepare", 0):
            return f"reverse-{self.request['identity']}"
        return f"{kind}-{number}-{self.request['identity']}"

    def _asks(self, kind: str, number: int) -> tuple[str, list[Row], Row]:
        asks: Row = {"original_id": self.original.id}
        if (kind, number) == ("prepare", 0):
            return "transfer.reverse", [], asks
        return f"transfer.{kind}", self.legs, asks | {"original_legs": self.indexes}

    def _first(self) -> Row:
        back = [[i, *leg.values()] for i, leg in zip(self.indexes, self.legs, strict=True)]
        return {"parts": self.parts, "back": back}

    def _facts(self, held: list[list[Any]], number: int) -> Row:
        place = self.world.sagas[self.original.id]["place"]
        told = {
            "original_id": self.original.id, "leg": None,
            "amount_minor": sum(leg["amount_minor"] for leg in self.legs),
            "partition": place["partition"], "position": place["position"],
            "legs": [[self.indexes[side[0]], side[1]] for side in held],
        }  # fmt: skip
        return {"reversal": told}

    def _count(self, held: list[list[Any]], part: str, sign: int) -> None:
        place = self.world.sagas[self.original.id]["place"]
        for at, amount, *_ in held:
            key = {"original_partition": place["partition"], "leg": self.indexes[at],
                   "original_position": place["position"]}  # fmt: skip
            kept = self.world.ledger["reversals"]
            found = next((row for row in kept if key.items() <= row.items()), None)
            if found is None:
                kept.append(found := key | {"partition": home_of(part), "reversed_minor": 0})
            found["reversed_minor"] += sign * amount

    def _shown_as(self) -> tuple[str | None, int | None]:
        return self.original.id, sum(leg["amount_minor"] for leg in self.legs)


def linked_world() -> World:
    """Everything of the world with operations, and transfers over several homes: one posted, one
    given up, one paid back in part, one paid back by several homes after it was tried in vain, and
    payments to a payee with a cap, one of them refused.
    """
    world = operated_world()
    for who in (C0, D3, EXTERNAL):
        world.open(who)
    world.open(CAPPED, cap=CAP)
    Linked(world, "two", [(A, C0, 60), (B, C0, 70)]).agree()
    Linked(world, "not", [(A, C0, 40), (B, D3, 5_000)]).fail("insufficient_funds")
    back = Linked(world, "back", [(A, D3, 30), (B, D3, 20), (EXTERNAL, C0, 7)])
    back.agree()
    world.reverse(back.id, "back-1", A, D3, 10, left=20)
    Linked(world, "cap-1", [(A, CAPPED, 300)], payment=True).agree()
    Linked(world, "cap-2", [(A, CAPPED, 201)], payment=True).fail("balance_limit_exceeded")
    three = Linked(world, "three", [(B, CAPPED, 50), (A, CAPPED, 40), (D3, A, 1)])
    three.agree()
    spread = Linked(world, "spread", [(A, C0, 11), (B, D3, 12)])
    spread.agree()
    Returned(world, "vain", spread).fail("insufficient_funds")
    Returned(world, "spread-back", spread).agree()
    return world
