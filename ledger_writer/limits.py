"""What a share's row must say beside its balance: its limits, and what was seen of other shares.

The home share of an account carries its limits, another share of a guarded one may not go below
zero. What a guarded home saw of the other shares can be old, but never more than is there. Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ledger_writer.verify import Finding

if TYPE_CHECKING:
    from ledger_writer.columns import Columns
    from ledger_writer.model import Account


def limit_findings(shares: Sequence[Columns], accounts: Mapping[int, Account]) -> Iterator[Finding]:
    """Check lines of the table `shares` against the accounts."""
    totals: defaultdict[int, int] = defaultdict(int)
    for line in shares:
        totals[line["account_no"]] += line["posted_minor"]
    for line in shares:
        account = accounts.get(line["account_no"])
        if account is None:
            continue  # found elsewhere: nobody opened it
        home = account.home == line["share"]
        floor = (account.min_balance_minor if home else 0) if account.guarded else None
        ceiling = account.max_balance_minor if home else None
        if (line["floor_minor"], line["ceiling_minor"]) != (floor, ceiling):
            told = f"{line['floor_minor']} to {line['ceiling_minor']}, not {floor} to {ceiling}"
            yield Finding(line["share"], 0, f"the share of {account.account_id} is bound {told}")
        elsewhere = totals[account.account_no] - line["posted_minor"]
        most = elsewhere if home and account.guarded else 0
        if not 0 <= line["foreign_minor"] <= most:
            told = f"claims to have seen {line['foreign_minor']} elsewhere, where {most} are"
            yield Finding(line["share"], 0, f"the share of {account.account_id} {told}")
