"""What every use of the Kafka client needs: a bounded start and stop, our errors, batched sends."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

from aiokafka import errors

from schemas import logs
from schemas.errors import Corrupt, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence

    Item = tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes]]]
    Stop = Callable[[], Coroutine[Any, Any, None]]

STOP_WITHIN_S: Final = 1.0

_CONFIGURED: Final = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.InvalidTopicError,
)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the client's errors into ours, by who must act."""
    try:
        yield
    except errors.OffsetOutOfRangeError as error:
        raise Corrupt(f"Kafka, {what}: the log no longer holds what comes next: {error}") from error
    except _CONFIGURED as error:
        raise Corrupt(f"Kafka, {what}: {error!r}") from error
    except (errors.KafkaError, OSError, TimeoutError) as error:
        raise Unavailable(f"Kafka, {what}: {error!r}") from error


@asynccontextmanager
async def running(
    client: Any, stop: Callable[[], Coroutine[Any, Any, None]]
) -> AsyncIterator[None]:
    """Start a client and stop it in bounded time, also when the start fails.

    A client in trouble may fail or hang as it stops. We have given it up by then: it must not take
    along what gave it up.
    """
    try:
        await client.start()
        yield
    finally:
        stopping = asyncio.create_task(stop())
        await asyncio.wait([stopping], timeout=STOP_WITHIN_S)
        if not stopping.done():
            stopping.cancel()
        elif not stopping.cancelled() and stopping.exception() is not None:
            logs.get().warning("client left behind", detail=repr(stopping.exception()))


async def stop_producer(producer: Any) -> None:
    """Stop a producer without delivering what it still has: the next session sees to that."""
    producer._closed = True  # noqa: SLF001  its own stop would wait for the delivery
    sender = producer._sender.sender_task if producer._sender is not None else None  # noqa: SLF001
    if sender is not None:
        sender.cancel()
    await producer.client.close()
    if sender is not None:
        await asyncio.wait([sender])
        _seen(sender)


def builders(producer: Any, items: Iterable[Item], now_ms: int) -> list[Any]:
    """Fill as many record batches as the items need, in order."""
    builder = producer.create_batch()
    filled = [builder]
    for key, value, headers in items:
        if builder.append(timestamp=now_ms, key=key, value=value, headers=headers) is None:
            builder = producer.create_batch()
            filled.append(builder)
            taken = builder.append(timestamp=now_ms, key=key, value=value, headers=headers)
            assert taken is not None, "an empty batch takes any record"
    return filled


async def acknowledged(producer: Any, batches: Sequence[Any], topic: str, partition: int) -> None:
    """Send batch after batch, each once the one before is durable.

    All at once would be faster and wrong: a batch that expires while it waits leaves no gap in
    the producer's sequence, so the broker would take the next one: records would be missing.
    """
    for batch in batches:
        future = await producer.send_batch(batch, topic, partition=partition)
        future.add_done_callback(_seen)
        # Giving up must not cancel the client's own future: its retry would break over that.
        await asyncio.shield(future)


def _seen(future: asyncio.Future[Any]) -> None:
    """Look at a failure that nobody awaits any more, so that it is not reported as overlooked."""
    if not future.cancelled():
        future.exception()
