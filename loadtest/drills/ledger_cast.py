"""The accounts of a ledger drill: of every kind, at home on every partition. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from ledger_writer import samples

Record = dict[str, Any]

OTHER_TENANT: Final = "rival"
FOREIGN_CURRENCY: Final = "USD"


@dataclass(frozen=True, slots=True)
class Cast:
    """The accounts of a run: `late` ones are opened in its middle, `doomed` ones get closed."""

    payers: tuple[str, ...]
    dollars: tuple[str, ...]
    banks: tuple[str, ...]
    dollar_banks: tuple[str, ...]
    strangers: tuple[str, ...]
    late: tuple[str, ...]
    doomed: tuple[str, ...]
    opening: tuple[Record, ...]

    @classmethod
    @cache
    def of(cls, partitions: int) -> Cast:
        """Choose accounts at home on every partition: plain, overdrawn, capped, doomed."""

        def named(kind: Any, skip: int) -> tuple[str, ...]:
            return tuple(samples.account_on(p, partitions, kind, skip) for p in range(partitions))

        plain, more, overdrawn, capped, late, later, dollars, strangers, *doomed = (
            named("customer", skip) for skip in range(11)
        )
        banks, dollar_banks = named("external", 0), named("external", 1)[:2]
        opening = [samples.open_account(each) for each in (*banks, *plain, *more, *sum(doomed, ()))]
        opening += [samples.open_account(each, min_balance_minor=-300) for each in overdrawn]
        opening += [samples.open_account(each, max_balance_minor=900) for each in capped]
        opening += [
            samples.open_account(each, currency=FOREIGN_CURRENCY)
            for each in (*dollars, *dollar_banks)
        ]
        opening += [samples.open_account(each, OTHER_TENANT) for each in strangers[:1]]
        payers = (*plain, *more, *overdrawn, *capped)
        return cls(
            payers,
            dollars,
            banks,
            dollar_banks,
            strangers,
            late + later,
            sum(doomed, ()),
            tuple(opening),
        )
