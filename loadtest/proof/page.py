"""The demo's page: one HTML file that needs nothing else, for light and dark. Pure."""

from __future__ import annotations

from html import escape
from typing import Any

from loadtest.proof import charts
from loadtest.proof.figures import HOPS
from loadtest.proof.tally import GROUPS


def render(document: dict[str, Any], style: str) -> str:
    """Return the page that shows `demo.json`, with the content of the style sheet."""
    body = "".join(
        (
            _head(document),
            _tiles(document),
            _over_time(document["series"]),
            _distribution(document["series"]),
            _bars(document),
            _kills(document),
            _invariants(document),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>headrace demo</title><style>{style}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _head(document: dict[str, Any]) -> str:
    setting, ok = document["setting"], document["ok"]
    verdict = "Every invariant holds" if ok else "Not every invariant holds"
    killed = ", ".join(kill["role"] for kill in document["kills"]) or "nothing"
    return (
        "<h1>headrace demo</h1>"
        f'<p><span class="verdict {"good" if ok else "bad"}">{verdict}.</span> '
        f"{setting['payments']:,} payments among {setting['accounts']:,} accounts at "
        f"{setting['rate']:,.0f}/s, seed {setting['seed']}; killed meanwhile: {escape(killed)}; "
        f"{document['seconds']:.0f} s in all.</p>"
    )


def _tiles(document: dict[str, Any]) -> str:
    calm = document["latency_ms_outside_kills"]
    hooks = document["webhooks"]
    tiles = [
        ("accepted", f"{document['accepted']:,}"),
        ("settled", f"{document['settled']:,}"),
        ("rejected", f"{sum(document['rejected'].values()):,}"),
        ("in flight", f"{document['in_flight']:,}"),
        ("repeated requests", f"{document['repeated']:,}"),
        ("conflicts, none executed", f"{document['conflicting']:,}"),
        ("webhooks verified", f"{hooks['verified']:,}"),
        ("payments/s achieved", f"{document['rate_achieved']:,.0f}"),
        ("p50 outside kills", f"{calm['p50']:,.0f} ms"),
        ("p99 outside kills", f"{calm['p99']:,.0f} ms"),
        ("p99 with kills", f"{document['latency_ms']['p99']:,.0f} ms"),
        ("CPU per payment", f"{sum(document['cpu_ms_per_payment'].values()):.2f} ms"),
    ]
    shown = "".join(f'<div class="tile"><b>{n}</b><span>{name}</span></div>' for name, n in tiles)
    return f'<div class="tiles">{shown}</div>'


def _over_time(series: dict[str, Any]) -> str:
    bin_s, count = series["bin_s"], len(series["sent_per_s"])
    times = [(i + 0.5) * bin_s for i in range(count)]
    x = charts.linear(count * bin_s, " s")
    shades = [charts.Shade(w["role"], w["start_s"], w["end_s"]) for w in series["windows"]]
    values = [v for key in ("p50_ms", "p99_ms") for v in series[key] if v is not None]
    latency = [
        charts.Line(name, kind, list(zip(times, series[key], strict=True)))
        for name, kind, key in (("p99", "two", "p99_ms"), ("p50", "one", "p50_ms"))
    ]
    rates = [
        charts.Line(name, kind, list(zip(times, series[key], strict=True)))
        for name, kind, key in (("sent", "two", "sent_per_s"), ("ended", "one", "ended_per_s"))
    ]
    highest = max((*series["sent_per_s"], *series["ended_per_s"]), default=1.0)
    y = charts.logarithmic(min(values, default=1.0), max(values, default=10.0))
    return (
        "<h2>Over time</h2><p>Latency runs from the moment a payment was meant to be sent to its "
        "final event, as a consumer of committed events sees it. Shaded: from a kill until its "
        "backlog is gone.</p>"
        + charts.lines("Latency by time of sending, ms", (x, y), latency, shades=shades, unit=" ms")
        + charts.lines(
            "Payments per second", (x, charts.linear(highest)), rates, shades=shades, unit="/s"
        )
    )


def _distribution(series: dict[str, Any]) -> str:
    drawn = [
        charts.Line(name, kind, [(share, ms) for share, ms in series[key]])
        for name, kind, key in (
            ("all", "two", "quantiles"),
            ("outside kills", "one", "quantiles_outside_kills"),
        )
    ]
    values = [ms for line in drawn for _, ms in line.points if ms]
    y = charts.logarithmic(min(values, default=1.0), max(values, default=10.0))
    return charts.lines("Latency distribution, ms", (charts.nines(), y), drawn, unit=" ms")


def _bars(document: dict[str, Any]) -> str:
    hops = [
        (HOPS[hop], (values["p50"], values["p99"]))
        for hop, values in document["per_hop_ms"].items()
    ]
    cpu = sorted(document["cpu_ms_per_payment"].items(), key=lambda item: -item[1])
    return (
        "<h2>Where the time goes</h2>"
        + charts.bars("Per hop, kills included", hops, [("p50", "one"), ("p99", "two")], "ms")
        + charts.bars(
            "CPU per payment, by role", [(role, (ms,)) for role, ms in cpu], [("CPU", "one")], "ms"
        )
    )


def _kills(document: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(kill['role'])}</td><td class=n>{kill['at']:.1f} s</td>"
        f"<td class=n>{_seconds(kill['back_after_s'])}</td>"
        f"<td class=n>{_seconds(kill['backlog_gone_after_s'])}</td></tr>"
        for kill in document["kills"]
    )
    head = (
        "<tr><th>killed (SIGKILL)<th class=n>at<th class=n>back at work after"
        "<th class=n>backlog gone after</tr>"
    )
    return f'<h2>Kills</h2><div class="scroll"><table>{head}{rows}</table></div>' if rows else ""


def _invariants(document: dict[str, Any]) -> str:
    parts = ["<h2>What must always hold</h2>"]
    for group, title in GROUPS.items():
        rows = "".join(
            f"<tr><td class={'good' if line['ok'] else 'bad'}>{'holds' if line['ok'] else 'broken'}"
            f"<td>{escape(line['says'])}<td class=n>{line['count']:,}"
            f"<td class=n>{line['differences']:,}</tr>"
            for line in document["invariants"]
            if line["group"] == group
        )
        parts.append(
            f'<p>{group}. {escape(title)}</p><div class="scroll"><table><tr><th><th>'
            f"<th class=n>compared<th class=n>differences</tr>{rows}</table></div>"
        )
    return "".join(parts)


def _seconds(value: float | None) -> str:
    return "not in time" if value is None else f"{value:.1f} s"
