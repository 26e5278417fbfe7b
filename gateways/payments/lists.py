"""How a list is read: newest first, then by id, along one index, a page at a time. Pure.

By a tag (see schemas/tags.py) the rows of that tag are walked and what they name is looked up;
further tags and conditions are looked at on the way. Without one, the table's own index by time is
walked, or one index an arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Place:
    """The last thing on a page."""

    at_us: int
    id: str


class Window(Protocol):
    """What every list query has: from_us <= t < to_us, after a place, up to a limit."""

    @property
    def tenant(self) -> str: ...
    @property
    def from_us(self) -> int | None: ...
    @property
    def to_us(self) -> int | None: ...
    @property
    def after(self) -> Place | None: ...
    @property
    def limit(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Shape:
    """What is listed: columns, table, and its columns of id and time. Rows are called `t`."""

    columns: str
    table: str
    id: str
    at: str


@dataclass(slots=True)
class Filters:
    """What rows must have: tags, and conditions on `t` with their arguments.

    `arms`: conditions of which one must hold, each with an index of its own.
    """

    tags: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    arms: list[str] = field(default_factory=list)
    arguments: list[Any] = field(default_factory=list)

    def bound(self, value: Any) -> str:
        """Keep an argument; return its placeholder."""
        self.arguments.append(value)
        return f"${len(self.arguments)}"


def statement(shape: Shape, window: Window, filters: Filters) -> tuple[str, list[Any]]:
    """Return the statement and arguments of one page."""
    tagged = bool(filters.tags)
    at, named = ("d.at_us", "d.id") if tagged else (f"t.{shape.at}", f"t.{shape.id}")
    bound = filters.bound
    conditions = [f"{'d' if tagged else 't'}.tenant = {bound(window.tenant)}"]
    conditions += _tagged([bound(tag) for tag in filters.tags]) + filters.conditions
    if window.from_us is not None:
        conditions.append(f"{at} >= {bound(window.from_us)}")
    if window.to_us is not None:
        conditions.append(f"{at} < {bound(window.to_us)}")
    if window.after is not None:
        at_us, last = bound(window.after.at_us), bound(window.after.id)
        conditions.append(f"{at} <= {at_us} and ({at} < {at_us} or {named} > {last})")
    source = f"{shape.table} t"
    if tagged:
        found = f"select * from {shape.table} where {shape.id} = d.id"  # noqa: S608 (constants)
        source = f"search_tags d cross join lateral ({found}) t"
    select = f"select {shape.columns} from {source} where {' and '.join(conditions)}"  # noqa: S608
    limit = bound(window.limit)
    if tagged or not filters.arms:
        either = f" and ({' or '.join(filters.arms)})" if filters.arms else ""
        return f"{select}{either} order by {at} desc, {named} limit {limit}", filters.arguments
    order = f" order by {shape.at} desc, {shape.id} limit {limit}"
    arms = [f"({select} and {arm}{order})" for arm in filters.arms]
    return " union all ".join(arms) + order, filters.arguments


def _tagged(tags: Sequence[str]) -> list[str]:
    """Walk the first tag's rows; of the others there must be one at the same place."""
    also = (
        f"exists (select from search_tags o where o.tenant = d.tenant and o.tag = {tag}"
        " and o.at_us = d.at_us and o.id = d.id)"
        for tag in tags[1:]
    )
    return [*(f"d.tag = {tag}" for tag in tags[:1]), *also]
