"""Charts as inline SVG: lines over time, a distribution by nines, horizontal bars. Pure.

Colors come from the page's CSS classes, so that one drawing serves light and dark. Every mark
carries its value as a tooltip (`<title>`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Point = tuple[float, float]

WIDTH: Final = 860
HEIGHT: Final = 280
LEFT: Final = 64
RIGHT: Final = 16
TOP: Final = 26
BOTTOM: Final = 36


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart; None as y breaks it. `kind` is its CSS class."""

    name: str
    kind: str
    points: Sequence[tuple[float, float | None]]


@dataclass(frozen=True, slots=True)
class Shade:
    """A stretch of the x axis that is marked, and what for."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Axis:
    """How values lie along one side: `place` maps a value to 0..1; `ticks` are (value, text)."""

    place: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]


def linear(high: float, unit: str = "") -> Axis:
    """Return an axis from 0 to at least `high`, with round ticks."""
    step = _round_step(high / 5)
    top = max(step, math.ceil(high / step) * step)
    ticks = [(i * step, f"{i * step:,.10g}{unit}") for i in range(round(top / step) + 1)]
    return Axis(lambda value: value / top, ticks)


def logarithmic(low: float, high: float) -> Axis:
    """Return an axis over whole decades (and a half at the end) that holds `low` to `high`."""
    first = math.floor(math.log10(max(low, 1e-3)))
    last = max(first + 1, math.ceil(math.log10(max(high, 1e-3)) * 2) / 2)
    ticks = [
        (digit * 10.0**decade, _short(digit * 10.0**decade))
        for decade in range(first, math.ceil(last) + 1)
        for digit in (1, 3)
        if first <= math.log10(digit * 10.0**decade) <= last + 0.01
    ]
    return Axis(lambda value: (math.log10(max(value, 1e-3)) - first) / (last - first), ticks)


def nines(high: int = 4) -> Axis:
    """Return an axis of shares on which every further nine takes as much room as the last."""
    ticks = [(0.0, "p0"), (0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9")]
    return Axis(lambda share: min(1.0, -math.log10(max(1 - share, 10.0**-high)) / high), ticks)


def lines(
    title: str, axes: tuple[Axis, Axis], drawn: Sequence[Line],
    *, shades: Sequence[Shade] = (), unit: str = "",
) -> str:  # fmt: skip
    """Draw lines over shaded stretches, with axes (x, y) and a legend."""
    x, y = axes
    parts = [_shade(shade, x, i) for i, shade in enumerate(_apart(shades, x))]
    parts += _grid(x, y)
    for line in drawn:
        for stretch in _stretches(line.points):
            path = " ".join(f"{_x(x, a):.1f},{_y(y, b):.1f}" for a, b in stretch)
            tip = f"<title>{escape(line.name)}</title>"
            parts.append(f'<polyline class="line {line.kind}" points="{path}">{tip}</polyline>')
        for a, b in line.points:
            if b is not None:
                tip = f"<title>{escape(line.name)}: {b:,.6g}{unit} at {a:,.4g}</title>"
                parts.append(f'<circle class="dot" cx="{_x(x, a):.1f}" cy="{_y(y, b):.1f}" r="5">'
                             f"{tip}</circle>")  # fmt: skip
    return _figure(title, _svg("".join(parts), HEIGHT), [(line.name, line.kind) for line in drawn])


def bars(
    title: str, rows: Sequence[tuple[str, Sequence[float]]],
    kinds: Sequence[tuple[str, str]], unit: str,
) -> str:  # fmt: skip
    """Draw a group of horizontal bars per row, one bar per kind (name, CSS class)."""
    thick, gap = (18, 14) if len(kinds) == 1 else (13, 16)
    high = max((value for _, values in rows for value in values), default=0.0) or 1.0
    left, room = 230, WIDTH - 230 - 90
    parts, at = [], 6.0
    for name, values in rows:
        middle = at + thick * len(values) / 2 + 4
        parts.append(f'<text class="label" x="{left - 10}" y="{middle:.1f}">{escape(name)}</text>')
        for value, (what, kind) in zip(values, kinds, strict=True):
            wide = max(1.0, value / high * room)
            tip = f"<title>{escape(name)}, {escape(what)}: {value:,.6g} {unit}</title>"
            parts.append(f'<rect class="bar {kind}" x="{left}" y="{at:.1f}" width="{wide:.1f}" '
                         f'height="{thick - 2}" rx="3">{tip}</rect>')  # fmt: skip
            parts.append(f'<text class="value" x="{left + wide + 6:.1f}" y="{at + thick - 5:.1f}">'
                         f"{_short(value)} {unit}</text>")  # fmt: skip
            at += thick
        at += gap
    legend = list(kinds) if len(kinds) > 1 else []
    return _figure(title, _svg("".join(parts), math.ceil(at)), legend)


def _grid(x: Axis, y: Axis) -> Iterable[str]:
    floor = HEIGHT - BOTTOM
    for value, text in y.ticks:
        at = _y(y, value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield f'<text class="tick left" x="{LEFT - 8}" y="{at + 4:.1f}">{text}</text>'
    for value, text in x.ticks:
        at = _x(x, value)
        if at <= WIDTH - RIGHT + 1:
            yield f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{floor}" y2="{floor + 5}"/>'
            yield f'<text class="tick below" x="{at:.1f}" y="{floor + 20}">{text}</text>'


def _shade(shade: Shade, x: Axis, row: int) -> str:
    start, end = _x(x, shade.start), min(_x(x, shade.end), WIDTH - RIGHT)
    tip = f"{escape(shade.name)} killed at {shade.start:.1f} s, done {shade.end:.1f} s"
    return (
        f'<rect class="shade" x="{start:.1f}" y="{TOP}" width="{max(2.0, end - start):.1f}" '
        f'height="{HEIGHT - TOP - BOTTOM}"><title>{tip}</title></rect>'
        f'<line class="killed" x1="{start:.1f}" x2="{start:.1f}" y1="{TOP}" '
        f'y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="kill" x="{start + 2:.1f}" y="{TOP - 6 - 10 * (row % 2)}">'
        f"{escape(shade.name)}</text>"
    )


def _apart(shades: Sequence[Shade], x: Axis) -> list[Shade]:
    """Order them, so that neighbors' labels take turns in height only where they are close."""
    return sorted(shades, key=lambda shade: x.place(shade.start))


def _stretches(points: Sequence[tuple[float, float | None]]) -> list[list[Point]]:
    found: list[list[Point]] = [[]]
    for a, b in points:
        if b is None:
            found.append([])
        else:
            found[-1].append((a, b))
    return [stretch for stretch in found if len(stretch) > 1]


def _figure(title: str, drawing: str, legend: Sequence[tuple[str, str]]) -> str:
    keys = "".join(
        f'<span class="key"><i class="{kind}"></i>{escape(name)}</span>' for name, kind in legend
    )
    return f"<figure><figcaption>{escape(title)}{keys}</figcaption>{drawing}</figure>"


def _svg(content: str, height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{content}</svg>'


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(max(rough, 1e-9)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough)


def _short(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
