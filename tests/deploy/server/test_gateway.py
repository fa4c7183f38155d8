"""What every request passes, with workers stood in for: readiness, loading, faults and the end."""

import asyncio
import io
import json

import pytest

from qtorch.deploy.server.answers import VersionState, WorkerState
from qtorch.deploy.server.auth import Tokens, own_page
from qtorch.deploy.server.config import ServerConfig
from qtorch.deploy.server.logs import Log
from qtorch.deploy.server.protocol import RequestError

pytestmark = [pytest.mark.deploy]
STATE = WorkerState([VersionState("spx", "1", "READY", "")], "", 7)


class Workers:
    """Answers what it is told to; raises it if it is an error."""

    def __init__(self) -> None:
        self.found, self.told = STATE, "done"

    async def infer(self, requests):
        raise AssertionError("nobody infers here")

    async def ask(self, method, *arguments):
        return await self.tell(method, *arguments)

    async def tell(self, method, *arguments):
        return self._given(self.told)

    async def states(self):
        return [self._given(self.found)]

    def _given(self, answer):
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def gateway(monkeypatch):
    from qtorch.deploy.server.gateway import Gateway

    config = ServerConfig("models", poll_s=0.01, notice_s=30.0, drain_s=30.0)
    return Gateway(config, Workers(), Tokens(), Log(io.StringIO()))


def events(gateway) -> list[dict]:
    return [json.loads(line) for line in gateway.log.stream.getvalue().splitlines()]


@pytest.mark.parametrize("lost", [RequestError(503, "no worker is there"), KeyError("a fault")])
def test_the_server_is_unready_while_no_worker_answers(gateway, lost):
    async def run():
        assert not gateway.ready
        await gateway.catalogue.index()
        assert gateway.ready
        gateway.workers.found = lost
        with pytest.raises(type(lost)):
            await gateway.catalogue.index()
        assert not gateway.ready
        assert gateway.catalogue.known, "what there is stays known, for metrics"
        watch = asyncio.create_task(gateway.watch())
        await asyncio.sleep(0.05)
        assert not watch.done(), "the looks go on"
        gateway.workers.found = STATE
        await asyncio.sleep(0.05)
        assert gateway.ready
        watch.cancel()

    asyncio.run(run())


def test_the_server_is_unready_if_the_workers_say_nothing(gateway, monkeypatch):
    from qtorch.deploy.server import catalogue as module

    monkeypatch.setattr(module, "_LOOK_S", 0.01)

    async def run():
        await gateway.catalogue.index()
        gateway.workers.states = lambda: asyncio.sleep(5)
        with pytest.raises(RequestError, match="not answered within"):
            await gateway.catalogue.index()
        assert not gateway.ready

    asyncio.run(run())


def test_a_bad_version_does_not_keep_a_model_unloaded(gateway):
    async def run():
        await gateway.catalogue.unload("spx")
        assert not await gateway.model_ready("spx", None)
        gateway.workers.told = RequestError(400, "spx version 2: model.json is missing")
        with pytest.raises(RequestError, match="version 2"):
            await gateway.catalogue.load("spx")
        gateway.workers.told = True
        assert await gateway.model_ready("spx", None), "the good version answers"

    asyncio.run(run())


def test_the_end_waits_no_longer_once_it_is_hurried(gateway):
    async def run():
        gateway.record.in_flight = 1
        gateway.ending.hurried.set()
        return await asyncio.wait_for(gateway.ending.drain(), 5)

    assert not asyncio.run(run())


def test_pages_of_others_are_refused_without_tokens_alone(gateway):
    gateway.keep_to_own_pages("localhost:8000", "http://localhost:8000")
    for host, origin in (("localhost:8000", "https://evil.example"), ("evil.example", None), ("localhost", "null")):
        with pytest.raises(RequestError, match="use a token") as error:
            gateway.keep_to_own_pages(host, origin)
        assert error.value.status == 403
    gateway.tokens = Tokens(["token-of-the-tests-1234567890"])
    gateway.keep_to_own_pages("risk.example", "https://desk.example")


def test_a_fault_of_the_worker_s_process_is_no_lost_worker():
    from ray.exceptions import ActorDiedError, RayTaskError

    from qtorch.deploy.server.deployment import Workers as Called

    class Handle:
        """A deployment whose calls raise."""

        def __init__(self, error):
            self.call, self.error, self.calls = self, error, 0

        async def remote(self, *arguments):
            self.calls += 1
            raise self.error

        def broadcast(self, *arguments):
            return self

        async def results_async(self, return_exceptions):
            return [self.error, STATE]

    fault = Handle(RayTaskError("call", "ValueError: a bug", ValueError("a bug")).as_instanceof_cause())
    with pytest.raises(ValueError, match="a bug"):
        asyncio.run(Called(fault).ask("infer", []))
    assert fault.calls == 1, "a fault is not asked for again"
    with pytest.raises(ValueError, match="a bug"):
        asyncio.run(Called(fault).states())
    lost = Handle(ActorDiedError())
    with pytest.raises(RequestError, match="was lost") as error:
        asyncio.run(Called(lost).ask("infer", []))
    assert (error.value.status, lost.calls) == (503, 2)
    with pytest.raises(RequestError, match="was lost"):
        asyncio.run(Called(lost).tell("load", "spx"))
    assert asyncio.run(Called(lost).states()) == [STATE], "the other worker is there"


@pytest.mark.parametrize(
    ("host", "origin", "local", "own"),
    [
        ("127.0.0.1:8000", None, True, True),
        ("[::1]:8000", None, True, True),
        ("LOCALHOST", None, True, True),
        (None, None, True, True),
        ("127.0.0.1:8000", "http://127.0.0.1:8000", True, True),
        ("127.0.0.1:8000", "http://127.0.0.1:9000", True, False),
        ("127.0.0.1.evil.example", None, True, False),
        ("user@evil.example:8000", None, True, False),
        ("[::1", None, True, False),
        (None, "null", True, False),
        ("risk.example", None, False, True),
        ("risk.example", "https://risk.example", False, True),
        ("risk.example", "https://evil.example", False, False),
        ("", "", False, False),
    ],
)
def test_a_page_of_another_site_is_told(host, origin, local, own):
    assert own_page(host, origin, local) is own
