"""One command at work in the plain ledger: which movements its accounts allow. Pure.

Movements are tried one after the other on top of what is committed, and collected; the first that
is not allowed raises No, and then none of them counts.
"""

from __future__ import annotations

from collections import Counter

from loadtest.drills.ledger_state import Account, Eyes, No, Row, State
from loadtest.drills.ledger_words import Move, Record
from schemas.ids import IDENTITY_LENGTH, is_guarded, partition_of, slot_of


class Desk:
    """A command of one tenant's, decided by one partition, which sees the others with `eyes`."""

    def __init__(self, state: State, partition: int, tenant: str, eyes: Eyes) -> None:
        self._state = state
        self.partition = partition
        self._tenant = tenant
        self._eyes = eyes
        self.moves: list[Move] = []
        self._promised: Counter[str] = Counter()

    # -- what is seen ----------------------------------------------------------------------------

    def account(self, account_id: str) -> Account | None:
        """Return an account that this partition can see."""
        found = self._state.accounts.get(account_id)
        if found is None or found.home == self.partition:
            return found
        return found if found.opened <= self._eyes.accounts else None

    def own(self, account_id: str) -> tuple[int, int]:
        """Return what is posted and held on this partition's share, movements so far included."""
        share = self._state.shares[account_id, self.partition]
        mine = [move for move in self.moves if move.account_id == account_id]
        posted = share.posted + sum(move.amount_minor for move in mine)
        return posted, share.held + sum(move.held_minor for move in mine)

    def others(self, account_id: str, commit: int) -> tuple[int, int]:
        """Return what is posted and held on the other shares, as of a commit."""
        shares = [
            self._state.shares[account_id, number].at(commit)
            for number in range(self._state.partitions)
            if number != self.partition
        ]
        return sum(posted for posted, _ in shares), sum(held for _, held in shares)

    def whole(self, account_id: str) -> tuple[int, int]:
        """Return all that is posted and held, for a closing."""
        posted, held = self.own(account_id)
        more_posted, more_held = self.others(account_id, self._eyes.rows)
        return posted + more_posted, held + more_held

    def original(self, original_id: str) -> tuple[Row, list[Record]]:
        """Return what was decided under this id, and the movements that it made so far."""
        row = self._state.claims.get(original_id[-IDENTITY_LENGTH:])
        if row is None or (row.place[0] != self.partition and row.commit > self._eyes.rows):
            raise No("original_not_found")
        tenant, transfer_id = row.record["tenant"], row.told["transfer_id"]
        if (tenant, transfer_id) != (self._tenant, original_id):
            raise No("original_not_found")
        if row.told["type"] == "transfer.posted":
            return row, row.record["legs"]
        if row.told["type"] == "transfer.prepared":
            return row, self._committed(row)
        hold = self._state.holds.get(row.record["hold_id"] or "")
        if row.told["type"] != "hold.placed" or hold is None:
            return row, []
        here = hold.partition == self.partition
        captured = hold.captured if here else hold.captured_at(self._eyes.rows)
        return row, [hold.leg | {"amount_minor": captured}] if captured else []

    def _committed(self, row: Row) -> list[Record]:
        """Return the legs of a transfer over several homes, once all of them are committed."""
        legs: list[Record] = row.record["legs"]
        for index in range(len(legs)):
            link = self._state.links.get((row.record["saga_id"], index, "debit"))
            if link is None or link.state != "committed":
                return []
            if link.partition != self.partition and not link.committed_at(self._eyes.rows):
                return []
        return legs

    def expected(self, account_id: str) -> bool:
        """Tell whether anything that homes agreed to is still on its way to an account."""
        return any(
            link.leg["destination"] == account_id
            and (
                link.state == "open"
                if link.partition == self.partition
                else link.open_at(self._eyes.rows)
            )
            for link in self._state.links.values()
        )

    def keeper(self, legs: list[Record], index: int) -> int:
        """Return the partition that keeps how much of a leg was paid back."""
        return self._home(self._keeper(legs, index))

    def left(self, row: Row, legs: list[Record], index: int) -> int:
        """Return how much of a leg is left to pay back, as far as this partition can see."""
        total = self._state.paid_back[*row.place, index]
        mine = self.keeper(legs, index) == self.partition
        minor: int = legs[index]["amount_minor"]
        return minor - (total.minor if mine else total.at(self._eyes.rows))

    def concerns(self, leg: Record, legs: list[Record], index: int) -> bool:
        """Tell whether this partition has to agree to pay a leg back."""
        payee = self.account(leg["destination"])
        capped = payee is not None and payee.cap is not None and payee.home == self.partition
        return capped or self.keeper(legs, index) == self.partition

    def _keeper(self, legs: list[Record], index: int) -> str:
        payees: list[str] = [leg["destination"] for leg in legs]
        if is_guarded(payees[index]):
            return payees[index]
        sides = [*payees, *(leg["source"] for leg in legs)]
        return next((each for each in sides if is_guarded(each)), payees[0])

    def _home(self, account_id: str) -> int:
        return partition_of(slot_of(account_id), self._state.partitions)

    # -- movements -------------------------------------------------------------------------------

    def move(self, leg: Record, index: int) -> None:
        """Move a leg's amount."""
        source, destination = self._sides(leg, index)
        self._debit(source, leg["amount_minor"], index)
        self._credit(destination, leg["amount_minor"], index)
        self.moves.append(Move(source.account_id, -leg["amount_minor"]))
        self.moves.append(Move(destination.account_id, leg["amount_minor"]))

    def set_aside(self, leg: Record) -> None:
        """Hold a leg's amount at its source."""
        source, destination = self._sides(leg, 0)
        self._debit(source, leg["amount_minor"], 0)
        self._credit(destination, 0, 0)
        self.moves.append(Move(source.account_id, 0, leg["amount_minor"]))

    def move_held(self, leg: Record) -> None:
        """Move what was set aside before."""
        source, destination = self._sides(leg, 0)
        self._credit(destination, leg["amount_minor"], 0)
        self.moves.append(Move(source.account_id, -leg["amount_minor"], -leg["amount_minor"]))
        self.moves.append(Move(destination.account_id, leg["amount_minor"]))

    def _sides(self, leg: Record, index: int) -> tuple[Account, Account]:
        if leg["source"] == leg["destination"]:
            raise No("same_account", index)
        source, destination = self.account(leg["source"]), self.account(leg["destination"])
        if source is None or destination is None:
            raise No("account_not_found", index)
        if (source.tenant, destination.tenant) != (self._tenant, self._tenant):
            raise No("account_not_found", index)
        if source.closed or destination.closed:
            raise No("account_closed", index)
        if source.debits_frozen or destination.credits_frozen:
            raise No("account_frozen", index)
        if (source.currency, destination.currency) != (leg["currency"], leg["currency"]):
            raise No("currency_mismatch", index)
        return source, destination

    def _debit(self, account: Account, minor: int, index: int) -> None:
        if is_guarded(account.account_id) and account.home != self.partition:
            raise No("wrong_partition", index)
        if account.floor is None:
            return
        posted, held = self.own(account.account_id)
        elsewhere, _ = self.others(account.account_id, self._eyes.balances)
        if posted + elsewhere - held - minor < account.floor:
            raise No("insufficient_funds", index)

    def _credit(self, account: Account, minor: int, index: int) -> None:
        if account.cap is None:
            return
        if account.home != self.partition:
            raise No("credit_needs_home", index)
        posted, _ = self.own(account.account_id)
        promised = self._state.promised[account.account_id] + self._promised[account.account_id]
        if posted + promised + minor > account.cap:
            raise No("balance_limit_exceeded", index)

    # -- agreements ------------------------------------------------------------------------------

    def agree(self, record: Record, home: int) -> list[tuple[int, str]]:
        """Set aside and promise what this partition must of each leg; returns (leg, which)."""
        return self._agree(
            [(n, self._place(leg, home), leg) for n, leg in enumerate(record["legs"])]
        )

    def agree_back(self, back: dict[int, Record], legs: list[Record]) -> list[tuple[int, str]]:
        """The same of legs that are paid back, by their index in the original, which has `legs`.

        Returns (number among those paid back, which).
        """
        return self._agree([(i, self.keeper(legs, i), leg) for i, leg in back.items()])

    def _agree(self, asked: list[tuple[int, int, Record]]) -> list[tuple[int, str]]:
        """Agree to legs, each with the index to blame and the partition that posts it."""
        sides = []
        for index, place, leg in asked:
            source, destination = self.account(leg["source"]), self.account(leg["destination"])
            if source is None or destination is None:
                raise No("account_not_found", index)
            sides.append((index, place, leg, source, destination))
        agreed = []
        for number, (index, place, leg, source, destination) in enumerate(sides):
            debit = place == self.partition
            credit = destination.cap is not None and destination.home == self.partition
            if not debit and not credit:
                continue
            self._sides(leg, index)
            if debit:
                self._debit(source, leg["amount_minor"], index)
            if credit:
                self._credit(destination, leg["amount_minor"], index)
            if debit:
                self.moves.append(Move(source.account_id, 0, leg["amount_minor"]))
                agreed.append((number, "debit"))
            if credit:
                self._promised[destination.account_id] += leg["amount_minor"]
                agreed.append((number, "credit"))
        return agreed

    def parts_back(self, record: Record, back: dict[int, Record], legs: list[Record]) -> list[str]:
        """Return an account at each home that must agree to pay back, this one's first."""
        parts = {self.partition: record["home_account"]}
        for index, leg in back.items():
            keeper = self._keeper(legs, index)
            parts.setdefault(self._home(keeper), keeper)
            if self._state.accounts[leg["destination"]].cap is not None:
                parts.setdefault(self._home(leg["destination"]), leg["destination"])
        return list(parts.values())

    def parts(self, record: Record) -> list[str]:
        """Return an account at each home that must agree, this one's first."""
        parts = {self.partition: record["home_account"]}
        for leg in record["legs"]:
            source, destination = leg["source"], leg["destination"]
            if is_guarded(source):
                parts.setdefault(self._home(source), source)
            capped = self._state.accounts[destination].cap is not None
            if is_guarded(destination) and (not is_guarded(source) or capped):
                parts.setdefault(self._home(destination), destination)
        return list(parts.values())

    def _place(self, leg: Record, home: int) -> int:
        """Return where both sides of a leg are posted."""
        for side in (leg["source"], leg["destination"]):
            if is_guarded(side):
                return self._home(side)
        return home
