"""Forecasts of the last sessions and of tonight, their records, and the portfolio's scenarios made from them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.data import WindowSource
from qtorch.data.windows import outcomes
from qtorch.distributions import Empirical, take
from qtorch.forecast import Forecast
from qtorch.models import HistoricalSimulation, RiskMetrics
from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.record import Record
from qtorch.risk import complete, expected_shortfall, joint_scenarios, rolling_scenarios, value_at_risk
from qtorch.training import Forecaster

MODEL, EWMA, HISTORICAL = "qtorch", "riskmetrics", "historical_simulation"


@dataclass(frozen=True, eq=False)
class PortfolioRecord:
    """The portfolio's record: tonight's positions on past days.

    Attributes:
        record: profits as "returns", in the unit of the exposures, and their risk numbers; `[T, 1]`.
        fan: the distribution that was forecast for each profit, batch shape `[T]`.
        dates: of the profits.
    """

    record: Record
    fan: Empirical
    dates: pd.DatetimeIndex


class History:
    """A model's forecasts at the last rows of a panel, one of them tonight's.

    Forecasts and outcomes are matched by the date on which the outcome is known: the return of row r, of the assets
    observed there, against what row r - 1 forecast. A closed market has no outcome on its holidays.

    Args:
        config: how many sessions, and which limits.
        source: the windows of the panel.
        model: the forecaster.
    """

    def __init__(self, config: NightlyConfig, source: WindowSource, model: Forecaster) -> None:
        self.config, self.source, self.panel = config, source, source.panel
        last = len(self.panel.dates) - 1
        sessions = min(last, config.risk.backtest_sessions + config.risk.scenario_sessions)
        self.rows = np.arange(last - sessions, last + 1)
        self.backtest = slice(max(0, sessions - config.risk.backtest_sessions), sessions)  # its as-of rows, in `rows`
        self._limits = {"min_history": config.data.min_history, "stale": config.data.stale_sessions}
        self.forecast = model.forecast(self.panel, self.panel.dates[self.rows], source=source, **self._limits)

    @property
    def tonight(self) -> Forecast:
        """The forecast of the last row."""
        return self.forecast.select(slice(-1, None))

    @cached_property
    def returns(self) -> Float64[Tensor, "T N"]:
        """The returns of the rows after each of `rows` but the last, NaN where an asset is not observed."""
        return self.panel.returns()[self.rows[1:]]

    @cached_property
    def transforms(self) -> Float64[Tensor, "T H N"]:
        """Probability integral transforms by the row on which their outcome is known, one for each row after the first.

        Over a horizon longer than one session, consecutive transforms overlap.
        """
        returns, known = outcomes(self.source, self.rows)
        pit = self.forecast.pit(returns)
        by_row = torch.full((len(self.panel.dates) + 1, *pit.shape[1:]), torch.nan, dtype=torch.float64)
        by_row.scatter_(0, known, pit)
        return by_row[self.rows[1:]]

    def records(self) -> dict[str, Record]:
        """The backtest's records of the model and of its baselines, by name."""
        rows = self.rows[self.backtest]
        spec = self.source.spec
        forecasts = {MODEL: self.forecast.select(self.backtest)}
        for name, baseline in (
            (EWMA, RiskMetrics(spec, **self._limits)),
            (HISTORICAL, HistoricalSimulation(500, spec, **self._limits)),
        ):
            forecasts[name] = baseline.forecast(self.panel, self.panel.dates[rows], source=self.source)
        returns, levels = self.returns[self.backtest], self.config.risk.levels
        return {name: Record.of(forecast, returns, levels) for name, forecast in forecasts.items()}

    def record_dates(self) -> pd.DatetimeIndex:
        """The dates of the records' returns."""
        return self.panel.dates[self.rows[self.backtest] + 1]

    def scenarios(self, horizon: int) -> Float64[Tensor, "S N"]:
        """Joint scenarios of tonight's returns over a horizon, by its position."""
        pit = self.transforms[-self.config.risk.scenario_sessions :, horizon]
        pit = pit[pit.isfinite().any(1)]
        generator = torch.Generator().manual_seed(self.config.training.seed)
        return joint_scenarios(take(self.tonight.distribution, (0, horizon)), complete(pit, generator))

    def portfolio(self, exposures: Float64[Tensor, " N"]) -> PortfolioRecord:
        """The record of tonight's exposures on each day of the backtest, its scenarios made from the days before it."""
        start, stop = self.backtest.start, self.backtest.stop
        window = min(self.config.risk.scenario_sessions, start)
        pit = self.transforms[:, 0]
        generator = torch.Generator().manual_seed(self.config.training.seed + 1)
        filled = complete(pit, generator, fit=pit[:start])
        days = torch.arange(start, stop)
        held = torch.where(self.returns[days].isfinite() & self.forecast.mask[days], exposures, 0.0)
        traded = held.abs().sum(1) > 0
        days, held = days[traded], held[traded]
        marginals = take(self.forecast.distribution, (days, 0))
        fan = Empirical(rolling_scenarios(marginals, filled, days - window, window, held))
        levels = self.config.risk.levels
        record = Record(
            (held * self.returns[days].nan_to_num()).sum(1, keepdim=True),
            {level: value_at_risk(fan, level)[:, None] for level in levels},
            {level: expected_shortfall(fan, level)[:, None] for level in levels},
        )
        return PortfolioRecord(record, fan, self.panel.dates[self.rows[days.numpy()] + 1])
