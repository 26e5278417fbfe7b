"""The tasks of the engine's tests, and a worker process that runs one: `engine_worker.py JSON`.

What they compute does not depend on how inputs interleave, so that a plain model can say what must
come out: state and outputs are per (topic, key), timers fire once each under a key of their own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas import logs, metrics
from schemas.errors import Poisoned
from streams.engine import (
    App,
    Collection,
    Context,
    EngineSettings,
    Input,
    Record,
    Task,
    build,
    run_app,
)

COUNTS: Collection[list[int]] = Collection(
    1,
    "counts",
    encode=lambda pair: b"%d %d" % tuple(pair),
    decode=lambda raw: [int(part) for part in raw.split()],
)
FIRED: Collection[bytes] = Collection(2, "fired")
SLOT = 7


def drill(name: str) -> Task:
    """Return a task with all there is: two inputs, state, outputs, timers, poison."""

    def handle(context: Context, records: Sequence[Record]) -> None:
        for record in records:
            assert record.key is not None
            if record.timer is not None:
                _on_timer(context, record)
                continue
            number = _number(record)
            key = record.topic.removeprefix(name).encode() + b"/" + record.key
            pair = context.get(COUNTS, SLOT, key) or [0, 0]
            pair[0] += 1
            pair[1] += number
            context.put(COUNTS, SLOT, key, pair)
            where = f"{record.topic.removeprefix(name)}/{record.offset}".encode()
            context.emit(f"{name}.out", context.partition, where, b"%d %d" % tuple(pair))
            if number % 2:
                other = (context.partition + 1) % context.partitions
                context.emit(f"{name}.out", other, b"odd/" + where, str(context.partition).encode())
            if number % 10 == 0:
                due_us = record.at_us + number * 1_000
                context.set_timer(due_us, SLOT, where, str(number).encode())
                if number % 20 == 0:
                    context.cancel_timer(SLOT, where)

    def _on_timer(context: Context, record: Record) -> None:
        timer = record.timer
        assert timer is not None
        assert record.at_us >= timer.due_us
        assert context.get(FIRED, SLOT, timer.key) is None, "a timer fired twice"
        context.put(FIRED, SLOT, timer.key, timer.payload)
        context.emit(f"{name}.out", context.partition, b"fired/" + timer.key, timer.payload)

    return Task(
        name,
        inputs=(Input(f"{name}.a"), Input(f"{name}.b")),
        outputs=(f"{name}.out",),
        collections=(COUNTS, FIRED),
        handle=handle,
        timers=True,
    )


def swell(name: str) -> Task:
    """Return a task that writes as many bytes as a record says: more than the broker takes."""

    def handle(context: Context, records: Sequence[Record]) -> None:
        for record in records:
            context.emit(
                f"{name}.out", context.partition, record.key, bytes(int(record.value or 0))
            )
            context.put(FIRED, SLOT, record.key or b"", b"1")

    return Task(
        name,
        inputs=(Input(f"{name}.a"),),
        outputs=(f"{name}.out",),
        collections=(FIRED,),
        handle=handle,
    )


def _number(record: Record) -> int:
    try:
        return int(record.value or b"")
    except ValueError:
        raise Poisoned("not a number") from None


def readme(name: str) -> Task:
    """Return the task that the engine's README shows, run from the text of the README."""
    del name
    text = (Path(__file__).parents[2] / "streams/engine/README.md").read_text()
    source = text.split("```python\n", 1)[1].split("```", 1)[0]
    scope: dict[str, Any] = {}
    exec(source, scope)
    task = scope["TASK"]
    assert isinstance(task, Task)
    return task


TASKS = {"drill": drill, "control": drill, "swell": swell, "readme": readme}


def main(arguments: dict[str, Any]) -> None:
    """Run one task."""
    settings = EngineSettings(
        kafka=arguments["kafka"],
        worker=arguments["worker"],
        state_dir=Path(arguments["state_dir"]),
        **arguments["settings"],
    )
    logs.configure("streams", settings.worker, "info")
    metrics.serve(arguments["metrics_port"])
    kind, name = arguments["task"], arguments["name"]
    app = build(settings, [TASKS[kind](name)])
    if kind == "control":
        _control(app, name, settings.state_dir.parent.parent)
    run_app(app)


def _control(app: App, name: str, folder: Path) -> None:
    """Add an agent and a timer of faust's own, which leave a file each."""

    told = app.topic(f"{name}.out", value_serializer="raw", key_serializer="raw")

    @app.agent(told)  # type: ignore[untyped-decorator]
    async def tell(stream: Any) -> None:
        async for key, value in stream.items():
            if key == b"told":
                (folder / f"{name}.told").write_bytes(value)

    @app.timer(interval=0.2)  # type: ignore[untyped-decorator]
    async def tick() -> None:
        (folder / f"{name}.tick").touch()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
