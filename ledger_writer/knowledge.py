"""What a partition's writer remembers of accounts between batches: bounded, never a negative.

Own shares are exact while the epoch holds, since nobody else writes them; foreign sums may be old,
which is safe; when they were read is kept, to be shown. An account that is not here is looked up
again each time, so one that was opened on another partition a moment ago is found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ledger_writer.model import Standing
    from ledger_writer.operations import Flagged, Room

ACCOUNTS_MAX: Final = 100_000
"""Accounts remembered per partition; about 400 bytes each."""


class Knowledge:
    """The least recently used accounts are forgotten first."""

    def __init__(self, accounts_max: int = ACCOUNTS_MAX) -> None:
        self._accounts_max = accounts_max
        self._standings: dict[str, Standing] = {}
        self._read_at_s: dict[str, float] = {}

    def recall(self, account_ids: Iterable[str]) -> tuple[dict[str, Standing], list[str]]:
        """Return the accounts remembered, and the ids of those that are not."""
        found: dict[str, Standing] = {}
        missing = []
        for account_id in account_ids:
            standing = self._standings.pop(account_id, None)
            if standing is None:
                missing.append(account_id)
            else:
                found[account_id] = self._standings[account_id] = standing
        return found, missing

    def learn(self, standings: Mapping[str, Standing], at_s: float = 0.0) -> None:
        """Remember what was read, and when."""
        self._read_at_s.update(dict.fromkeys(standings, at_s))
        self._keep(standings)

    def read_again(self, account_ids: Iterable[str], at_s: float) -> None:
        """Remember when foreign shares were read once more."""
        for account_id in account_ids:
            if account_id in self._read_at_s:
                self._read_at_s[account_id] = at_s

    def oldest_s(self, changed: Iterable[Standing], partition: int, now_s: float) -> float | None:
        """Return the oldest reading of foreign shares that these changes rested on, if any did.

        Decisions about guarded accounts at home rest on such. Of an account that was opened in the
        batch it is known now that there are none.
        """
        read_at_s = self._read_at_s
        return min(
            (
                read_at_s.get(standing.account.account_id, now_s)
                for standing in changed
                if standing.account.home == partition and standing.account.kind == "customer"
            ),
            default=None,
        )

    def _keep(self, standings: Mapping[str, Standing]) -> None:
        self._standings.update(standings)
        while len(self._standings) > self._accounts_max:
            forgotten = next(iter(self._standings))
            del self._standings[forgotten]
            self._read_at_s.pop(forgotten, None)

    def settle(
        self,
        changed: Collection[Standing],
        flagged: Iterable[Flagged] = (),
        rooms: Iterable[Room] = (),
        *,
        at_s: float = 0.0,
    ) -> None:
        """Remember what was committed, at this time."""
        for standing in changed:
            standing.stored_version = standing.version
        settled = {standing.account.account_id: standing for standing in changed}
        for opened in settled.keys() - self._read_at_s.keys():
            self._read_at_s[opened] = at_s
        self._keep(settled)
        for flag in flagged:
            known = self._standings.get(flag.account.account_id)
            if known is not None:
                known.account = flag.account
        for room in rooms:
            known = self._standings.get(room.account_id)
            if known is not None:
                known.promised_minor = room.promised_minor

    def forget(self) -> None:
        """Remember nothing."""
        self._standings.clear()
        self._read_at_s.clear()
