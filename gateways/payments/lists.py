"""How a list is read: newest first, then by id, along one index, a page at a time. Pure.

By a tag (see schemas/tags.py) the rows of that tag are walked, what they name is looked up, and
further conditions are looked at there. Without one, the table's own index by time is walked, or one
index an arm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from schemas import tags


@dataclass(frozen=True, slots=True)
class Place:
    """The last thing on a page."""

    at_us: int
    id: str


class Row(Protocol):
    """A row of the read model."""

    def __getitem__(self, name: str) -> Any: ...


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
    """What is listed: columns, table, and its columns of id and time. Rows are called `t`.

    Beside the columns, a row has its time in the list: `listed_at_us`.
    """

    columns: str
    table: str
    id: str
    at: str


@dataclass(slots=True)
class Filters:
    """What rows must have: a tag, and conditions on `t`; with their arguments.

    `arms`: conditions of which one must hold, each with an index of its own.
    """

    tag: str | None = None
    conditions: list[str] = field(default_factory=list)
    arms: list[str] = field(default_factory=list)
    arguments: list[Any] = field(default_factory=list)

    def bound(self, value: Any) -> str:
        """Keep an argument; return its placeholder."""
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    def want(self, tag: str, condition: str, value: Any) -> None:
        """Walk this tag if none is walked yet; else look at the condition, {} being the value."""
        if self.tag is None:
            self.tag = tag
        else:
            self.conditions.append(condition.format(self.bound(value)))

    def said(
        self, kind: tags.Kind, reference: str | None, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        """Want what a client has said."""
        if reference is not None:
            self.want(tags.reference(kind, reference), "t.reference = {}", reference)
        for name, value in metadata:
            pair = msgspec.json.encode({name: value}).decode()
            self.want(tags.metadata(kind, name, value), "t.metadata @> {}::jsonb", pair)


def statement(shape: Shape, window: Window, filters: Filters) -> tuple[str, list[Any]]:
    """Return the statement and arguments of one page."""
    tagged = filters.tag is not None
    at, named = ("d.at_us", "d.id") if tagged else (f"t.{shape.at}", f"t.{shape.id}")
    bound = filters.bound
    conditions = [f"{'d' if tagged else 't'}.tenant = {bound(window.tenant)}"]
    if tagged:
        conditions.append(f"d.tag = {bound(filters.tag)}")
    conditions += filters.conditions
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
    columns = f"{shape.columns}, {at} as listed_at_us"
    select = f"select {columns} from {source} where {' and '.join(conditions)}"  # noqa: S608
    limit = bound(window.limit)
    if tagged or not filters.arms:
        either = f" and ({' or '.join(filters.arms)})" if filters.arms else ""
        return f"{select}{either} order by {at} desc, {named} limit {limit}", filters.arguments
    order = f" order by {shape.at} desc, {shape.id} limit {limit}"
    arms = [f"({select} and {arm}{order})" for arm in filters.arms]
    return " union all ".join(arms) + order, filters.arguments
