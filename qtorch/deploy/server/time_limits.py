"""Waiting for work no longer than its limit."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from qtorch.deploy.server.protocol import RequestError

T = TypeVar("T")


async def within(seconds: float, work: Awaitable[T]) -> T:
    """The answer to work, which is cancelled once its time is over.

    Args:
        seconds: that it may take.
        work: of a request.

    Raises:
        RequestError: 504, it took longer.
    """
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError as error:
        raise RequestError(504, f"not answered within {seconds:g} s: send less, or try again later.") from error
