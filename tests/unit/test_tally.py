"""A tally tells a counter as much as telling it each time would."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from schemas.metrics import Tally


def test_a_counter_hears_of_each_count_once() -> None:
    registry = CollectorRegistry()
    counter = Counter("seen_total", "Seen", ["kind"], registry=registry)
    tally = Tally({kind: counter.labels(kind=kind) for kind in ("a", "b")})

    def told() -> list[float | None]:
        return [registry.get_sample_value("seen_total", {"kind": kind}) for kind in ("a", "b")]

    for kind in "aab":
        tally.count(kind)
    assert told() == [0.0, 0.0]
    tally.tell()
    tally.tell()
    assert told() == [2.0, 1.0]
    tally.count("b")
    tally.tell()
    assert told() == [2.0, 2.0]
