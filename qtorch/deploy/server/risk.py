"""A portfolio's risk with contributions, by a served forecaster and a file of prices."""

import datetime
import math
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from qtorch.data import DataError, Panel
from qtorch.data.errors import listing
from qtorch.deploy.server.kept_forecasts import KeptForecasts, Known
from qtorch.deploy.server.protocol import RequestError
from qtorch.deploy.server.repository import Repository
from qtorch.deploy.server.risk_request import RiskRequest
from qtorch.deploy.server.scenario_count import require_told, scenario_count
from qtorch.deploy.server.watched_panel import WatchedPanel
from qtorch.distributions import take
from qtorch.errors import ArgumentError
from qtorch.nightly.config import NightlyConfig, NightlyData, RiskConfig
from qtorch.nightly.forecast_history import TONIGHT
from qtorch.risk import portfolio_risk, scenario_errors, stand_alone_risk
from qtorch.training import Forecaster

_RANDOMISATIONS = 8


def copula_of_scenarios() -> RiskConfig:
    """The nightly job's settings, but for a copula, of which there may be any number of scenarios, and no backtest."""
    return RiskConfig(dependence="copula", backtest_sessions=2)


class RiskService:
    """Answers risk requests as the nightly job does; safe to be used from several threads.

    Prices are read once, and again when the file changes. Forecasts of a date and model, and scenarios of them, are
    kept, so that only the first question about a date waits for them.

    Args:
        data: the prices and what is asked of them, as of the nightly job.
        repository: of the models.
        risk: dependence and past sessions; a copula by default. Its levels and calibration are not used.
    """

    def __init__(self, data: NightlyData, repository: Repository, risk: RiskConfig | None = None) -> None:
        self.data, self.repository = data, repository
        self.risk = copula_of_scenarios() if risk is None else risk
        self._prices = WatchedPanel(data)
        self._kept = KeptForecasts(NightlyConfig(data, risk=self.risk))

    def answer(self, request: RiskRequest) -> dict[str, Any]:
        """The risk, in plain values for JSON; None where a number is not finite or not known.

        Returns:
            as_of, model, version, unit, horizon; scenarios (dependence, count, randomisations, seed); no_forecast, a
            list of asset and reason; and levels, a list of level, value_at_risk, expected_shortfall, their standard
            errors, and assets: a list of asset, exposure, component and marginal value_at_risk and expected_shortfall,
            and those of the position alone. Components sum to the whole.

        Raises:
            RequestError: 404 no such model; 413 too many scenarios; 422 the portfolio, date or horizon is not one of
                the data or model, or the scenarios do not tell a level; 503 the model is not ready or the prices
                cannot be read.
        """
        model = self.repository.get(request.model, request.version)
        if not isinstance(model.model, Forecaster):
            raise RequestError(
                422, f"model {model.name!r} is an allocator, which forecasts no risk. Name a forecaster."
            )
        horizons = model.model.spec.horizons
        if request.horizon not in horizons:
            raise RequestError(
                422,
                f"model {model.name!r} has no horizon of {request.horizon}. It has {', '.join(map(str, horizons))}.",
            )
        try:
            stamp, panel = self._prices.current()
        except (DataError, ArgumentError) as error:
            raise RequestError(503, f"the prices cannot be used: {error}") from error
        date = _date(request.as_of, panel)
        if unknown := [asset for asset in request.positions if asset not in panel.assets]:
            raise RequestError(
                422, f"positions: not in the prices: {listing(unknown)}. There are {listing(panel.assets, most=50)}."
            )
        if request.scenarios is not None and self.risk.dependence != "copula":
            raise RequestError(422, "scenarios: this server takes past sessions for scenarios. Leave the number out.")
        count = scenario_count(request) if self.risk.dependence == "copula" else TONIGHT
        if _RANDOMISATIONS * count * len(panel.assets) > 4 * self.repository.limits.max_elements:
            raise RequestError(
                413,
                f"{count} scenarios of {len(panel.assets)} assets are over the server's limit. Ask for fewer, or for "
                "levels less near to 0 and 1, which need fewer.",
            )
        known = self._kept.forecasts(stamp, panel, date, model)
        h = horizons.index(request.horizon)
        scenarios = self._kept.scenarios(known, h, count, request.seed)
        require_told(request, scenarios.shape[1])  # past sessions may be fewer than levels need
        return self._measured(request, known, h, scenarios)

    def _measured(
        self, request: RiskRequest, known: Known, h: int, scenarios: Float64[Tensor, "M S N"]
    ) -> dict[str, Any]:
        forecast = known.history.tonight
        assets = list(request.positions)
        column = [forecast.assets.index(asset) for asset in assets]
        exposure = torch.tensor(list(request.positions.values()), dtype=torch.float64)
        there = forecast.mask[0, column]
        missing = _missing(assets, exposure, there, known.states)
        if missing and request.without_forecast == "refuse":
            named = listing([f"{each['asset']} ({each['reason']})" for each in missing])
            raise RequestError(
                422,
                f"no forecast of {named}. Leave them out, or set without_forecast to report, which leaves them out of "
                "the risk and names them.",
            )
        held = torch.where(there, exposure, 0.0)
        own = torch.where(there, scenarios[..., column], 0.0)
        marginals = take(forecast.marginals, (0, h, column))
        levels = []
        for level in request.levels:
            risk = portfolio_risk(own.flatten(0, 1), held, level)
            errors = scenario_errors(own @ held, level)
            if len(own) == 1:
                errors = risk.value_at_risk_error, risk.expected_shortfall_error
            alone = [torch.where(there, x, torch.nan) for x in stand_alone_risk(marginals, exposure, level)]
            columns = {
                "exposure": exposure,
                "component_value_at_risk": risk.component_value_at_risk,
                "component_expected_shortfall": risk.component_expected_shortfall,
                "marginal_value_at_risk": torch.where(there, risk.marginal_value_at_risk, torch.nan),
                "marginal_expected_shortfall": torch.where(there, risk.marginal_expected_shortfall, torch.nan),
                "stand_alone_value_at_risk": alone[0],
                "stand_alone_expected_shortfall": alone[1],
            }
            values = {name: _plain(x) for name, x in columns.items()}
            levels.append(
                {
                    "level": level,
                    "value_at_risk": _plain(risk.value_at_risk),
                    "expected_shortfall": _plain(risk.expected_shortfall),
                    "value_at_risk_error": _plain(errors[0]),
                    "expected_shortfall_error": _plain(errors[1]),
                    "assets": [
                        {"asset": asset} | {name: x[n] for name, x in values.items()} for n, asset in enumerate(assets)
                    ],
                }
            )
        return {
            "as_of": f"{forecast.dates[0]:%Y-%m-%d}",
            "model": known.model.name,
            "version": known.model.version,
            "unit": request.unit,
            "horizon": request.horizon,
            "scenarios": {
                "dependence": self.risk.dependence,
                "randomisations": len(scenarios),
                "count": scenarios.shape[1],
                "seed": request.seed,
            },
            "no_forecast": missing,
            "levels": levels,
        }


def _date(as_of: datetime.date | None, panel: Panel) -> pd.Timestamp:
    if as_of is None:
        return panel.dates[-1]
    day = pd.Timestamp(as_of)
    if day in panel.dates:
        return day
    before = panel.dates[panel.dates < day]
    near = (
        f"The last one before is {before[-1]:%Y-%m-%d}" if len(before) else f"They begin on {panel.dates[0]:%Y-%m-%d}"
    )
    raise RequestError(422, f"as_of {as_of}: the prices have no such row. {near}.")


def _missing(
    assets: list[str], exposure: Float64[Tensor, " N"], there: Bool[Tensor, " N"], states: pd.DataFrame
) -> list[dict[str, str]]:
    """What is held without a forecast, and why."""
    lacks = torch.logical_and(exposure != 0, ~there).tolist()
    return [
        {"asset": asset, "reason": str(states.loc[asset, "reason"])}
        for asset, lack in zip(assets, lacks, strict=True)
        if lack
    ]


def _plain(value: Tensor) -> Any:
    """Numbers for JSON."""
    if value.ndim:
        return [_plain(x) for x in value]
    number = value.item()
    return number + 0.0 if math.isfinite(number) else None  # -0.0 becomes 0.0
