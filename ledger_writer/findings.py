"""What an audit tells: what it went through, how fast, and what is wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger_writer.verify import Finding, Verifier


@dataclass(frozen=True, slots=True)
class Watch:
    """Runs from when it is made, by the clock and by this process's CPU."""

    began_s: float = field(default_factory=time.perf_counter)
    cpu_began_s: float = field(default_factory=time.process_time)

    def told(self, verifier: Verifier, findings: Sequence[Finding]) -> dict[str, Any]:
        """Return what every audit tells; `ok` is true when nothing was found."""
        seconds = max(time.perf_counter() - self.began_s, 1e-6)
        cpu_s = max(time.process_time() - self.cpu_began_s, 1e-6)
        return {
            "ok": not findings,
            "rows": verifier.rows,
            "entries": verifier.entries,
            "debited_minor": dict(verifier.debited_minor),
            "seconds": round(seconds, 3),
            "rows_per_second": round(verifier.rows / seconds),
            "rows_per_cpu_second": round(verifier.rows / cpu_s),
            "findings": [
                {"partition": f.partition, "position": f.position, "problem": f.problem}
                for f in findings
            ],
        }
