"""A broker that tells only a part of a transaction that it is committed: the rest is made good.

Kafka 4.3.1 does so when it stops, or starts after a crash, at the wrong moment; here a part is kept
from the coordinator, which then writes no marker there. A broker that checks what it gets against
the coordinator's list would refuse it, so that check is off meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.local.kafka import Kafka
from schemas.errors import Unavailable
from streams.engine import EngineSettings
from streams.engine.delivery import Delivery
from streams.engine.partition import Partition, Shared
from streams.engine.transaction import Transaction, Where
from tests.integration.engine_drill import drained, rows
from tests.integration.engine_rig import Rig

CHECK = "transaction.partition.verification.enable"


@pytest.fixture
async def unchecked(kafka: Kafka) -> AsyncIterator[str]:
    """A broker that takes records and offsets of transactions that do not name them."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.BROKER, "1", {CHECK: "false"})]
        )
        yield kafka.bootstrap
        await admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, "1", {})])
    finally:
        await admin.close()


@pytest.mark.parametrize("untold", ["the group", "the state"])
async def test_a_transaction_of_which_a_part_was_not_told_is_completed(
    unchecked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untold: str
) -> None:
    rig = Rig(unchecked, tmp_path)
    announce, commit, agree = Transaction.announce, Transaction.commit, Partition._agreed_position
    partial: list[Transaction] = []
    asked: list[Partition] = []

    async def partly(self: Transaction, where: Collection[Where], *, offsets: bool) -> None:
        if not partial:
            partial.append(self)
            offsets = untold != "the group"
            where = [each for each in where if offsets is False or each[0] != rig.task.changelog]
        await announce(self, where, offsets=offsets)

    async def lost(self: Transaction) -> None:
        await commit(self)
        if self in partial:
            raise Unavailable("lost on purpose")

    async def watched(self: Partition, store: Any, restored: Any) -> Any:
        asked.append(self)
        return await agree(self, store, restored)

    settings = EngineSettings(
        kafka=unchecked, worker="w0", state_dir=rig.state_dir(), commit_interval_ms=20
    )
    worker = Delivery(rig.task, Shared.of(settings))
    await worker.start()
    await asyncio.to_thread(rig.produce, f"{rig.name}.a", rows(1, 40))
    await asyncio.to_thread(drained, rig)
    monkeypatch.setattr(Partition, "_agreed_position", watched)
    monkeypatch.setattr(Transaction, "commit", lost)
    monkeypatch.setattr(Transaction, "announce", partly)
    await asyncio.to_thread(rig.produce, f"{rig.name}.a", rows(2, 40))
    await asyncio.to_thread(drained, rig)
    await worker.stop()
    first, again = asked
    assert first is again, "the partition that was lost disagreed, and then agreed"
    assert rig.differences() == []
