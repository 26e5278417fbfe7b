"""What a worker makes of a group that does not know it, and how soon it hears of a change."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import errors
from aiokafka.protocol.group import HeartbeatRequest, LeaveGroupRequest

from streams.engine import EngineSettings
from streams.engine.membership import Membership

KNOWN = errors.NoError
UNKNOWN = errors.UnknownMemberIdError
LOST = errors.KafkaConnectionError


class Coordinator:
    """Answers with one error after the other; a lost connection is raised."""

    def __init__(self) -> None:
        self.says: Any = KNOWN
        self.membership = Membership(self)

    async def _send_req(self, request: Any) -> Any:
        if self.says is LOST:
            raise LOST
        return SimpleNamespace(error_code=self.says.errno)

    async def away_after(self, *says: Any) -> bool:
        """Beat until all of it was said; tells whether the coordinator was away."""
        for self.says in says:
            try:
                answer = await self._send_req(HeartbeatRequest("group", 1, "member"))
            except LOST:
                assert self.says is LOST
            else:
                assert answer.error_code == self.says.errno, "the client hears what was said"
        return self.membership.away


@pytest.mark.parametrize("dropped", [UNKNOWN, errors.IllegalGenerationError])
async def test_a_broker_that_was_there_all_along_has_dropped_a_member(dropped: Any) -> None:
    assert not await Coordinator().away_after(KNOWN, dropped)
    assert not await Coordinator().away_after(KNOWN, errors.RebalanceInProgressError, dropped)


@pytest.mark.parametrize(
    "away",
    [LOST, errors.GroupCoordinatorNotAvailableError, errors.NotCoordinatorForGroupError],
)
async def test_a_broker_that_was_away_has_forgotten_it(away: Any) -> None:
    assert await Coordinator().away_after(KNOWN, away, UNKNOWN, UNKNOWN)


@pytest.mark.parametrize("known", [KNOWN, errors.RebalanceInProgressError])
async def test_a_broker_that_is_back_and_knows_it_drops_it_like_any_other(known: Any) -> None:
    assert not await Coordinator().away_after(LOST, known, UNKNOWN)


async def test_only_a_beat_shows_that_it_is_known() -> None:
    group = Coordinator()
    assert await group.away_after(LOST)
    group.says = KNOWN
    await group._send_req(LeaveGroupRequest("group", "member"))
    assert group.membership.away


@pytest.mark.parametrize("session_ms", [1_000, 6_000, 6_500, 10_000, 30_000, 300_000])
def test_a_death_is_noticed_within_the_session_time_out_and_a_restart_has_three_quarters_of_it(
    session_ms: int, tmp_path: Path
) -> None:
    settings = EngineSettings("k", "w", tmp_path, session_timeout_ms=session_ms)
    told, beat = settings.group_session_ms, settings.heartbeat_ms
    assert told - beat >= session_ms * 3 // 4
    if session_ms >= 10_000:
        assert told + beat < session_ms
    assert told >= min(session_ms, 6_000), "a broker refuses less by default"
