"""An allocator on scenarios sees its past alone, gives nothing to what has no forecast, and keeps what is closed."""

import pytest
import torch

from qtorch.backtest import ScenarioAllocator, WalkForward
from qtorch.data import DataError, WindowSpec
from qtorch.heads import CopulaHead, JointHead, SkewedStudentT
from qtorch.models import RiskMetrics
from qtorch.portfolio import Constraints, Costs, ScenarioProgram, TailRisk
from qtorch.training import Forecaster
from tests.training.runs import SPEC, Across, small_panel

PROGRAM = ScenarioProgram(TailRisk(0.9), Constraints(upper=0.6), cost=0.001)


def allocator(panel=None, program=PROGRAM, horizons=(1, 5)) -> ScenarioAllocator:
    return ScenarioAllocator(
        RiskMetrics(WindowSpec(16, horizons)), program, panel, horizon=5, scenarios=128, lookback=80, factors=1, seed=2
    )


def test_with_the_whole_panel_it_decides_as_on_the_past_alone(changing):
    walk = WalkForward(60, "2019-07-01", "2019-10-31", Costs(proportional=0.001))
    past, whole = (walk.run(changing, allocator(panel)) for panel in (None, changing))
    torch.testing.assert_close(past.weights, whole.weights, rtol=0, atol=1e-9)
    at = past.weights[past.trade_rows]
    new, old = (at[:, changing.assets.index(name)] for name in ("NEW", "OLD"))
    assert new[0] == 0, "it had no history"
    assert new[-1] > 0
    assert old[-1] == 0
    assert at.amax() <= 0.6 + 1e-9


def test_what_is_closed_stays(changing):
    row = changing.row("2019-07-04")  # New York is closed
    held = torch.tensor([0.3, 0.2, 0.0, 0.1, 0.4], dtype=torch.float64)
    w = allocator()(changing.until("2019-07-04"), row, held)
    shut = ~changing.mask[row]
    assert shut.any()
    assert torch.equal(w[shut], held[shut])
    torch.testing.assert_close(w.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_another_panel_and_a_forecast_that_has_no_copula_are_refused(changing, calm):
    row, none = 200, torch.zeros(4, dtype=torch.float64)
    with pytest.raises(DataError, match="that is run"):
        allocator(changing)(calm.until(calm.dates[row]), row, none)
    with pytest.raises(ValueError, match="over 1"):
        allocator(horizons=(5,))(calm.until(calm.dates[row]), row, none)
    with pytest.raises(ValueError, match="lookback"):
        ScenarioAllocator(RiskMetrics(), PROGRAM, lookback=1)


class Broken(ScenarioProgram):
    """Sees a scenario that is not finite."""

    def forward(self, scenarios, *rest, **options):
        scenarios[3, 0, 2] = torch.inf
        return super().forward(scenarios, *rest, **options)


def test_what_no_weights_keep_to_is_told_by_date_and_asset(calm):
    row, none = 80, torch.zeros(4, dtype=torch.float64)
    past, day = calm.until(calm.dates[row]), f"{calm.dates[row]:%Y-%m-%d}"
    for program, message in (
        (ScenarioProgram(TailRisk(0.9), Constraints(upper=0.1)), f"^{day}: .*upper"),
        (Broken(TailRisk(0.9), Constraints(upper=0.6)), f"^{day}, {calm.assets[2]}: a scenario is not finite"),
    ):
        decides = ScenarioAllocator(RiskMetrics(WindowSpec(16, (1,))), program, scenarios=8, lookback=5, factors=1)
        with pytest.raises(ValueError, match=message):
            decides(past, row, none)


def test_a_forecaster_of_a_joint_law_brings_its_own_copula():
    panel = small_panel()
    model = Forecaster(
        Across(len(SPEC.features)), JointHead(SkewedStudentT(8, SPEC.horizons), CopulaHead(8, 1)), SPEC
    ).eval()
    past, none = panel.until(panel.dates[300]), torch.zeros(4, dtype=torch.float64)
    alone, kept = (
        ScenarioAllocator(model, PROGRAM, p, horizon=3, scenarios=128)(past, 300, none) for p in (None, panel)
    )
    torch.testing.assert_close(alone, kept, rtol=0, atol=1e-6)
    forecast = model.forecast(past, past.dates[-1])
    scenarios = forecast.scenarios(past.dates[-1], 3, 128).unsqueeze(1)
    best = PROGRAM(scenarios, forecast.mask, tradable=past.mask[-1:], holdings=none.unsqueeze(0))[0]
    assert torch.equal(alone, best)
    assert (alone > 0).sum() > 1
