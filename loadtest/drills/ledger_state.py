"""What the plain ledger keeps: accounts, shares with their past, holds, claims. Pure.

A share and a hold remember what they were after each commit, so that one can tell what a partition
saw of the others at some moment.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Final

from loadtest.drills.ledger_words import Move, Place, Record


class No(Exception):
    """A command comes to nothing, for this reason."""

    def __init__(self, reason: str, leg: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.leg = reason, leg


@dataclass(frozen=True, slots=True)
class Eyes:
    """Up to which commit a partition saw the others: their rows and holds, accounts, balances."""

    rows: int
    accounts: int
    balances: int


@dataclass(slots=True)
class Account:
    """An account; `opened` is the commit that opened it."""

    account_id: str
    tenant: str
    currency: str
    floor: int | None
    cap: int | None
    home: int
    opened: int
    debits_frozen: bool = False
    credits_frozen: bool = False
    closed: bool = False


@dataclass(slots=True)
class Share:
    """One partition's part of a balance, and what it was after each commit that changed it."""

    posted: int = 0
    held: int = 0
    version: int = 0
    commits: list[int] = field(default_factory=list)
    past: list[tuple[int, int]] = field(default_factory=list)

    def change(self, move: Move, commit: int) -> None:
        """Apply one entry."""
        self.posted += move.amount_minor
        self.held += move.held_minor
        self.version += 1
        if not self.commits or self.commits[-1] != commit:
            self.commits.append(commit)
            self.past.append((0, 0))
        self.past[-1] = self.posted, self.held

    def at(self, commit: int) -> tuple[int, int]:
        """Return (posted, held) as it was after a commit."""
        index = bisect_right(self.commits, commit)
        return self.past[index - 1] if index else (0, 0)


@dataclass(slots=True)
class Hold:
    """Part of a balance set aside; `captures` are (commit, captured so far)."""

    hold_id: str
    partition: int
    leg: Record
    remaining: int
    captured: int
    expires_at_us: int | None
    state: str = "open"
    captures: list[tuple[int, int]] = field(default_factory=list)

    def captured_at(self, commit: int) -> int:
        """Return how much had been captured after a commit."""
        return max((captured for at, captured in self.captures if at <= commit), default=0)


@dataclass(slots=True)
class Link:
    """What a partition agreed to of a leg: that its source pays (debit), or its payee has room."""

    partition: int
    kind: str
    leg: Record
    opened: int
    state: str = "open"
    ended: int | None = None

    def open_at(self, commit: int) -> bool:
        """Tell whether it was open after a commit."""
        return self.opened <= commit and (self.ended is None or self.ended > commit)

    def committed_at(self, commit: int) -> bool:
        """Tell whether it was committed by then."""
        return self.state == "committed" and self.ended is not None and self.ended <= commit


@dataclass(slots=True)
class Total:
    """How much of a leg was paid back, or is prepared to be; and after each commit."""

    minor: int = 0
    past: list[tuple[int, int]] = field(default_factory=list)

    def add(self, minor: int, commit: int) -> None:
        """Count more of it, or less."""
        self.minor += minor
        self.past.append((commit, self.minor))

    def at(self, commit: int) -> int:
        """Return what it was after a commit."""
        return next((minor for when, minor in reversed(self.past) if when <= commit), 0)


@dataclass(frozen=True, slots=True)
class Row:
    """A command that was decided: `told` is what its event, and every repeat's, says."""

    place: Place
    commit: int
    record: Record
    told: Record


class State:
    """Everything that is committed; `commit` counts commits."""

    def __init__(self, partitions: int) -> None:
        self.partitions: Final = partitions
        self.commit = 0
        self.accounts: dict[str, Account] = {}
        self.shares: defaultdict[tuple[str, int], Share] = defaultdict(Share)
        self.holds: dict[str, Hold] = {}
        self.links: dict[tuple[str, int, str], Link] = {}
        self.promised: Counter[str] = Counter()
        self.paid_back: defaultdict[tuple[int, int, int], Total] = defaultdict(Total)
        self.claims: dict[str, Row] = {}
