"""How often a key may call: a token bucket a key, for the keys that have a limit. Pure.

A request takes one token, a batch one more for each further payment. Tokens come back evenly, up to
the burst. A batch may overdraw the bucket: what follows waits until that is made good. There is one
bucket a key of the file, in each gateway process.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

import msgspec

from gateways.problems import Refused

RATE_MAX: Final = 1_000_000


class Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests a second in the long run, and at once after a while without any."""

    per_s: float
    burst: int

    def __post_init__(self) -> None:
        if not (0 < self.per_s <= RATE_MAX and 1 <= self.burst <= RATE_MAX):
            raise ValueError(f"per_s lies in 0..{RATE_MAX}, burst in 1..{RATE_MAX}")


@dataclass(slots=True)
class Bucket:
    """The tokens of one key: `tokens` there were at `at_s`, on the clock of the caller."""

    quota: Quota
    tokens: float
    at_s: float

    def take(self, now_s: float) -> bytes:
        """Take a token; return the header lines that tell what is left. Refused (429) without."""
        quota = self.quota
        passed_s = max(0.0, now_s - self.at_s)
        self.tokens = min(quota.burst, self.tokens + passed_s * quota.per_s)
        self.at_s = max(now_s, self.at_s)
        if self.tokens >= 1:
            self.tokens -= 1
            return self.lines()
        wait_s = ceil((1 - self.tokens) / quota.per_s)
        detail = f"This key may send {quota.per_s:g} requests a second. Retry after {wait_s} s."
        retry = b"Retry-After: %d\r\n" % wait_s
        raise Refused("rate_limited", detail, headers=retry + self.lines())

    def overdraw(self, tokens: int) -> None:
        """Take tokens for what a request has turned out to hold, whether there are any or not."""
        self.tokens -= tokens

    def lines(self) -> bytes:
        """Return RateLimit-Policy and RateLimit (IETF httpapi draft): quota, window; left, full."""
        quota = self.quota
        window_s = ceil(quota.burst / quota.per_s)
        left, full_s = max(0, int(self.tokens)), ceil((quota.burst - self.tokens) / quota.per_s)
        return b'RateLimit-Policy: "key";q=%d;w=%d\r\nRateLimit: "key";r=%d;t=%d\r\n' % (
            quota.burst,
            window_s,
            left,
            full_s,
        )


class Quotas:
    """The buckets, full at first."""

    def __init__(self) -> None:
        self._buckets: dict[str, Bucket] = {}

    def of(self, key_id: str, quota: Quota, now_s: float) -> Bucket:
        """Return a key's bucket; there are never more than keys."""
        bucket = self._buckets.get(key_id)
        if bucket is None or bucket.quota is not quota:
            bucket = self._buckets[key_id] = Bucket(quota, quota.burst, now_s)
        return bucket
