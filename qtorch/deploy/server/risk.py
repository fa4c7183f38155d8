"""A portfolio's risk with contributions, by a served forecaster and a file of prices."""

import datetime
import math
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from qtorch.data import DataError, Panel, WindowSource
from qtorch.data.errors import listing
from qtorch.deploy.server.protocol import RequestError
from qtorch.deploy.server.repository import Repository
from qtorch.deploy.server.risk_request import MOST_SCENARIOS, RiskRequest
from qtorch.deploy.server.served_model import ServedModel
from qtorch.deploy.server.watched_panel import WatchedPanel
from qtorch.distributions import take
from qtorch.errors import ArgumentError
from qtorch.nightly.config import NightlyConfig, NightlyData, RiskConfig
from qtorch.nightly.gates import asset_states
from qtorch.nightly.history import TONIGHT, History
from qtorch.nightly.outcome import Refused
from qtorch.risk import portfolio_risk, scenario_errors, stand_alone_risk
from qtorch.training import Forecaster

_KEPT = 8  # dates and models whose forecasts are kept
_KEPT_BYTES = 256 << 20  # of scenarios that are kept, of all dates and models
_RANDOMISATIONS = 8
# Scenarios beyond a level in each randomisation. With fewer, the tail's mean is that of a few extremes, and the spread
# of the randomisations tells little of its error.
_BEYOND = 10


def copula_of_scenarios() -> RiskConfig:
    """The nightly job's settings, but for a copula, of which there may be any number of scenarios, and no backtest."""
    return RiskConfig(dependence="copula", backtest_sessions=2)


@dataclass(eq=False)
class _Known:
    """The forecasts of a model at a date, and what was made of them.

    Attributes:
        model: which forecast.
        history: its forecasts up to the date.
        states: of the assets at the date.
        scenarios: `[M, S, N]` by horizon, count and seed, the youngest last.
    """

    model: ServedModel
    history: History
    states: pd.DataFrame
    scenarios: OrderedDict[tuple[int, int, int], Float64[Tensor, "M S N"]] = field(default_factory=OrderedDict)


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
        self._config = NightlyConfig(data, risk=self.risk)
        self._prices = WatchedPanel(data)
        self._known: OrderedDict[Any, _Known] = OrderedDict()
        self._table = threading.Lock()
        self._work = threading.Lock()  # forecasts are made once, however many ask for them

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
        count = _count(request) if self.risk.dependence == "copula" else TONIGHT
        if _RANDOMISATIONS * count * len(panel.assets) > 4 * self.repository.limits.max_elements:
            raise RequestError(
                413,
                f"{count} scenarios of {len(panel.assets)} assets are over the server's limit. Ask for fewer, or for "
                "levels less near to 0 and 1, which need fewer.",
            )
        known = self._forecasts(stamp, panel, date, model)
        h = horizons.index(request.horizon)
        scenarios = self._scenarios(known, h, count, request.seed)
        _require_told(request, scenarios.shape[1])  # past sessions may be fewer than levels need
        return self._measured(request, known, h, scenarios)

    def _measured(
        self, request: RiskRequest, known: _Known, h: int, scenarios: Float64[Tensor, "M S N"]
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

    def _forecasts(self, stamp: Any, panel: Panel, date: pd.Timestamp, model: ServedModel) -> _Known:
        """Those of a date and model, kept or made."""
        key = stamp, date, model  # a model that is loaded anew is another one
        with self._table:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        with self._work:
            with self._table:
                if key in self._known:
                    return self._known[key]
            known = self._made(panel.until(date), model)
            with self._table:
                self._known[key] = known
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
        return known

    def _made(self, panel: Panel, model: ServedModel) -> _Known:
        forecaster = model.model
        assert isinstance(forecaster, Forecaster)
        try:
            source = WindowSource(panel, forecaster.spec)
            states = asset_states(panel, source, self.data, {})
            history = History.of(self._config, source, forecaster)
            if history.tonight.mask.any():
                return _Known(model, history, states)
        except Refused as error:
            raise RequestError(503, str(error)) from error
        except (DataError, ArgumentError) as error:
            raise RequestError(
                422, f"model {model.name!r} cannot forecast {panel.dates[-1]:%Y-%m-%d}: {error}"
            ) from error
        raise RequestError(422, f"model {model.name!r} has no forecast of any asset on {panel.dates[-1]:%Y-%m-%d}.")

    def _scenarios(self, known: _Known, h: int, count: int, seed: int) -> Float64[Tensor, "M S N"]:
        """Those of a horizon, count and seed, kept or made."""
        key = h, count, seed
        with self._work:
            if key not in known.scenarios:
                known.scenarios[key] = known.history.scenarios(h, count, seed)
            known.scenarios.move_to_end(key)
            found = known.scenarios[key]
            self._forget()
        return found

    def _forget(self) -> None:
        """Drops the scenarios that were not asked for since longest, until the others keep to their bound."""
        with self._table:
            oldest_first = [known.scenarios for known in self._known.values()]
        held = sum(x.nbytes for kept in oldest_first for x in kept.values())
        for kept in oldest_first:
            while kept and held > _KEPT_BYTES:
                held -= kept.popitem(last=False)[1].nbytes


def _count(request: RiskRequest) -> int:
    """Scenarios of a randomisation: those asked for, or the fewest from the nightly job's number that tell all levels.

    Raises:
        RequestError: 422, those asked for do not, or no number does.
    """
    count = TONIGHT if request.scenarios is None else request.scenarios
    while request.scenarios is None and count < MOST_SCENARIOS and _untold(request, count):
        count *= 2
    _require_told(request, count)
    return count


def _untold(request: RiskRequest, count: int) -> list[float]:
    """Levels with too few scenarios beyond them, on the one side or the other."""
    return [level for level in request.levels if min(level, 1 - level) * count < _BEYOND - 1e-6]


def _require_told(request: RiskRequest, count: int) -> None:
    for level in _untold(request, count):
        raise RequestError(
            422,
            f"levels: of {count} scenarios {min(level, 1 - level) * count:.3g} are beyond {level}, and {_BEYOND} are "
            f"needed. Give levels less near to 0 and 1, or more scenarios where a copula makes them, up to "
            f"{MOST_SCENARIOS}.",
        )


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
