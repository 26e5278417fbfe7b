"""What a partition's writer remembers of accounts between batches: bounded, never a negative.

Own shares are exact while the epoch holds, since nobody else writes them; foreign sums may be old,
which is safe. An account that is not here is looked up again each time, so one that was opened on
another partition a moment ago is found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ledger_writer.model import Standing
    from ledger_writer.operations import Flagged

ACCOUNTS_MAX: Final = 100_000
"""Accounts remembered per partition; about 400 bytes each."""


class Knowledge:
    """The least recently used accounts are forgotten first."""

    def __init__(self, accounts_max: int = ACCOUNTS_MAX) -> None:
        self._accounts_max = accounts_max
        self._standings: dict[str, Standing] = {}

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

    def learn(self, standings: Mapping[str, Standing]) -> None:
        """Remember what was read."""
        self._standings.update(standings)
        while len(self._standings) > self._accounts_max:
            del self._standings[next(iter(self._standings))]

    def settle(self, changed: Collection[Standing], flagged: Iterable[Flagged] = ()) -> None:
        """Remember what was committed."""
        for standing in changed:
            standing.stored_version = standing.version
        self.learn({standing.account.account_id: standing for standing in changed})
        for flag in flagged:
            known = self._standings.get(flag.account.account_id)
            if known is not None:
                known.account = flag.account

    def forget(self) -> None:
        """Remember nothing."""
        self._standings.clear()
