"""The error tree, by who must act.

    HeadraceError
    ├── Rejected      the caller changes the request (HTTP 4xx, a rejected payment)
    ├── Unavailable   the caller retries later (HTTP 503, a partition that waits)
    ├── Fenced        another owner took over: stop this partition, write nothing more
    ├── Poisoned      this record can never succeed: dead-letter it, go on
    └── Corrupt       an invariant is broken: stop the process before it spreads

Nothing catches `Exception` but a process's outermost loop.
"""

from __future__ import annotations


class HeadraceError(Exception):
    """The root of everything headrace raises on purpose."""


class Rejected(HeadraceError):
    """The request breaks a rule that its sender can read and act on.

    `code` is stable snake_case, `detail` is for people, `pointer` is an RFC 6901 JSON pointer to
    the offending field ("" for the whole body).
    """

    def __init__(self, code: str, detail: str, pointer: str = "") -> None:
        super().__init__(f"{code}: {detail}" + (f" (at {pointer})" if pointer else ""))
        self.code = code
        self.detail = detail
        self.pointer = pointer


class Unavailable(HeadraceError):
    """Something we depend on does not answer now; the same request may succeed later."""


class Fenced(HeadraceError):
    """Another owner has this partition; whatever we held of it is stale."""


class Poisoned(HeadraceError):
    """This record can never be processed, however often it is tried."""


class Corrupt(HeadraceError):
    """An invariant does not hold; going on could turn a fault into lost money."""
