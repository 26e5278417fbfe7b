"""Runs a coroutine to its end from blocking code, also where an event loop already runs."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Result = TypeVar("Result")


def run(work: Callable[[], Coroutine[None, None, Result]]) -> Result:
    """The coroutine's result. It runs on a loop and thread of its own."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(lambda: asyncio.run(work())).result()
