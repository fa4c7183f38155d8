"""Requests that wait for a worker, and leave for it together."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from qtorch.deploy.server.protocol import RequestError


@dataclass(eq=False)
class _Waiting:
    item: Any
    weight: int
    since: float
    answer: "asyncio.Future[tuple[Any, int]]"


class Batcher:
    """Gathers items of equal keys into batches while all places at the workers are taken; so batches grow with load.

    A batch leaves when a place is free and it is full or its first item has waited `wait_s`. Of several keys, the one
    whose first item has waited longest is next.

    Args:
        run: computes a batch: as many answers as items, in their order.
        places: batches that are with the workers at once.
        max_weight: of a batch; an item that is heavier alone is a batch of its own.
        wait_s: seconds that an item waits for others although a place is free.
        max_waiting: items that wait; more are refused.
        observe: is told of each batch's key, items and weight.
    """

    def __init__(
        self,
        run: Callable[[Any, list[Any]], Awaitable[Sequence[Any]]],
        *,
        places: int,
        max_weight: int,
        wait_s: float,
        max_waiting: int,
        observe: Callable[[Any, int, int], None] = lambda key, items, weight: None,
    ) -> None:
        self.run, self.places, self.max_weight, self.observe = run, places, max_weight, observe
        self.wait_s, self.max_waiting = wait_s, max_waiting
        self.waiting = 0
        self._queues: dict[Hashable, deque[_Waiting]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def submit(self, key: Hashable, item: Any, weight: int = 1) -> tuple[Any, int]:
        """The answer to an item, and the weight of the batch it was in; who no longer waits is not computed.

        Args:
            key: of what may be computed together.
            item: what `run` takes.
            weight: of it.

        Raises:
            RequestError: 429, too many wait.
        """
        if self.waiting >= self.max_waiting:
            raise RequestError(429, f"{self.waiting} requests wait already, as many as may: try again a little later.")
        loop = asyncio.get_running_loop()
        mine = _Waiting(item, weight, loop.time(), loop.create_future())
        queue = self._queues.setdefault(key, deque())
        queue.append(mine)
        self.waiting += 1
        self._dispatch()
        try:
            return await mine.answer
        finally:
            # Who gives up while waiting leaves the queue at once, so that it makes room for others.
            if mine in queue:
                queue.remove(mine)
                self._left(key, 1)

    def _left(self, key: Hashable, count: int) -> None:
        self.waiting -= count
        if not self._queues[key]:
            del self._queues[key]

    def _dispatch(self) -> None:
        """Sends what may leave now, and looks again when the next may."""
        now = asyncio.get_running_loop().time()
        while len(self._running) < self.places and self._queues:
            key, due = min(((key, self._due(queue)) for key, queue in self._queues.items()), key=lambda each: each[1])
            if due > now:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_later(due - now, self._dispatch)
                return
            self._send(key)

    def _due(self, queue: deque[_Waiting]) -> float:
        """When a queue's next batch may leave."""
        full = sum(each.weight for each in queue) >= self.max_weight
        return queue[0].since + (0.0 if full else self.wait_s)

    def _send(self, key: Hashable) -> None:
        queue = self._queues[key]
        batch = [queue.popleft()]
        weight = batch[0].weight
        while queue and weight + queue[0].weight <= self.max_weight:
            weight += queue[0].weight
            batch.append(queue.popleft())
        self._left(key, len(batch))
        task = asyncio.get_running_loop().create_task(self._answer(key, batch, weight))
        self._running.add(task)
        task.add_done_callback(self._freed)

    def _freed(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._dispatch()

    async def _answer(self, key: Hashable, batch: list[_Waiting], weight: int) -> None:
        self.observe(key, len(batch), weight)
        try:
            answers: Sequence[Any] = await self.run(key, [each.item for each in batch])
        except Exception as error:  # noqa: BLE001  it is each item's answer
            answers = [error] * len(batch)
        for each, answer in zip(batch, answers, strict=True):
            if each.answer.done():
                continue
            if isinstance(answer, Exception):
                each.answer.set_exception(answer)
            else:
                each.answer.set_result((answer, weight))
