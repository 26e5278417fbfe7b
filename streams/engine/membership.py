"""Whether a group that does not know a worker has dropped it or has forgotten it.

A broker that has just started knows no members for a moment, and lets sessions run out that nobody
could renew while it was away. So when it was not there since it last took a beat, the member joins
anew: no guarantee rests on the membership, and who has lost a partition is fenced by the epoch of
its transactional id. One that was there all along has dropped the member: its session ran out while
it did not run, or another process has its name, and two that join anew would drop each other.
"""

from __future__ import annotations

from typing import Any, Final

from aiokafka import errors
from aiokafka.protocol.group import HeartbeatRequest

_KNOWN: Final = {errors.NoError.errno, errors.RebalanceInProgressError.errno}
_DROPPED: Final = {errors.UnknownMemberIdError.errno, errors.IllegalGenerationError.errno}


class Membership:
    """Listens to what a group consumer's client asks its coordinator.

    `away` is true when the coordinator could not be asked, or was none, since it last took a beat.
    """

    def __init__(self, coordinator: Any) -> None:
        self.away = False
        self._ask = coordinator._send_req  # noqa: SLF001
        coordinator._send_req = self._listen  # noqa: SLF001

    async def _listen(self, request: Any) -> Any:
        try:
            answer = await self._ask(request)
        except errors.KafkaError:
            self.away = True
            raise
        if isinstance(request, HeartbeatRequest):
            if answer.error_code in _KNOWN:
                self.away = False
            elif answer.error_code not in _DROPPED:
                self.away = True
        return answer
