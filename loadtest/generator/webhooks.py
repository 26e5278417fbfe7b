"""The webhooks of a load: signed by Standard Webhooks, some delivered twice, some forged.

Pure; the time to sign with is an argument. Source of the scheme: standard-webhooks/spec, v1 (HMAC
SHA-256 over `id.timestamp.body`, the key base64 behind `whsec_`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from typing import Final

TOLERANCE_S: Final = 300


class Forgery(StrEnum):
    """What is wrong with a delivery that must be quarantined."""

    KEY = "signed with another key"
    BODY = "body changed after signing"
    TIME = "signed too long ago"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of an event, `at_s` after the start."""

    at_s: float
    event_id: str
    body: bytes
    forgery: Forgery | None
    repeats: bool


def make(
    seed: int, prefix: str, count: int, seconds: float, *, repeated: float, forged: float
) -> list[Delivery]:
    """Decide `count` genuine events over `seconds`, and beside them the repeats and forgeries."""
    random = Random(f"{seed}/webhooks")
    deliveries = []
    for i in range(count):
        at_s, name = random.uniform(0, seconds), f"{prefix}-{seed}-evt-{i}"
        deliveries.append(Delivery(at_s, name, _body(i, random), None, repeats=False))
    extras = []
    for delivery in random.sample(deliveries, round(repeated * count)):
        at_s = delivery.at_s + random.choice((0.0, random.uniform(0, seconds / 4)))
        extras.append(replace(delivery, at_s=at_s, repeats=True))
    kinds = list(Forgery)
    for i in range(round(forged * count)):
        at_s, forgery = random.uniform(0, seconds), kinds[i % len(kinds)]
        name = f"{prefix}-{seed}-forged-{i}"
        extras.append(Delivery(at_s, name, _body(count + i, random), forgery, repeats=False))
    return sorted(deliveries + extras, key=lambda delivery: delivery.at_s)


def headers(delivery: Delivery, secret: str, now_s: int) -> dict[str, str]:
    """Return the three headers of the scheme, wrong in the way the forgery says."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = delivery.body
    match delivery.forgery:
        case Forgery.KEY:
            key = hashlib.sha256(key).digest()
        case Forgery.BODY:
            signed += b" "
        case Forgery.TIME:
            now_s -= 2 * TOLERANCE_S
        case None:
            pass
    content = f"{delivery.event_id}.{now_s}.".encode() + signed
    digest = hmac.new(key, content, hashlib.sha256).digest()
    return {
        "webhook-id": delivery.event_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def _body(number: int, random: Random) -> bytes:
    document = {
        "type": random.choice(("payout.paid", "payout.failed", "dispute.opened")),
        "data": {"reference": f"ref-{number}", "amount": random.randrange(100, 100_000)},
    }
    return json.dumps(document, separators=(",", ":")).encode()
