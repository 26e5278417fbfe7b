"""The crash drill: a worker killed at every named step in a seeded order, its disk wiped in half of
the rounds, records arriving all the while; at the end everything equals the plain model.

`python -m tests.integration.engine_drill 1 200` runs seeds 1 to 200 on a broker of its own.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from deploy.local.child import wait_for
from deploy.local.kafka import Kafka
from streams.engine.crash import POINTS
from tests.integration.engine_rig import DRAIN_S, PARTITIONS, ROOT, Rig, Rows

ONCE = frozenset({"after_fence", "in_restore", "after_restore", "on_stop"})
"""Points that a life passes once per partition, so that a count above one may never come."""


def rows(seed: int, count: int, poison: float = 0.0) -> Rows:
    """Return records for a drill's input."""
    rand = random.Random(seed)
    return [
        (
            rand.randrange(PARTITIONS),
            b"k%d" % rand.randrange(20),
            b"poison" if rand.random() < poison else b"%d" % rand.randrange(1, 400),
        )
        for _ in range(count)
    ]


def drained(rig: Rig, worker: str = "w0") -> None:
    """Wait until everything is handled and every timer has fired."""
    _, outputs, _ = rig.model()
    fired = sum(key.startswith(b"fired/") for _, key, _ in outputs)

    def done() -> bool:
        if not rig.consumed():
            return False
        written = rig.read(f"{rig.name}.out")
        return sum(record.key.startswith(b"fired/") for record in written) >= int(fired)

    assert wait_for(done, DRAIN_S, 0.2), rig.workers[worker].log_tail()


def crash_drill(rig: Rig, seed: int) -> list[str]:
    """Return what differs from the model after a kill at every point; raises when it gets stuck."""
    rand = random.Random(seed)
    points = list(POINTS)
    rand.shuffle(points)
    rig.produce(f"{rig.name}.a", rows(seed, 50))
    rig.start()
    assert wait_for(rig.consumed, DRAIN_S), rig.workers["w0"].log_tail()
    rig.workers["w0"].kill()
    for round_, point in enumerate(points):
        rig.produce(f"{rig.name}.a", rows(seed + round_, 120, poison=0.01))
        rig.produce(f"{rig.name}.b", rows(seed - round_, 80))
        wiped = rand.random() < 0.5 or point == "in_restore"
        if wiped:
            shutil.rmtree(rig.state_dir(), ignore_errors=True)
        count = 1 if point in ONCE else rand.randint(1, 4)
        print(f"seed {seed}: {point}:{count}, disk {'wiped' if wiped else 'kept'}")
        child = rig.start(crash_point=f"{point}:{count}")
        if point == "on_stop":
            rig.wait_ready()
            child.send(signal.SIGTERM)
        rig.wait_killed()
    rig.start()
    drained(rig)
    rig.workers["w0"].stop()
    told = rig.differences()
    if rig.disk_state() != rig.changelog_state():
        told.append("the disk differs from the changelog")
    return told


def main(first: int, last: int) -> int:
    """Run seeds; returns how many differed."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        broker = Kafka(Path(folder) / "kafka", ROOT / ".headrace/cache", Path(folder) / "kafka.log")
        broker.start()
        try:
            for seed in range(first, last + 1):
                rig = Rig(broker.bootstrap, Path(folder))
                try:
                    told = crash_drill(rig, seed)
                finally:
                    rig.stop()
                failed += bool(told)
                print(f"seed {seed}: {told or 'no difference'}")
        finally:
            broker.stop()
    return failed


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
