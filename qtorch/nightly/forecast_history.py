"""Forecasts of the last sessions and of tonight, their records, and the portfolio's scenarios made from them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor
from torch.distributions import Distribution

from qtorch.data import Panel, WindowSource
from qtorch.data.features.feature import BLOCK
from qtorch.distributions import Empirical, JointDistribution, StudentTCopula, take
from qtorch.forecast import Forecast
from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.dependence import fitted, refitted
from qtorch.nightly.realised import realised
from qtorch.nightly.record import Record
from qtorch.risk import (
    anomaly,
    complete,
    expected_shortfall,
    joint_scenarios,
    portfolio_scenarios,
    rolling_scenarios,
    scenarios_of,
    value_at_risk,
)
from qtorch.training import Forecaster

TONIGHT, PAST_DAYS = 1024, 2048  # quasi-random scenarios: of each of 8 randomisations, and of a day of the record
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


def limits(config: NightlyConfig) -> dict[str, Any]:
    """Which assets have a forecast, as arguments of `Forecaster.forecast`."""
    return {"min_history": config.data.min_history, "stale": config.data.stale_sessions}


def sessions_back(config: NightlyConfig, panel: Panel, joint: bool) -> int:
    """Sessions before tonight whose forecasts are used: those of the backtest, and for joint scenarios more."""
    wanted = config.risk.backtest_sessions + (config.risk.scenario_sessions if joint else 0)
    return min(len(panel.dates) - 1, wanted)


class History:
    """A model's forecasts at the last rows of a panel, one of them tonight's.

    Forecasts and outcomes are matched by the date on which the outcome is known: the return of row r, of the assets
    observed there, against what row r - 1 forecast. A closed market has no outcome on its holidays.

    Args:
        config: how many sessions, and which limits.
        panel: the market.
        forecast: of all its assets at its last rows.
    """

    def __init__(self, config: NightlyConfig, panel: Panel, forecast: Forecast) -> None:
        self.config, self.panel, self.forecast = config, panel, forecast
        last = len(panel.dates) - 1
        sessions = len(forecast.dates) - 1
        self.rows = np.arange(last - sessions, last + 1)
        self.backtest = slice(max(0, sessions - config.risk.backtest_sessions), sessions)  # its as-of rows, in `rows`

    @classmethod
    def of(cls, config: NightlyConfig, source: WindowSource, model: Forecaster) -> "History":
        """The history that a portfolio's scenarios need: a model's forecasts of all assets of some windows."""
        panel = source.panel
        dates = panel.dates[-1 - sessions_back(config, panel, joint=True) :]
        forecast = model.forecast(panel, dates, source=source, **limits(config))
        return cls(config, panel, forecast)

    @property
    def own_copula(self) -> bool:
        """Whether the model forecasts joint laws."""
        return bool(self.forecast.distribution.event_shape)

    @property
    def by_copula(self) -> bool:
        """Whether portfolios come from a copula, not from past transforms."""
        return self.config.risk.dependence == "copula"

    @cached_property
    def alone(self) -> Forecast:
        """The forecast of the last row, without a dependence that is not the model's own."""
        return self.forecast.select(slice(-1, None))

    @cached_property
    def tonight(self) -> Forecast:
        """The forecast of the last row; joint where portfolios come from a copula."""
        if not self.by_copula or self.own_copula:
            return self.alone
        past = self.transforms[-self.config.risk.scenario_sessions :]
        copulas = [fitted(past[:, h]) for h in range(past.shape[1])]
        return self.alone.with_copula(
            StudentTCopula(torch.stack([c.df for c in copulas]), torch.stack([c.loadings for c in copulas]))
        )

    @cached_property
    def returns(self) -> Float64[Tensor, "T N"]:
        """The returns of the rows after each of `rows` but the last, NaN where an asset is not observed."""
        panel = self.panel
        blocks = (panel.select(panel.assets[n : n + BLOCK]) for n in range(0, len(panel.assets), BLOCK))
        return torch.cat([block.returns()[self.rows[1:]] for block in blocks], dim=1)

    @cached_property
    def outcomes(self) -> tuple[Float32[Tensor, "T H N"], Int64[Tensor, "T H N"]]:
        """What came of the forecasts of `rows`, as of `qtorch.nightly.realised.realised`, and when it is known.

        The latter as a position in `rows`, their number where there is no outcome.
        """
        returns, known = realised(self.panel, self.rows, self.forecast.horizons, self.forecast.mask)
        return returns, known - int(self.rows[0])

    @cached_property
    def transforms(self) -> Float64[Tensor, "T H N"]:
        """Probability integral transforms by the row on which their outcome is known, one for each row after the first.

        Over a horizon longer than one session, consecutive transforms overlap.
        """
        returns, known = self.outcomes
        pit = self.forecast.pit(returns)
        by_row = torch.full((len(self.rows) + 1, *pit.shape[1:]), torch.nan, dtype=torch.float64)
        by_row.scatter_(0, known, pit)
        return by_row[1:-1]

    def record_dates(self) -> pd.DatetimeIndex:
        """The dates of the records' returns."""
        return self.panel.dates[self.rows[self.backtest] + 1]

    def scenarios(self, horizon: int, count: int = TONIGHT, seed: int | None = None) -> Float64[Tensor, "M S N"]:
        """Joint scenarios of tonight's returns over a horizon, by its position: of several randomisations of a copula.

        Args:
            horizon: position among the horizons.
            count: of a copula's scenarios in a randomisation; past transforms are one set, of as many as there are.
            seed: the training's by default.
        """
        seed = self.config.training.seed if seed is None else seed
        if self.by_copula:
            return scenarios_of(take(self.tonight.distribution, (0, horizon)), count, seed=seed)
        pit = self.transforms[-self.config.risk.scenario_sessions :, horizon]
        pit = pit[pit.isfinite().any(1)]
        generator = torch.Generator().manual_seed(seed)
        return joint_scenarios(take(self.tonight.marginals, (0, horizon)), complete(pit, generator)).unsqueeze(0)

    def portfolio(self, exposures: Float64[Tensor, " N"]) -> PortfolioRecord:
        """The record of tonight's exposures on each day of the backtest, its scenarios made from the days before it."""
        days = torch.arange(self.backtest.start, self.backtest.stop)
        held = torch.where(self.returns[days].isfinite() & self.forecast.mask[days], exposures, 0.0)
        traded = held.abs().sum(1) > 0
        days, held = days[traded], held[traded]
        fan = Empirical(self._from_copulas(days, held) if self.by_copula else self._from_past(days, held))
        levels = self.config.risk.levels
        record = Record(
            (held * self.returns[days].nan_to_num()).sum(1, keepdim=True),
            {level: value_at_risk(fan, level)[:, None] for level in levels},
            {level: expected_shortfall(fan, level)[:, None] for level in levels},
        )
        return PortfolioRecord(record, fan, self.panel.dates[self.rows[days.numpy()] + 1])

    def oddness(self) -> float:
        """The probability of a joint density as low as that of tonight's returns under the forecast of the row before.

        See `qtorch.risk.anomaly`; NaN where no asset has both. The copula is that of the record.
        """
        day = self.backtest.stop - 1
        joint: Any = take(self._joint_laws[-1][1], slice(-1, None))
        returns, mask = self.returns[day:], self.forecast.mask[day : day + 1]
        return anomaly(joint, returns, mask, seed=self.config.training.seed).item()

    @cached_property
    def _joint_laws(self) -> list[tuple[Tensor, Distribution]]:
        """Days of the backtest, by their position in `rows`, and their joint laws of the next session's returns."""
        days = torch.arange(self.backtest.start, self.backtest.stop)
        if self.own_copula:
            law: Any = take(self.forecast.distribution, (days, 0))
            return [(days, law)]
        blocks = refitted(self.transforms[:, 0], days.tolist(), self.config.risk.scenario_sessions)
        marginals = self.forecast.marginals
        return [
            (torch.tensor(block), JointDistribution(take(marginals, (torch.tensor(block), 0)), copula))
            for block, copula in blocks
        ]

    def _from_copulas(self, days: Int64[Tensor, " D"], held: Float64[Tensor, "D N"]) -> Float64[Tensor, "D S"]:
        """Profits of exposures on days of the backtest under the joint laws."""
        parts, seed = [], self.config.training.seed + 1
        for block, law in self._joint_laws:
            some: Any = take(law, torch.isin(block, days))
            parts.append(portfolio_scenarios(some, held[torch.isin(days, block)], PAST_DAYS, seed=seed))
        return torch.cat(parts)

    def _from_past(self, days: Int64[Tensor, " D"], held: Float64[Tensor, "D N"]) -> Float64[Tensor, "D S"]:
        """The same from the past transforms themselves, holes filled."""
        start = self.backtest.start
        window = min(self.config.risk.scenario_sessions, start)
        pit = self.transforms[:, 0]
        generator = torch.Generator().manual_seed(self.config.training.seed + 1)
        filled = complete(pit, generator, fit=pit[:start])
        return rolling_scenarios(take(self.forecast.marginals, (days, 0)), filled, days - window, window, held)
