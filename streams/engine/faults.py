"""The Kafka client's errors as ours, by who must act.

Fenced: another producer has the id, or the broker gave our transaction up. Refused: a record will
never be taken. Corrupt: rights, settings or this machine's clock are wrong. Everything else is
Unavailable: it may be over the next time.
"""

from __future__ import annotations

from typing import Final, NoReturn

from aiokafka import errors

from schemas.errors import Corrupt, Fenced, HeadraceError, Unavailable

_FENCED: Final = (errors.ProducerFenced, errors.InvalidProducerEpoch, errors.InvalidTxnState)
_REFUSED: Final = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
)
_CONFIGURED: Final = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.TransactionalIdAuthorizationFailed,
    errors.InvalidTopicError,
    errors.InvalidTransactionTimeout,
)


class Refused(HeadraceError):
    """The broker will never take one of these records; nothing of the transaction stands."""


def raise_translated(error: BaseException) -> NoReturn:
    """Raise the client's error as one of ours."""
    ours = translated(error)
    if ours is error:
        raise error
    raise ours from error


def translated(error: BaseException) -> BaseException:
    """Return the client's error as one of ours; what is not the client's comes back as it is."""
    match error:
        case HeadraceError():
            return error
        case TimeoutError():
            return Unavailable("the broker did not answer in time")
        case errors.KafkaError():
            text = f"{type(error).__name__}: {error}"
            if isinstance(error, errors.InvalidTimestampError):
                # What we write bears our own time of day.
                return Corrupt(f"the clock of this machine is ahead of the broker's: {text}")
            if isinstance(error, _FENCED):
                return Fenced(text)
            if isinstance(error, _REFUSED):
                return Refused(text)
            if isinstance(error, _CONFIGURED):
                return Corrupt(text)
            return Unavailable(text)
        case OSError():
            return Unavailable(str(error))
        case _:
            return error
