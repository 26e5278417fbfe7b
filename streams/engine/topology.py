"""Checks at start that the topics of a task exist and are partitioned alike.

The engine creates no topics; a task whose topics are missing or differ waits a while for whoever
creates them, then says exactly what is wrong.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from aiokafka.protocol.metadata import MetadataRequest

from schemas.errors import Corrupt
from streams.engine.deadline import answered
from streams.engine.task import Task

AGAIN_AFTER_S: Final = 0.5


def needed(task: Task) -> tuple[set[str], set[str]]:
    """Return the topics that must have the inputs' partition count, and those that must only
    exist.
    """
    return {*task.topics, task.changelog, *task.dead_letter_topics}, set(task.outputs)


def problem(task: Task, counts: dict[str, int]) -> str | None:
    """Say what is wrong with topics of these partition counts; None when nothing is."""
    alike, others = needed(task)
    missing = sorted((alike | others) - counts.keys())
    if missing:
        return f"task {task.name} needs topics that do not exist: {', '.join(missing)}"
    found = {topic: counts[topic] for topic in sorted(alike)}
    if len(set(found.values())) > 1:
        return f"task {task.name} needs topics partitioned alike, and finds {found}"
    return None


async def cluster_id(consumer: Any) -> str:
    """Return the broker's name for itself: state of one cluster means nothing to another."""
    client = consumer._client  # noqa: SLF001
    answer = await client.send(client.get_random_node(), MetadataRequest([]))
    return str(answer.cluster_id)


async def check_topics(consumer: Any, task: Task, within_s: float, answer_within_s: float) -> int:
    """Return the partition count of the task's inputs; Corrupt when the topics do not come right
    in time, Unavailable when the broker does not say.
    """
    deadline = time.monotonic() + within_s
    alike, others = needed(task)
    while True:
        asked = consumer._client.fetch_all_metadata()  # noqa: SLF001
        cluster = await answered(asked, answer_within_s)
        counts = {
            topic: len(cluster.partitions_for_topic(topic))
            for topic in alike | others
            if cluster.partitions_for_topic(topic)
        }
        wrong = problem(task, counts)
        if wrong is None:
            return counts[task.inputs[0].topic]
        if time.monotonic() > deadline:
            raise Corrupt(wrong)
        await asyncio.sleep(AGAIN_AFTER_S)
