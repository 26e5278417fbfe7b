"""What the load consists of, decided whole before anything is sent. Pure: seeded, no clock, no I/O.

Accounts are few and payments skewed (Zipf) as real ones are. Some accounts never get money, so that
their payments must be refused; some send so fast that the velocity rule must stop them; a share of
requests repeats an earlier one, and a smaller share uses an earlier key for something else. Every
ordinary account is funded with what it will send, so that any other refusal is a fault.
"""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final, Literal

from loadtest.generator import schedule

CURRENCIES: Final = ("EUR", "EUR", "EUR", "EUR", "USD")
"""Account number n holds CURRENCIES[n mod 5]."""

LATER_S: Final = (0.2, 8.0)
"""A repeat or conflict that does not come at once comes this much later."""

RUNAWAY_MINOR: Final = 1_000_000
"""What a runaway account sends at a time, far above any ordinary payment."""

_SLACK_MINOR: Final = 10_000
_AMOUNT_MINOR_MAX: Final = 50_000


class Use(StrEnum):
    """What an account is for."""

    EXTERNAL = "external"
    ORDINARY = "ordinary"
    EMPTY = "empty"
    RUNAWAY = "runaway"


class Purpose(StrEnum):
    """What a request is to provoke."""

    PAY = "pay"
    UNFUNDED = "unfunded"
    RUNAWAY = "runaway"
    REPEAT = "repeat"
    CONFLICT = "conflict"
    FUND = "fund"


@dataclass(frozen=True, slots=True)
class Shape:
    """The size and mix of a load; shares are of `payments`. Each of the `runaways`
    sends `burst` payments of RUNAWAY_MINOR within moments.
    """

    seed: int = 1
    payments: int = 30_000
    rate: float = 1_000.0
    accounts: int = 1_000
    arrivals: schedule.Arrivals = "poisson"
    zipf: float = 0.8
    repeated: float = 0.05
    conflicting: float = 0.005
    unfunded: float = 0.01
    runaways: int = 0
    burst: int = 60
    prefix: str = "load"


@dataclass(frozen=True, slots=True)
class Account:
    """An account to open; `number` is how orders refer to it."""

    number: int
    use: Use
    currency: str
    key: str

    @property
    def kind(self) -> Literal["customer", "external"]:
        """Return the kind it is opened with."""
        return "external" if self.use is Use.EXTERNAL else "customer"


