"""What rows come to of transfers that several partitions must agree on: links, and promised room.

Fed as `derived` is, each partition's rows in order, and as independent of the deciders. Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ledger_writer import model, operations
from ledger_writer.operations import Link, LinkKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger_writer.model import Account, Row


class DerivedLinks:
    """All links that rows tell of: `known`. `partial`: see `Derived`."""

    def __init__(self, partial: AbstractSet[int] = frozenset()) -> None:
        self._partial = partial
        self.known: dict[LinkKey, Link] = {}

    def take(self, row: Row, told: dict[str, Any], *, of_reversal: bool) -> Iterator[str]:
        """Add a row that prepares, commits or aborts; its entries were checked before."""
        agreed_on = f"{row.saga_id}/{row.identity}" if of_reversal else row.saga_id
        held, reserved = told["held"], told["reserved"]
        sides = 2 if row.type == model.COMMITTED else 1
        if len(row.entries) != sides * len(held):
            yield f"{len(held)} links and {len(row.entries)} entries"
        elif row.type == model.PREPARED:
            yield from self._take_prepared(row, told, agreed_on)
        else:
            yield from self._take_end(row, held, (agreed_on, operations.DEBIT))
            yield from self._take_end(row, reserved, (agreed_on, operations.CREDIT))
            for (index, amount_minor), debit in zip(held, row.entries[::sides], strict=True):
                if sides == 2 and debit.amount_minor != -amount_minor:
                    yield f"leg {index} moves {debit.amount_minor}, not {amount_minor}"

    def promised(self) -> dict[str, int]:
        """Return, by account, how much room is promised to what is not posted at its home."""
        promised: defaultdict[str, int] = defaultdict(int)
        for link in self.known.values():
            if link.kind != operations.CREDIT or link.state == operations.ABORTED:
                continue
            if link.state != operations.COMMITTED or not self._posted_at_home(link):
                promised[link.destination] += link.amount_minor
        return promised

    def differences(
        self,
        links: Mapping[LinkKey, Link],
        accounts: Mapping[int, Account],
        posted: Mapping[tuple[int, int], int],
    ) -> Iterator[tuple[int, str]]:
        """Compare with the table, the parts of one transfer with one another, and caps with all.

        `posted` is what is posted by account number and share.
        """
        ends: defaultdict[str, set[str]] = defaultdict(set)
        for key in links.keys() | self.known.keys():
            stored, derived = links.get(key), self.known.get(key)
            where = stored or derived
            if stored != derived and where is not None:
                yield where.partition, f"the link {key} is {stored}, its rows say {derived}"
            if derived is not None:
                ends[derived.link_id.rpartition("/")[0]].add(derived.state)
        for agreed_on, states in ends.items():
            if {operations.COMMITTED, operations.ABORTED} <= states:
                yield 0, f"{agreed_on} was committed in one partition and aborted in another"
        yield from self._over_cap(accounts, posted)

    def _over_cap(
        self, accounts: Mapping[int, Account], posted: Mapping[tuple[int, int], int]
    ) -> Iterator[tuple[int, str]]:
        capped = {a.account_no: a for a in accounts.values() if a.max_balance_minor is not None}
        shares: defaultdict[int, dict[int, int]] = defaultdict(dict)
        for (account_no, share), minor in posted.items():
            if account_no in capped:
                shares[account_no][share] = minor
        promised = self.promised()
        for account_no, account in capped.items():
            mine, cap = shares[account_no], account.max_balance_minor
            assert cap is not None
            at_home = mine.get(account.home, 0) + promised.get(account.account_id, 0)
            if sum(mine.values()) > cap or at_home > cap:
                yield account.home, f"{account.account_id} has or is promised more than its cap"

    def _posted_at_home(self, link: Link) -> bool:
        debit = self.known.get((link.link_id, operations.DEBIT))
        return debit is not None and debit.partition == link.partition

    def _take_prepared(self, row: Row, told: dict[str, Any], agreed_on: str) -> Iterator[str]:
        asked = [
            (index, operations.DEBIT, entry.account_id, destination, entry.currency, amount_minor)
            for (index, amount_minor, destination), entry in zip(
                told["held"], row.entries, strict=True
            )
        ]
        asked += [
            (index, operations.CREDIT, source, destination, currency, amount_minor)
            for index, amount_minor, source, destination, currency in told["reserved"]
        ]
        for index, kind, source, destination, currency, amount_minor in asked:
            key = f"{agreed_on}/{index}", kind
            if key in self.known:
                yield f"the link {key} is made twice"
            self.known[key] = Link(
                *key,
                row.partition,
                source,
                destination,
                currency,
                amount_minor,
                operations.OPEN,
                stored=True,
            )

    def _take_end(self, row: Row, ended: list[list[int]], of: tuple[str, str]) -> Iterator[str]:
        agreed_on, kind = of
        for index, amount_minor in ended:
            key = f"{agreed_on}/{index}", kind
            link = self.known.get(key)
            known = link is not None and (link.partition, link.state, link.amount_minor) == (
                row.partition,
                operations.OPEN,
                amount_minor,
            )
            if link is None and row.partition in self._partial:
                continue
            if link is None or not known:
                yield f"the link {key} of {amount_minor} is not open here"
            else:
                self.known[key] = replace(link, state=row.type.partition(".")[2])
