"""The least versions that a read must reach: read your own writes. Memory with a bound.

Replies tell which shares of which accounts an outcome changed, and when an account's flags were. A
share's version only grows, like the time of a change, so a view that shows a lower one is stale.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from gateways.kafka.reply import Reply, Share


class Versions:
    """Versions of shares by account, of the accounts seen last."""

    def __init__(self, accounts_max: int) -> None:
        self._accounts_max = accounts_max
        self._accounts: OrderedDict[str, dict[int, int]] = OrderedDict()
        self._changes: OrderedDict[str, int] = OrderedDict()

    def learn(self, shares: tuple[Share, ...]) -> None:
        """Remember what an outcome changed."""
        for share in shares:
            versions = self._accounts.setdefault(share.account_id, {})
            versions[share.share] = max(versions.get(share.share, 0), share.version)
            self._accounts.move_to_end(share.account_id)
        while len(self._accounts) > self._accounts_max:
            self._accounts.popitem(last=False)

    def learn_change(self, reply: Reply) -> None:
        """Remember when an account's flags were changed, if that is what the reply tells."""
        flagged = reply.debits_frozen is not None and reply.operation_id is not None
        if flagged and reply.reason is None and reply.booked_at_us is not None:
            before = self._changes.pop(reply.resource_id, 0)
            self._changes[reply.resource_id] = max(before, reply.booked_at_us)
        while len(self._changes) > self._accounts_max:
            self._changes.popitem(last=False)

    def knows_of(self, account_id: str) -> bool:
        """Tell whether anything was said to have changed of the account."""
        return account_id in self._accounts or account_id in self._changes

    def reached(self, account_id: str, shown: Mapping[int, int], changed_at_us: int = 0) -> bool:
        """Tell whether a read that shows these versions is fresh enough."""
        if self._changes.get(account_id, 0) > changed_at_us:
            return False
        needed = self._accounts.get(account_id)
        if needed is None:
            return True
        return all(shown.get(share, 0) >= version for share, version in needed.items())
