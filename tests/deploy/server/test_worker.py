"""A worker: what may take long, or is asked for what is not there, holds up no inference."""

import asyncio
import shutil
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from qtorch.data import WindowSpec
from qtorch.deploy.server.protocol import InferRequest, InferResponse, Limits, RequestError
from qtorch.deploy.server.risk_request import RiskRequest
from qtorch.deploy.server.worker import Worker

SPEC = WindowSpec(context=8, horizons=(1,))
RISK = RiskRequest("spx", None, {"AAA": 1.0})


@pytest.fixture
def folder(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "spx" / "1")
    return tmp_path


@pytest.fixture
def worker(folder):
    return Worker(str(folder), Limits(), poll_s=3600.0)


def asked(name: str = "spx") -> list[InferRequest]:
    inputs = {"inputs": np.zeros((1, 8, len(SPEC.features)), "f4"), "mask": np.ones((1, 8), bool)}
    return [InferRequest(name, None, None, {}, inputs)]


def within(seconds: float, work):
    return asyncio.run(asyncio.wait_for(work, seconds))


@contextmanager
def loading(worker: Worker):
    """Another thread loads."""
    began, end = threading.Event(), threading.Event()

    def load() -> None:
        with worker.repository._loading:
            began.set()
            end.wait(20)

    thread = threading.Thread(target=load)
    thread.start()
    began.wait()
    try:
        yield
    finally:
        end.set()
        thread.join()


class SlowRisk:
    """Answers once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()

    def answer(self, request: RiskRequest) -> dict[str, str]:
        self.may.wait(20)
        return {"model": request.model}


def test_a_model_that_is_not_there_waits_for_no_load(worker):
    with loading(worker):
        (refused,) = within(10, worker.infer(asked("nosuch")))
        assert refused.status == 404
        assert within(10, worker.metadata("nosuch", None)).status == 404
        (answer,) = within(10, worker.infer(asked()))
    assert isinstance(answer, InferResponse)


def test_a_model_that_came_after_the_last_look_answers_and_no_other_is_loaded_for_it(worker, folder, bundle):
    for name in ("vix", "ndx"):
        shutil.copytree(bundle, folder / name / "1")
    (answer,) = within(60, worker.infer(asked("vix")))
    assert isinstance(answer, InferResponse)
    assert [each.name for each in within(10, worker.state()).index] == ["spx", "vix"]
    assert within(60, worker.metadata("ndx", "1"))["name"] == "ndx"
    assert within(60, worker.metadata("ndx", "2")).status == 404


def test_what_waits_to_be_loaded_is_not_unknown(worker, folder, bundle, monkeypatch):
    for name in ("vix", "ndx"):
        shutil.copytree(bundle, folder / name / "1")
    told = []
    monkeypatch.setattr(
        worker.repository,
        "_load",
        lambda key: told.append([within(10, worker.infer(asked(name)))[0].status for name in ("vix", "ndx")]),
    )
    worker.repository.refresh()
    assert told == [[503, 503], [503, 503]]


def test_risk_leaves_room_for_inference(worker):
    worker.risk_service = slow = SlowRisk()

    async def main():
        questions = [asyncio.ensure_future(worker.risk(RISK)) for _ in range(20)]
        refused, _ = await asyncio.wait(questions, timeout=0.1)
        (answer,) = await worker.infer(asked())
        slow.may.set()
        return [each.result() for each in refused], answer, await asyncio.gather(*questions), await worker.risk(RISK)

    refused, answer, all_of_them, later = within(30, main())
    assert [each.status for each in refused] == [429] * 4
    assert isinstance(answer, InferResponse)
    assert sum(each == {"model": "spx"} for each in all_of_them if not isinstance(each, RequestError)) == 16
    assert later == {"model": "spx"}


def test_a_risk_that_never_ends_is_a_failing_check(worker):
    worker.limits = Limits(timeout_s=1e-9)
    worker.risk_service = slow = SlowRisk()

    async def main():
        question = asyncio.ensure_future(worker.risk(RISK))
        while "risk" not in worker._began:
            await asyncio.sleep(0.001)
        with pytest.raises(RuntimeError, match="a risk is computed for more than"):
            worker.check_health()
        slow.may.set()
        await question

    within(30, main())
    worker.check_health()
