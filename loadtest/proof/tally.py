"""Put together what the log tells, what clients were told and what was planned. Pure.

`told` is what `verify.compare.counts` found in the log. Every line of the proof has its count; the
groups are those of the design's list of what must always hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from loadtest.generator.histogram import QUANTILES

if TYPE_CHECKING:
    from loadtest.generator.open_loop import Health
    from loadtest.proof.load import Delivered
    from loadtest.proof.outcomes import Judged
    from loadtest.proof.windows import Kill
    from loadtest.verify.compare import Verdict

Told = Mapping[str, Sequence[tuple[Any, ...]]]

GROUPS: Final = {
    1: "Money: debits equal credits, and no guarded account is below its limit",
    2: "Each accepted request reaches exactly one final state",
    3: "One idempotency key, one outcome; a replay changes nothing",
    4: "Each committed record is in the ledger and in bronze exactly once",
    5: "kill -9 of any process loses and doubles nothing",
    6: "The lake equals the log equals the ledger",
}
_GROUP_OF: Final = {
    "debits_equal_credits": 1,
    "running_balances": 1,
    "balances_equal_entries": 1,
    "no_account_below_its_limit": 1,
    "entries_follow_commands": 1,
    "homes_agree": 1,
    "requests_end_once": 2,
    "webhooks_judged_once": 2,
    "one_identity_one_outcome": 3,
    "commands_decided_once": 4,
    "journal_gapless": 4,
    "records_lie_where_their_key_says": 4,
}
_UNAUTHORIZED: Final = 401


@dataclass(frozen=True, slots=True)
class Invariant:
    """One line of the proof."""

    group: int
    name: str
    says: str
    count: int
    differences: int

    @property
    def ok(self) -> bool:
        """Tell whether it holds."""
        return self.differences == 0


def counts(told: Told, judged: Judged) -> dict[str, Any]:
    """Return how many payments and webhooks came to what."""
    accepted, settled, rejected, in_flight = _balance(told)
    webhooks: dict[str, int] = dict(told["webhooks"])
    assert rejected == sum(n for _, n in told["reasons"])
    return {
        "accepted": accepted,
        "settled": settled,
        "rejected": dict(told["reasons"]),
        "repeated": judged.repeated,
        "conflicting": len(judged.conflicts) - len(_unnoticed(told, judged)),
        "in_flight": in_flight,
        "webhooks": {
            "verified": webhooks.get("webhook.accepted", 0),
            "repeated": webhooks.get("webhook.repeated", 0),
            "quarantined": len(told["quarantined"]),
        },
    }


def generator(health: Health, requests: int) -> dict[str, Any]:
    """Return how the generator itself fared."""
    late = {q: round(health.dispatch_late.quantile(x) * 1000, 2) for q, x in QUANTILES.items()}
    return {
        "requests": requests,
        "cpu_us_per_request": round(health.cpu_s / max(1, requests) * 1e6, 1),
        "dispatch_late_ms": late,
        "waiting_for_a_connection_max": health.queued_max,
        "errors": dict(sorted(health.errors.items())),
        "gave_up": health.gave_up,
    }


def of_verdicts(verdicts: Sequence[Verdict]) -> list[Invariant]:
    """Sort verify's checks into the groups; bronze's belong to the fourth."""
    found = []
    for verdict in verdicts:
        default = 4 if verdict.name.startswith("lake.") else 6
        group = _GROUP_OF.get(verdict.name, default)
        line = Invariant(group, verdict.name, verdict.says, verdict.count, verdict.differences)
        found.append(line)
    return found


def killed(kills: Sequence[Kill], load_s: float, *, wanted: int) -> Invariant:
    """Return the line about kills: each of the wanted roles, under load, and back."""
    back = sum(kill.at_s < load_s and kill.back_s is not None for kill in kills)
    says = "one process of each role was killed under load, and its work went on"
    return Invariant(5, "every_role_killed_and_back", says, wanted, wanted - back)


def observed(told: Told, judged: Judged, sent: Sequence[Delivered]) -> list[Invariant]:
    """Return what the demo itself has seen, from outside."""
    accepted, settled, rejected, in_flight = _balance(told)
    odd = abs(accepted - settled - rejected - in_flight) + in_flight
    lines = [
        Invariant(2, "nothing_answered_2xx_is_lost",
                  "every payment that a client was told is accepted has its final event",
                  len(judged.accepted), len(judged.in_flight)),
        Invariant(2, "accepted_adds_up", "accepted = settled + rejected, and none is in flight",
                  accepted, odd),
        Invariant(2, "every_request_as_planned",
                  "each request was answered, and each payment ended, as the plan says",
                  judged.statuses.total(), len(judged.surprises)),
        Invariant(3, "every_conflict_noticed",
                  "a key used for another request was refused or reported, never executed",
                  len(judged.conflicts), len(_unnoticed(told, judged))),
    ]  # fmt: skip
    return lines + _webhooks(told, sent)


def _balance(told: Told) -> tuple[int, int, int, int]:
    events: dict[str, int] = dict(told["events"])
    accepted, settled, rejected = (
        events.get(f"payment.{status}", 0) for status in ("accepted", "settled", "rejected")
    )
    return accepted, settled, rejected, accepted - settled - rejected


def _unnoticed(told: Told, judged: Judged) -> set[str]:
    """Return contested keys that nobody noticed: no 422, and no event that tells of it."""
    return judged.conflicts - judged.refused_at_once - {key for (key,) in told["contested"]}


def _webhooks(told: Told, sent: Sequence[Delivered]) -> list[Invariant]:
    """A delivery that is sent again because its answer was lost may add repeats, so a planned
    repeat must be seen at least once.
    """
    deliveries: dict[str, int] = dict(told["deliveries"])
    quarantined = {event_id for (event_id,) in told["quarantined"]}
    forged = {d.delivery.event_id for d in sent if d.delivery.forgery is not None}
    genuine = {d.delivery.event_id for d in sent if d.delivery.forgery is None}
    repeats = [d.delivery.event_id for d in sent if d.delivery.repeats]
    refused = sum(d.status == _UNAUTHORIZED for d in sent)
    unseen = sum(deliveries.get(event_id, 0) < 2 for event_id in repeats)
    wrong = (forged ^ quarantined) | (forged & deliveries.keys())
    return [
        Invariant(2, "webhooks_verified", "every genuine event is there, and no other",
                  len(genuine), len(genuine ^ (deliveries.keys() - forged))),
        Invariant(3, "webhooks_repeated", "every second delivery was told apart from the first",
                  len(repeats), unseen),
        Invariant(2, "webhooks_quarantined", "every forgery was refused and kept aside",
                  len(forged), len(wrong) + abs(len(forged) - refused)),
    ]  # fmt: skip
