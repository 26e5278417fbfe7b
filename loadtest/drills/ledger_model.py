"""The ledger, plainly: dictionaries, integers, and one command after the other. Pure.

`decide` tells what a command must come to and changes nothing; `apply` does it. Rows are applied in
the order in which they were committed. A partition sees its own past exactly; of the others it sees
what its `Eyes` say: everything committed up to some moment. It knows nothing of the ledger's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from loadtest.drills.ledger_agree import Agreements, Effect, back_of, total_of
from loadtest.drills.ledger_desk import Desk
from loadtest.drills.ledger_state import Account, Eyes, Hold, No, Row
from loadtest.drills.ledger_words import (
    FLAGS,
    Move,
    Outcome,
    Record,
    claim,
    rejected,
)
from schemas.ids import is_guarded, partition_of
from schemas.money import EXPONENTS

TRIABLE: Final = ("transfer.post", "transfer.reject", "hold.place", "transfer.prepare")


class Model(Agreements):
    """A state, and how commands change it."""

    def __init__(self, partitions: int) -> None:
        super().__init__(partitions)
        self._effect: Effect | None = None

    def first(self, record: Record) -> Row | None:
        """Return the row that used this command's claim first."""
        return None if record["dry_run"] else self.claims.get(claim(record))

    def decide(self, record: Record, partition: int, log_time_us: int, eyes: Eyes) -> Outcome:
        """Tell what a command comes to that is not a repeat; `apply` may follow at once."""
        self._effect = None
        kind = record["type"]
        first = self.first(record)
        if first is not None:
            return Outcome(rejected(kind), "idempotency_key_reused")
        if partition_of(record["slot"], self.partitions) != partition:
            return Outcome(rejected(kind), "wrong_partition")
        if record["dry_run"] and (record["original_id"] or kind not in TRIABLE):
            return Outcome(rejected(kind), "dry_run_unsupported")
        desk = Desk(self, partition, record["tenant"], eyes)
        try:
            outcome, self._effect = self._decided(kind, record, desk, log_time_us)
        except No as no:
            return Outcome(rejected(kind), no.reason, no.leg)
        if record["dry_run"]:
            self._effect = None
            outcome.moves = ()
        return outcome

    def apply(self, row: Row, moves: Sequence[Move]) -> None:
        """Do what was decided last."""
        for move in moves:
            self.shares[move.account_id, row.place[0]].change(move, self.commit)
        if self._effect is not None:
            self._effect()
        if not row.record["dry_run"]:
            self.claims.setdefault(claim(row.record), row)

    # -- commands --------------------------------------------------------------------------------

    def _decided(
        self, kind: str, record: Record, desk: Desk, log_time_us: int
    ) -> tuple[Outcome, Effect | None]:
        match kind:
            case "transfer.post":
                return self._post(record, desk)
            case "transfer.prepare":
                return self.prepare(record, desk)
            case "transfer.commit" | "transfer.abort":
                return self.end(kind.partition(".")[2], record, desk)
            case "transfer.reject":
                raise No(record["reason"])
            case "transfer.reverse":
                return self._reverse(record, desk)
            case "hold.place":
                return self._place(record, desk)
            case "hold.post":
                return self._capture(record, desk)
            case "hold.void":
                return self._void(record, desk, log_time_us)
            case "account.open":
                return self._open(record, desk.partition)
            case _:
                assert kind in FLAGS
                return self._flag(kind, record, desk)

    def _post(self, record: Record, desk: Desk) -> tuple[Outcome, Effect | None]:
        """Post all legs here, or begin what other homes must agree to."""
        try:
            for index, leg in enumerate(record["legs"]):
                desk.move(leg, index)
        except No as no:
            if no.reason not in {"wrong_partition", "credit_needs_home"}:
                raise
        else:
            return Outcome("transfer.posted", moves=tuple(desk.moves)), None
        desk.moves.clear()
        outcome, effect = self.prepare(record, desk)
        outcome.rare["parts"] = desk.parts(record)
        return outcome, effect

    def _open(self, record: Record, partition: int) -> tuple[Outcome, Effect]:
        account_id, floor = record["account_id"], record["min_balance_minor"]
        cap = record["max_balance_minor"]
        if account_id in self.accounts:
            raise No("account_exists")
        if record["currency"] not in EXPONENTS:
            raise No("currency_unknown")
        guarded = is_guarded(account_id)
        if not guarded and (floor is not None or cap is not None):
            raise No("limits_invalid")
        if (floor is not None and floor > 0) or (cap is not None and cap < 0):
            raise No("limits_invalid")
        account = Account(
            account_id,
            record["tenant"],
            record["currency"],
            0 if floor is None and guarded else floor,
            cap,
            partition,
            self.commit,
        )
        return Outcome("account.opened"), lambda: self.accounts.update({account_id: account})

    def _place(self, record: Record, desk: Desk) -> tuple[Outcome, Effect]:
        [leg] = record["legs"]
        desk.set_aside(leg)
        hold = Hold(
            record["hold_id"], desk.partition, leg, leg["amount_minor"], 0, record["expires_at_us"]
        )
        told = {
            "amount_minor": leg["amount_minor"],
            "remaining_minor": leg["amount_minor"],
            "expires_at_us": record["expires_at_us"],
        }
        outcome = Outcome("hold.placed", moves=tuple(desk.moves), rare=told)
        return outcome, lambda: self.holds.update({hold.hold_id: hold})

    def _capture(self, record: Record, desk: Desk) -> tuple[Outcome, Effect]:
        hold = self._open_hold(record, desk)
        amount = record["amount_minor"] or hold.remaining
        if amount > hold.remaining:
            raise No("amount_exceeds_hold")
        desk.move_held(hold.leg | {"amount_minor": amount})
        left = hold.remaining - amount

        def effect() -> None:
            hold.remaining, hold.captured = left, hold.captured + amount
            hold.state = "open" if left else "posted"
            hold.captures.append((self.commit, hold.captured))

        told = {"amount_minor": amount, "remaining_minor": left}
        return Outcome("hold.posted", moves=tuple(desk.moves), rare=told), effect

    def _void(self, record: Record, desk: Desk, log_time_us: int) -> tuple[Outcome, Effect]:
        hold = self._open_hold(record, desk)
        reason = record["reason"] or "voided"
        early = hold.expires_at_us is None or log_time_us < hold.expires_at_us
        if reason == "expired" and early:
            raise No("hold_not_expired")
        left = hold.remaining

        def effect() -> None:
            hold.remaining, hold.state = 0, reason

        told = {"amount_minor": left, "remaining_minor": 0, "reason": reason}
        moves = (Move(hold.leg["source"], 0, -left),)
        return Outcome("hold.voided", moves=moves, rare=told), effect

    def _open_hold(self, record: Record, desk: Desk) -> Hold:
        hold = self.holds.get(record["hold_id"])
        if hold is None or hold.partition != desk.partition:
            raise No("hold_not_found")
        if self.accounts[hold.leg["source"]].tenant != record["tenant"]:
            raise No("hold_not_found")
        if not hold.remaining:
            raise No("hold_closed")
        return hold

    def _flag(self, kind: str, record: Record, desk: Desk) -> tuple[Outcome, Effect]:
        account = desk.account(record["account_id"])
        if account is None or account.tenant != record["tenant"]:
            raise No("account_not_found")
        if account.home != desk.partition:
            raise No("wrong_partition")
        if account.closed:
            raise No("account_closed")
        both = record["debits"] is None and record["credits"] is None
        debits, credits_ = both or bool(record["debits"]), both or bool(record["credits"])
        told = {
            "debits_frozen": account.debits_frozen,
            "credits_frozen": account.credits_frozen,
            "closed": False,
        }
        if kind == "account.close":
            posted, held = desk.whole(account.account_id)
            if held or desk.expected(account.account_id):
                raise No("account_has_holds")
            if posted:
                raise No("account_not_empty")
            told["closed"] = True
        elif kind == "account.freeze":
            told["debits_frozen"] |= debits
            told["credits_frozen"] |= credits_
        else:
            told["debits_frozen"] &= not debits
            told["credits_frozen"] &= not credits_

        def effect() -> None:
            for name, flag in told.items():
                setattr(account, name, flag)

        ends = {"account.freeze": "frozen", "account.unfreeze": "unfrozen"}
        return Outcome(f"account.{ends.get(kind, 'closed')}", rare=dict(told)), effect

    def _reverse(self, record: Record, desk: Desk) -> tuple[Outcome, Effect]:
        row, legs = desk.original(record["original_id"])
        leg = record["original_leg"]
        if not legs or (leg is not None and leg >= len(legs)):
            raise No("original_not_found", leg)
        chosen = [*reversed(range(len(legs)))] if leg is None else [leg]
        mine = {index for index in chosen if desk.keeper(legs, index) == desk.partition}
        if not mine:
            raise No("wrong_partition", chosen[0])
        left = {index: desk.left(row, legs, index) for index in chosen}
        if not any(left.values()):
            raise No("already_reversed", leg)
        amounts = {index: minor for index, minor in left.items() if minor}
        if record["amount_minor"] is not None:
            if len(chosen) > 1:
                raise No("original_leg_required")
            if record["amount_minor"] > left[chosen[0]]:
                raise No("amount_exceeds_original", leg)
            amounts = {chosen[0]: record["amount_minor"]}
        try:
            if mine >= set(amounts):
                return self._pay_back(desk, (row, legs), amounts)
        except No as no:
            if no.reason != "credit_needs_home":
                raise
            desk.moves.clear()
        return self.begin_back(record, desk, (row, legs), amounts)

    def _pay_back(
        self, desk: Desk, of: tuple[Row, list[Record]], amounts: dict[int, int]
    ) -> tuple[Outcome, Effect]:
        row, legs = of
        back = {i: back_of(legs[i]) | {"amount_minor": minor} for i, minor in amounts.items()}
        for index, leg in back.items():
            desk.move(leg, index)
        told = {
            "amount_minor": total_of([*back.values()]),
            "remaining_minor": sum(desk.left(row, legs, i) - n for i, n in amounts.items()),
        }

        def effect() -> None:
            for index, minor in amounts.items():
                self.paid_back[*row.place, index].add(minor, self.commit)

        return Outcome("transfer.reversed", moves=tuple(desk.moves), rare=told), effect