@dataclass(frozen=True, slots=True)
class Order:
    """One request to create a payment, `at_s` after the start. `of` is the number of the order
    whose key it uses: its own, unless it repeats or contradicts another.
    """

    number: int
    at_s: float
    purpose: Purpose
    key: str
    source: int
    destination: int
    amount_minor: int
    of: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything to send: `funding` first, then `orders` by time."""

    shape: Shape
    accounts: tuple[Account, ...]
    funding: tuple[Order, ...]
    orders: tuple[Order, ...]


def make(shape: Shape) -> Plan:
    """Decide the whole load."""
    accounts = _accounts(shape)
    originals = _originals(shape, accounts)
    extras = _extras(shape, originals, accounts)
    orders = sorted(originals + extras, key=lambda order: (order.at_s, order.number))
    return Plan(shape, accounts, _funding(shape, accounts, orders), tuple(orders))


class Zipf:
    """Draws the numbers given, the first most often: weight of rank r is 1 / r**exponent."""

    def __init__(self, numbers: list[int], exponent: float) -> None:
        weights = [1 / rank**exponent for rank in range(1, len(numbers) + 1)]
        self._numbers = numbers
        self._cumulative = list(itertools.accumulate(weights))

    def draw(self, random: Random) -> int:
        """Return one number."""
        point = random.random() * self._cumulative[-1]
        return self._numbers[bisect.bisect(self._cumulative, point, hi=len(self._numbers) - 1)]


def amount_minor(random: Random) -> int:
    """Draw an amount as retail payments have it: log-normal, median 12, at most 500."""
    return min(_AMOUNT_MINOR_MAX, max(1, round(random.lognormvariate(7.1, 1.0))))


def _accounts(shape: Shape) -> tuple[Account, ...]:
    """One external account per currency, then the customers: ordinary, empty and runaway ones."""
    currencies = sorted(set(CURRENCIES))
    empty = max(1, shape.accounts // 50) if shape.unfunded else 0
    ordinary = shape.accounts - empty - shape.runaways
    if ordinary < 2 * len(CURRENCIES):
        raise ValueError(f"{shape.accounts} accounts are too few for this mix")
    uses = [Use.ORDINARY] * ordinary + [Use.EMPTY] * empty + [Use.RUNAWAY] * shape.runaways
    rows = [(Use.EXTERNAL, currency) for currency in currencies]
    rows += [(use, CURRENCIES[i % len(CURRENCIES)]) for i, use in enumerate(uses)]
    return tuple(
        Account(number, use, currency, f"{shape.prefix}-{shape.seed}-account-{number}")
        for number, (use, currency) in enumerate(rows)
    )


def _originals(shape: Shape, accounts: tuple[Account, ...]) -> list[Order]:
    random = Random(f"{shape.seed}/payments")
    of_use = {use: [a.number for a in accounts if a.use is use] for use in Use}
    payers = Zipf(of_use[Use.ORDINARY], shape.zipf)
    payees = _payees(shape, accounts, random)
    runaways = _runaway_places(shape, of_use[Use.RUNAWAY], random)
    orders = []
    for number, at_s in enumerate(
        schedule.times(shape.payments, shape.rate, shape.arrivals, random)
    ):
        if number in runaways:
            purpose, source = Purpose.RUNAWAY, runaways[number]
        elif random.random() < shape.unfunded:
            purpose, source = Purpose.UNFUNDED, random.choice(of_use[Use.EMPTY])
        else:
            purpose, source = Purpose.PAY, payers.draw(random)
        destination = source
        while destination == source:
            destination = payees[accounts[source].currency].draw(random)
        amount = RUNAWAY_MINOR if purpose is Purpose.RUNAWAY else amount_minor(random)
        key = f"{shape.prefix}-{shape.seed}-{number}"
        orders.append(Order(number, at_s, purpose, key, source, destination, amount, number))
    return orders


def _payees(shape: Shape, accounts: tuple[Account, ...], random: Random) -> dict[str, Zipf]:
    """Popular payees are others than busy payers: their ranks are shuffled."""
    result = {}
    for currency in sorted(set(CURRENCIES)):
        numbers = [a.number for a in accounts if (a.use, a.currency) == (Use.ORDINARY, currency)]
        random.shuffle(numbers)
        result[currency] = Zipf(numbers, shape.zipf)
    return result


def _runaway_places(shape: Shape, runaways: list[int], random: Random) -> dict[int, int]:
    """Give each runaway account a tight run of every second order; none overlap."""
    span = 2 * shape.burst
    places: dict[int, int] = {}
    if not runaways:
        return places
    room = shape.payments // len(runaways)
    if room < span:
        raise ValueError(f"{shape.payments} payments leave no room for the runaways' bursts")
    for i, account in enumerate(runaways):
        start = i * room + random.randrange(room - span + 1)
        places |= {start + 2 * j: account for j in range(shape.burst)}
    return places


def _extras(shape: Shape, originals: list[Order], accounts: tuple[Account, ...]) -> list[Order]:
    """Return the repeats and the conflicts: no order is both."""
    random = Random(f"{shape.seed}/extras")
    repeats = round(shape.repeated * shape.payments)
    conflicts = round(shape.conflicting * shape.payments)
    chosen = random.sample(originals, repeats + conflicts)
    extras = [_repeat(shape, order, i, random) for i, order in enumerate(chosen[:repeats])]
    ordinary = [a for a in accounts if a.use is Use.ORDINARY]
    for i, order in enumerate(chosen[repeats:], start=repeats):
        extras.append(_conflict(shape, order, i, ordinary, random))
    return extras


def _repeat(shape: Shape, order: Order, i: int, random: Random) -> Order:
    return Order(
        shape.payments + i, _when(order, random), Purpose.REPEAT, order.key,
        order.source, order.destination, order.amount_minor, order.number,
    )  # fmt: skip


def _conflict(shape: Shape, order: Order, i: int, ordinary: list[Account], random: Random) -> Order:
    """Contradict the amount, or the source account (so that another partition gets it)."""
    source, amount = order.source, order.amount_minor
    if random.random() < 0.5:
        amount += 1
    else:
        currency = next(a.currency for a in ordinary if a.number == order.destination)
        others = [a.number for a in ordinary if a.currency == currency]
        while source in {order.source, order.destination}:
            source = random.choice(others)
    return Order(
        shape.payments + i, _when(order, random), Purpose.CONFLICT, order.key,
        source, order.destination, amount, order.number,
    )  # fmt: skip


def _when(order: Order, random: Random) -> float:
    """Half of them at the very same time, half later."""
    return order.at_s if random.random() < 0.5 else order.at_s + random.uniform(*LATER_S)


def _funding(shape: Shape, accounts: tuple[Account, ...], orders: list[Order]) -> tuple[Order, ...]:
    """Pay each ordinary and runaway account, from outside, all that it is going to send."""
    needed = dict.fromkeys((a.number for a in accounts), _SLACK_MINOR)
    for order in orders:
        needed[order.source] += order.amount_minor
    external = {a.currency: a.number for a in accounts if a.use is Use.EXTERNAL}
    funded = [a for a in accounts if a.use in {Use.ORDINARY, Use.RUNAWAY}]
    return tuple(
        Order(
            -1 - i, 0.0, Purpose.FUND, f"{shape.prefix}-{shape.seed}-fund-{account.number}",
            external[account.currency], account.number, needed[account.number], -1 - i,
        )
        for i, account in enumerate(funded)
    )  # fmt: skip
