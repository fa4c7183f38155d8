"""A walked allocator decides what it would on the panel as it stood, and no more."""

import pandas as pd
import pytest
import torch

from qtorch.backtest import Walked, WalkForward, summary
from qtorch.data import DataError, WindowSpec
from qtorch.models import AssetGraph, GraphCovariance, GraphScores, Recurrent
from qtorch.portfolio import Constraints, Costs, MinimumVariance, Projected
from qtorch.training import Allocator

SPEC = WindowSpec(8, (1,))


@pytest.fixture(params=["covariance", "scores"])
def model(request) -> Allocator:
    torch.manual_seed(0)
    states = AssetGraph(Recurrent(len(SPEC.features), width=4, dropout=0.3), estimates=2, width=8)
    parts = {
        "covariance": (GraphCovariance(states), MinimumVariance(upper=0.5, inertia=1.0)),
        "scores": (GraphScores(states), Projected(Constraints(upper=0.5, turnover=0.6))),
    }
    made = Allocator(*parts[request.param], SPEC, half_lives=(40.0, 80.0), min_history=40)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return made.train()


class Plainly:
    """The same weights from the panel as it stood, and a record of what was asked."""

    def __init__(self, model: Allocator) -> None:
        self.model, self.asked = model, []

    def __call__(self, panel, row, holdings):
        held = dict(zip(panel.assets, holdings.tolist(), strict=True)) if holdings.any() else None
        self.asked.append((panel, row, holdings))
        return self.model.allocate(panel, panel.dates[-1], held).iloc[0]


@pytest.mark.parametrize("lag", [0, 2])
def test_its_weights_are_those_on_the_panel_as_it_stood(model, changing, lag):
    walk = WalkForward("month", "2019-05-01", "2019-11-15", Costs(proportional=0.001), lag=lag)
    plain = Plainly(model)
    track = walk.run(changing, plain)
    again = walk.run(changing, Walked(model, changing, track.trade_dates if lag == 0 else ()))
    torch.testing.assert_close(again.weights, track.weights, rtol=0, atol=2e-6)
    pd.testing.assert_frame_equal(again.to_frame(), track.to_frame(), rtol=0, atol=1e-5)
    universes = {tuple((weights > 0).tolist()) for weights in track.weights[track.trade_rows]}
    assert len(universes) > 1, "nothing was listed or delisted"
    assert any(not panel.mask[-1].all() for panel, _, _ in plain.asked), "nothing was closed"
    if lag == 0:  # with a lag others may be closed on the day of the trades, and the weights are not those decided
        assert summary(again)["largest_weight"] <= 0.5 + 1e-6
    assert model.training, "it was left in another mode"


def test_dropout_is_off(model, changing):
    walked = Walked(model, changing)
    past = changing.until("2019-06-28")
    row, held = len(past.dates) - 1, torch.zeros(len(past.assets), dtype=torch.float64)
    assert torch.equal(walked(past, row, held), walked(past, row, held))


def test_another_panel_is_refused(model, changing, calm):
    walked = Walked(model, changing, ["2019-06-28"])
    past = calm.until("2019-06-28")
    with pytest.raises(DataError, match="2019-06-28, row"):
        walked(past, len(past.dates) - 1, torch.zeros(4, dtype=torch.float64))
    whole = torch.zeros(len(changing.assets), dtype=torch.float64)
    with pytest.raises(DataError, match="that is run"):
        walked(changing.select(changing.assets[::-1]), 60, whole)
    with pytest.raises(DataError):
        Walked(model, changing, ["2019-06-29"])
