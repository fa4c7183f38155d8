"""An allocator for walk-forward runs that decides on a forecaster's scenarios."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from qtorch.data import DataError, Panel, WindowSource
from qtorch.data.standing import known_gone
from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError
from qtorch.forecast import Forecast
from qtorch.portfolio import ScenarioProgram
from qtorch.portfolio.feasibility import RowError
from qtorch.risk import fit_copula


class ScenarioAllocator:
    """Forecasts at the row, draws joint scenarios and takes the best weights on them.

    A forecast of marginals alone is made joint by a copula that is fitted to their transforms on the rows before. The
    scenarios are quasi-random where the law's copula is of factors, from the same points at every date, so that weights
    move with the forecasts and not with the draws. An asset without a forecast gets 0; one that is closed stays at its
    holding, in scenarios in which it earns nothing if it has no forecast.

    The forecaster is taken as it is; train it on what came before the run.

    Args:
        forecaster: has ``forecast(panel, dates, source=...)`` and `spec`, such as a `Forecaster` or a baseline.
        program: from scenarios to weights.
        panel: the one that is walked through, if its windows and past transforms are to be kept from date to date. They
            depend on nothing later than their row. None makes them anew from the panel as it stood.
        horizon: sessions between rebalances; the forecaster's nearest horizon is taken.
        scenarios: S, a power of 2.
        groups: labels of each asset by the name of a partition, for the program's caps.
        lookback: rows whose transforms a copula is fitted to.
        factors: of that copula.
        seed: of the scenarios.

    Raises:
        ValueError: a number is too small.

    Example:
        >>> from qtorch.backtest import EqualWeight, WalkForward
        >>> from qtorch.data import WindowSpec, load_sample
        >>> from qtorch.models import RiskMetrics
        >>> from qtorch.portfolio import Constraints, TailRisk
        >>> panel = Panel.from_frame(load_sample().query("asset in ['AAPL', 'JPM', 'KO', 'XOM'] and date > '2020'"))
        >>> program = ScenarioProgram(TailRisk(0.95), Constraints(upper=0.5))
        >>> allocator = ScenarioAllocator(RiskMetrics(), program, panel, horizon=1, lookback=100, factors=1)
        >>> walk = WalkForward("month", start="2022-01-01", end="2022-03-31")
        >>> float(walk.run(panel, allocator).net.std()) < float(walk.run(panel, EqualWeight()).net.std())
        True
    """

    def __init__(
        self,
        forecaster: Any,
        program: ScenarioProgram,
        panel: Panel | None = None,
        horizon: int = 21,
        scenarios: int = 1024,
        *,
        groups: Mapping[str, Int[Tensor, " N"]] | None = None,
        lookback: int = 500,
        factors: int = 3,
        seed: int = 0,
    ) -> None:
        for name, value, least in (
            ("horizon", horizon, 1),
            ("scenarios", scenarios, 2),
            ("lookback", lookback, 2),
            ("factors", factors, 1),
        ):
            require(value >= least, name, value, f"give at least {least}")
        self.forecaster, self.program, self.panel, self.horizon = forecaster, program, panel, horizon
        self.scenarios, self.lookback, self.factors, self.seed = scenarios, lookback, factors, seed
        self.groups = groups
        self._source = None if panel is None else WindowSource(panel, forecaster.spec)
        self._pits: dict[int, Tensor] = {}

    @torch.no_grad()
    def __call__(self, panel: Panel, row: int, holdings: Float64[Tensor, " N"]) -> Float64[Tensor, " N"]:
        """Weights on the panel's last row.

        Raises:
            DataError: nothing can be forecast, or the panel is not the one that is walked through, cut at the row.
            ValueError: no weights keep to the constraints; it names the date, and the asset where it is one asset's.
        """
        self._check(panel, row)
        forecast = self._joint(panel, row)
        horizon = min(forecast.horizons, key=lambda h: (abs(h - self.horizon), h))
        draws = forecast.scenarios(panel.dates[row], horizon, self.scenarios, self.seed)
        gone = known_gone(panel)[row]
        tradable = panel.mask[row]
        universe = forecast.mask[0] & ~gone
        stuck = ~tradable & (holdings != 0) & ~gone
        draws = torch.where(universe, draws, 0.0)
        try:
            weights = self.program(
                draws.unsqueeze(1),
                (universe | stuck).unsqueeze(0),
                holdings=holdings.unsqueeze(0),
                tradable=tradable.unsqueeze(0),
                groups=self.groups,
            )
        except RowError as error:
            asset = "" if error.asset is None else f", {panel.assets[error.asset]}"
            raise ArgumentError(f"{panel.dates[row]:%Y-%m-%d}{asset}: {error.what}") from error
        return weights[0]

    def _joint(self, panel: Panel, row: int) -> Forecast:
        forecast = self._forecast(panel, panel.dates[row : row + 1])
        if forecast.distribution.event_shape:
            return forecast
        if forecast.horizons[0] != 1:
            raise ArgumentError(
                f"the forecast is of marginals over {forecast.horizons} sessions, and a copula is fitted to transforms "
                "over 1: give a forecaster of that horizon too, or one of a joint law."
            )
        pits = self._transforms(panel, range(max(0, row - self.lookback), row))
        return forecast.with_copula(fit_copula(pits, min(self.factors, len(panel.assets))))

    def _transforms(self, panel: Panel, rows: range) -> Float64[Tensor, "T N"]:
        """Of the returns of the rows after these under their forecasts; NaN where there is none."""
        kept = self._pits if self.panel is not None else {}
        new = [row for row in rows if row not in kept]
        if new:
            forecast = self._forecast(panel, panel.dates[new])
            after = panel.returns()[torch.tensor(new) + 1].unsqueeze(1)
            pits = forecast.pit(after.expand(-1, len(forecast.horizons), -1))[:, 0]
            kept.update(zip(new, pits, strict=True))
        return torch.stack([kept[row] for row in rows])

    def _forecast(self, panel: Panel, dates: pd.DatetimeIndex) -> Forecast:
        whole = panel if self.panel is None else self.panel
        return self.forecaster.forecast(whole, dates, source=self._source)

    def _check(self, panel: Panel, row: int) -> None:
        whole = self.panel
        if whole is None:
            return
        ours = panel.assets == whole.assets and row < len(whole.dates) and panel.dates[row] == whole.dates[row]
        if not (ours and torch.equal(panel.mask[row], whole.mask[row])):
            raise DataError(
                f"{panel.dates[row]:%Y-%m-%d}, row {row}: not that row of the panel that this allocator walks through. "
                "Make one of the panel that is run."
            )
