"""Asks and changes a Kafka cluster from outside: does it answer, has it our topics.

Topics come from the table in `schemas.topics` and nowhere else. One that exists with another
shape is an error that says so; nothing here ever deletes or alters one.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from deploy.local import blocking
from deploy.local.ports import accepts
from schemas.topics import TOPICS, Topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

_REQUEST_MS = 10_000
_REPLICAS_MAX = 3
_ALREADY_EXISTS = 36
_LEADERS_WITHIN_S = 20.0
_WARM_UP = "headrace-warm-up"
_WARM_UP_TRIES = 100


class TopicError(RuntimeError):
    """A topic could not be created, or exists with another shape than the table's."""


@asynccontextmanager
async def connected(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected admin client, always closed."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=_REQUEST_MS)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


def broker_answers(bootstrap: str) -> bool:
    """True if a broker on this machine serves metadata with itself in it."""
    if not accepts(int(bootstrap.rpartition(":")[2])):
        return False

    async def ask() -> bool:
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        try:
            async with connected(bootstrap) as client:
                return bool((await client.describe_cluster())["brokers"])
        except (KafkaError, OSError):
            return False

    return blocking.run(ask)


async def ensure_topics(
    bootstrap: str, partitions: int, topics: Iterable[Topic] = tuple(TOPICS.values())
) -> int:
    """Create the topics that are missing, check all of them; returns how many it created."""
    wanted = {topic.name: topic for topic in topics}
    async with connected(bootstrap) as client:
        replicas = min(_REPLICAS_MAX, len((await client.describe_cluster())["brokers"]))
        new = [
            NewTopic(name, topic.partitions or partitions, replicas, None, topic.kafka_config())
            for name, topic in wanted.items()
        ]
        existed = 0
        for name, code, reason in (await client.create_topics(new)).topic_errors:
            if code not in {0, _ALREADY_EXISTS}:
                raise TopicError(f"cannot create topic {name}: {reason or code}")
            existed += code == _ALREADY_EXISTS
        await _await_leaders(client, wanted, partitions)
        if existed:
            await _check_settings(client, wanted)
    return len(wanted) - existed


async def warm_up(bootstrap: str) -> None:
    """Have the broker make its own topics, for groups and transactions, before clients ask."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=_WARM_UP)
    await producer.start()
    await producer.stop()
    async with connected(bootstrap) as client:
        for _ in range(_WARM_UP_TRIES):
            try:
                await client.find_coordinator(_WARM_UP)
            except KafkaError:
                await asyncio.sleep(0.1)
            else:
                return


async def _await_leaders(
    client: AIOKafkaAdminClient, wanted: dict[str, Topic], partitions: int
) -> None:
    """Return when every partition has a leader; raise if a topic has another number of them."""
    waiting = set(wanted)
    deadline = asyncio.get_running_loop().time() + _LEADERS_WITHIN_S
    while waiting:
        for found in await client.describe_topics(sorted(waiting)):
            parts = found["partitions"]
            if found["error_code"] or any(part["leader"] < 0 for part in parts):
                continue
            expected = wanted[found["topic"]].partitions or partitions
            if len(parts) != expected:
                raise TopicError(
                    f"topic {found['topic']} has {len(parts)} partitions, not {expected}: set "
                    f"HEADRACE_PARTITIONS={len(parts)} or start with another HEADRACE_HOME"
                )
            waiting.discard(found["topic"])
        if waiting and asyncio.get_running_loop().time() > deadline:
            raise TopicError(f"no leader within {_LEADERS_WITHIN_S:.0f} s for {sorted(waiting)}")
        await asyncio.sleep(0.05 if waiting else 0)


async def _check_settings(client: AIOKafkaAdminClient, wanted: dict[str, Topic]) -> None:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in wanted]
    for response in await client.describe_configs(resources):
        for _, _, _, name, entries in response.resources:
            _compare(wanted[name], {entry[0]: entry[1] for entry in entries})


def _compare(topic: Topic, found: dict[str, Any]) -> None:
    for setting, value in topic.kafka_config().items():
        if found.get(setting) != value:
            raise TopicError(
                f"topic {topic.name} has {setting}={found.get(setting)}, the topic table says "
                f"{value}: alter the topic (kafka-configs) or the row in schemas/topics.py"
            )
