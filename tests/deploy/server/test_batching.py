"""Batches: what leaves together, when, and what becomes of who gives up."""

import asyncio

import pytest

from qtorch.deploy.server.batching import Batcher
from qtorch.deploy.server.protocol import RequestError


class Recorder:
    """Computes after a while, and keeps what came together."""

    def __init__(self, seconds: float = 0.01) -> None:
        self.seconds, self.batches, self.at_once, self.most = seconds, [], 0, 0

    async def __call__(self, key, items):
        self.batches.append((key, list(items)))
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(self.seconds)
        self.at_once -= 1
        return [RequestError(400, "bad") if item == "bad" else (key, item) for item in items]


def batcher(run, **options):
    return Batcher(run, **({"places": 1, "max_weight": 8, "wait_s": 0.0, "max_waiting": 100} | options))


def test_batches_grow_while_all_places_are_taken():
    run = Recorder()

    async def main():
        one = batcher(run)
        return await asyncio.gather(*(one.submit("m", number) for number in range(17)))

    answers = asyncio.run(main())
    assert [answer for answer, _ in answers] == [("m", number) for number in range(17)]
    assert [len(items) for _, items in run.batches] == [1, 8, 8], "the first finds a free place"
    assert [weight for _, weight in answers] == [1] + 16 * [8]
    assert run.most == 1


def test_a_batch_of_one_is_a_request_alone():
    run = Recorder(0.001)

    async def main():
        one = batcher(run, max_weight=1, wait_s=5.0)
        await asyncio.gather(*(one.submit("m", number) for number in range(5)))

    asyncio.run(main())
    assert [len(items) for _, items in run.batches] == [1] * 5


def test_items_wait_for_others_only_so_long():
    run = Recorder(0.0)

    async def main():
        one = batcher(run, wait_s=0.05)
        began = asyncio.get_running_loop().time()
        first = asyncio.create_task(one.submit("m", 0))
        await asyncio.sleep(0.01)
        await asyncio.gather(first, one.submit("m", 1))
        return asyncio.get_running_loop().time() - began

    assert 0.04 < asyncio.run(main()) < 0.5
    assert run.batches == [("m", [0, 1])]


def test_keys_and_weights_part_batches():
    run = Recorder()

    async def main():
        one = batcher(run, places=2)
        asked = [("a", 1), ("b", 1), ("a", 5), ("a", 4), ("b", 9), ("a", 4)]
        return await asyncio.gather(*(one.submit(key, (key, weight), weight) for key, weight in asked))

    answers = asyncio.run(main())
    assert all(answer == (answer[0], (answer[0], answer[1][1])) for answer, _ in answers), "to each its own"
    parts = [(key, [weight for _, weight in items]) for key, items in run.batches]
    assert parts == [("a", [1]), ("b", [1]), ("a", [5]), ("a", [4, 4]), ("b", [9])], "the oldest first"
    assert run.most == 2


def test_too_many_are_refused_and_those_who_give_up_make_room():
    run = Recorder(0.05)

    async def main():
        one = batcher(run, max_waiting=2)
        tasks = [asyncio.create_task(one.submit("m", number)) for number in range(3)]
        await asyncio.sleep(0.005)
        with pytest.raises(RequestError, match="2 requests wait already") as refused:
            await one.submit("m", 9)
        assert refused.value.status == 429
        tasks[1].cancel()
        await asyncio.sleep(0)
        answer, _ = await one.submit("m", 4)
        assert answer == ("m", 4)
        assert await tasks[0] == (("m", 0), 1)
        await tasks[2]
        assert one.waiting == 0

    asyncio.run(main())
    assert [items for _, items in run.batches] == [[0], [2, 4]], "who gave up was not computed"


def test_a_refusal_harms_no_other_and_a_lost_batch_all_of_it():
    async def lost(key, items):
        raise RuntimeError("gone")

    async def main():
        run = batcher(Recorder(0.0), wait_s=0.01)
        fine, bad = await asyncio.gather(run.submit("m", 1), run.submit("m", "bad"), return_exceptions=True)
        assert fine == (("m", 1), 2)
        assert isinstance(bad, RequestError)
        gone = await asyncio.gather(*(batcher(lost).submit("m", n) for n in range(3)), return_exceptions=True)
        assert [str(each) for each in gone] == ["gone"] * 3

    asyncio.run(main())


def test_each_batch_is_told():
    told = []

    async def main():
        one = batcher(Recorder(0.0), wait_s=0.01, observe=lambda *facts: told.append(facts))
        await asyncio.gather(one.submit("m", 1, 3), one.submit("m", 2, 2))

    asyncio.run(main())
    assert told == [("m", 2, 5)]
