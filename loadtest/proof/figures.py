"""What the demo measured, as the document that is kept: `demo.json`. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from loadtest.generator.histogram import exact_quantile, quantiles_ms
from loadtest.proof.windows import outside, windows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtest.proof.tally import Invariant
    from loadtest.proof.windows import Kill, Life, Window

BIN_S: Final = 0.5

HOPS: Final = {
    "client_to_request": "sent to gateway",
    "request_to_command": "request to command",
    "command_to_ledger_event": "command to ledger event",
    "ledger_event_to_payment_event": "ledger event to payment event",
    "payment_event_to_seen": "payment event to seen",
}
"""Each hop's name, and how people read it."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that the document is made of; times are seconds after the start of the load."""

    seconds: float
    counts: dict[str, Any]
    lives: list[Life]
    offered: int
    offered_s: float
    kills: list[Kill]
    cpu_s: dict[str, float]
    per_hop_ms: dict[str, dict[str, float]]
    generator: dict[str, Any]
    invariants: list[Invariant]
    surprises: list[str]
    verify: dict[str, Any]
    setting: dict[str, Any]


def document(m: Measured) -> dict[str, Any]:
    """Return `demo.json`: the fields that are promised first, then what else is known."""
    end_s = max((seen for _, seen in m.lives), default=m.offered_s)
    closed = windows(m.kills, m.lives, end_s)
    calm = outside(m.lives, closed)
    ok = bool(m.invariants) and all(line.ok for line in m.invariants) and bool(m.verify.get("ok"))
    return {
        "ok": ok,
        "seconds": round(m.seconds, 1),
        **m.counts,
        "rate_offered": round(m.offered / m.offered_s, 1) if m.offered_s else 0.0,
        "rate_achieved": round(len(m.lives) / end_s, 1) if end_s else 0.0,
        "latency_ms": latencies(m.lives),
        "latency_ms_outside_kills": latencies(calm),
        "cpu_ms_per_payment": per_payment(m.cpu_s, len(m.lives)),
        "kills": [
            {
                "role": kill.role,
                "at": round(kill.at_s, 2),
                "back_after_s": rounded(kill.back_after_s),
                "ready_after_s": rounded(kill.ready_s and kill.ready_s - kill.at_s),
                "backlog_gone_after_s": rounded(window.end_s - window.start_s),
            }
            for kill, window in zip(m.kills, closed, strict=True)
        ],
        "verify": m.verify,
        "payments_measured": {"all": len(m.lives), "outside_kills": len(calm)},
        "per_hop_ms": m.per_hop_ms,
        "cpu_seconds": {role: round(used, 2) for role, used in sorted(m.cpu_s.items())},
        "generator": m.generator,
        "invariants": [
            {
                "group": line.group, "name": line.name, "says": line.says, "count": line.count,
                "differences": line.differences, "ok": line.ok,
            }
            for line in m.invariants
        ],
        "surprises": m.surprises[:20],
        "setting": m.setting,
        "series": series(m.lives, closed, end_s),
    }  # fmt: skip


def latencies(lives: Sequence[Life]) -> dict[str, float]:
    """Return quantiles of the time from the intended send to the final event, and the slowest."""
    values = [seen - sent for sent, seen in lives]
    return quantiles_ms(values) | {"max": round(max(values, default=0.0) * 1000, 2)}


def per_payment(cpu_s: Mapping[str, float], payments: int) -> dict[str, float]:
    """Return CPU milliseconds per payment, by role."""
    return {
        role: round(used * 1000 / payments, 3) if payments else 0.0
        for role, used in sorted(cpu_s.items())
    }


def series(lives: Sequence[Life], closed: Sequence[Window], end_s: float) -> dict[str, Any]:
    """Return what is drawn over time, in bins of BIN_S: latency by intended time, sent, ended."""
    latency: defaultdict[int, list[float]] = defaultdict(list)
    ended: defaultdict[int, int] = defaultdict(int)
    for sent, seen in lives:
        latency[int(sent / BIN_S)].append(seen - sent)
        ended[int(seen / BIN_S)] += 1
    last_s = max((end_s, *(window.end_s for window in closed)))
    bins = range(int(last_s / BIN_S) + 1)
    ordered = {index: sorted(latency.get(index, [])) for index in bins}
    return {
        "bin_s": BIN_S,
        "sent_per_s": [round(len(ordered[i]) / BIN_S, 1) for i in bins],
        "ended_per_s": [round(ended.get(i, 0) / BIN_S, 1) for i in bins],
        "p50_ms": [_ms(ordered[i], 0.5) for i in bins],
        "p99_ms": [_ms(ordered[i], 0.99) for i in bins],
        "windows": [
            {"role": w.role, "start_s": round(w.start_s, 2), "end_s": round(w.end_s, 2)}
            for w in closed
        ],
        "quantiles": _curve(lives),
        "quantiles_outside_kills": _curve(outside(lives, closed)),
    }


def rounded(value: float | None) -> float | None:
    """Round seconds for people."""
    return None if value is None else round(value, 2)


def _ms(ordered: Sequence[float], q: float) -> float | None:
    return round(exact_quantile(ordered, q) * 1000, 2) if ordered else None


def _curve(lives: Sequence[Life]) -> list[tuple[float, float]]:
    """Return (share, ms) along the distribution, denser towards its tail."""
    ordered = sorted(seen - sent for sent, seen in lives)
    shares = [i / 50 for i in range(50)] + [0.985, 0.99, 0.993, 0.995, 0.997, 0.998, 0.999, 0.9995]
    return (
        [(q, round(exact_quantile(ordered, q) * 1000, 2)) for q in (*shares, 1.0)]
        if ordered
        else []
    )
