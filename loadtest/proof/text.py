"""The demo's summary for people, as lines of text. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtest.proof.figures import HOPS
from loadtest.proof.tally import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMES = {"p50": "p50", "p95": "p95", "p99": "p99", "p999": "p99.9", "max": "max"}


def lines(document: dict[str, Any]) -> Iterator[str]:
    """Yield the summary of `demo.json`."""
    yield ""
    yield from _payments(document)
    yield ""
    yield from _latency(document)
    yield ""
    yield from _kills(document)
    yield ""
    yield from _cpu(document)
    yield ""
    yield from _proof(document)


def _payments(document: dict[str, Any]) -> Iterator[str]:
    rejected = sum(document["rejected"].values())
    reasons = ", ".join(f"{n:,} {code}" for code, n in document["rejected"].items())
    yield f"Payments   {document['accepted']:,} accepted = {document['settled']:,} settled"
    yield f"           + {rejected:,} rejected ({reasons}) + {document['in_flight']} in flight"
    yield f"           {document['setting']['funded']:,} of them paid into the accounts beforehand"
    yield f"           {document['repeated']:,} repeated, {document['conflicting']:,} conflicting"
    hooks = document["webhooks"]
    told = ", ".join(f"{n:,} {what}" for what, n in hooks.items())
    yield f"Webhooks   {told}"
    offered, achieved = document["rate_offered"], document["rate_achieved"]
    yield f"Rate       {offered:,.0f} payments/s offered, {achieved:,.0f} achieved"


def _latency(document: dict[str, Any]) -> Iterator[str]:
    yield "Latency, from the intended send to the final event (ms)"
    yield "           " + "".join(f"{name:>10}" for name in _NAMES.values())
    for title, key in (("all", "latency_ms"), ("no kill", "latency_ms_outside_kills")):
        values = document[key]
        yield f"  {title:<9}" + "".join(f"{values[name]:>10,.0f}" for name in _NAMES)
    for hop, values in document["per_hop_ms"].items():
        name, p50, p99 = HOPS[hop], values["p50"], values["p99"]
        yield f"  {name:<32} p50 {p50:>7,.0f}   p99 {p99:>7,.0f}"


def _kills(document: dict[str, Any]) -> Iterator[str]:
    yield "Killed (SIGKILL)        at     back after     backlog gone after"
    for kill in document["kills"]:
        back = kill["back_after_s"]
        told = "not in time" if back is None else f"{back:.1f} s"
        gone = f"{kill['backlog_gone_after_s']:.1f} s"
        yield f"  {kill['role']:<16} {kill['at']:>7.1f} s {told:>12} {gone:>20}"


def _cpu(document: dict[str, Any]) -> Iterator[str]:
    yield "CPU                   seconds   ms per payment"
    seconds = document["cpu_seconds"]
    for role, used in sorted(seconds.items(), key=lambda item: -item[1]):
        yield f"  {role:<16} {used:>9.1f} {document['cpu_ms_per_payment'][role]:>14.2f}"


def _proof(document: dict[str, Any]) -> Iterator[str]:
    for group, title in GROUPS.items():
        found = [line for line in document["invariants"] if line["group"] == group]
        wrong = sum(line["differences"] for line in found)
        counted = sum(line["count"] for line in found)
        mark = "holds" if not wrong else f"BROKEN: {wrong:,} differences"
        yield f"  {group}. {title}: {mark} ({counted:,} compared)"
        for line in found:
            if not line["ok"]:
                yield f"       {line['name']}: {line['differences']:,} of {line['count']:,}"
    for surprise in document["surprises"][:5]:
        yield f"       {surprise}"
    yield ""
    yield "Every invariant holds." if document["ok"] else "NOT every invariant holds."
