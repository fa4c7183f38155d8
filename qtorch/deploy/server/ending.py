"""The end of a server: readiness says no, nothing more is taken, and what was taken is answered."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from qtorch.deploy.server.logs import Log


class Ending:
    """The end of a server.

    Args:
        notice_s: seconds in which requests are still taken, but readiness says no.
        drain_s: seconds after that in which what was taken is answered.
        in_flight: how many requests are not answered yet.
        log: is told of it.

    Attributes:
        leaving: readiness says no.
        closed: new work is refused.
        hurried: once set, nothing more is waited for.
    """

    def __init__(self, notice_s: float, drain_s: float, in_flight: Callable[[], int], log: Log) -> None:
        self.notice_s, self.drain_s, self.in_flight, self.log = notice_s, drain_s, in_flight, log
        self.leaving = False
        self.closed = False
        self.hurried = asyncio.Event()

    async def drain(self) -> bool:
        """Makes readiness say no, takes no more, and waits for what was taken; whether all was answered."""
        self.leaving = True
        self.log("draining", in_flight=self.in_flight())
        await self._hurried_within(self.notice_s)
        self.closed = True
        end = time.monotonic() + self.drain_s
        while self.in_flight() and time.monotonic() < end and not self.hurried.is_set():
            await self._hurried_within(0.02)
        return not self.in_flight()

    async def _hurried_within(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.hurried.wait(), seconds)
