"""Tonight's values at risk corrected by what came of those before, from where the last night left off."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.distributions import Distribution

from qtorch.calibration import CalibratedForecast, OnlineCalibrator, replay
from qtorch.calibration.outcomes import labels_of
from qtorch.data import State
from qtorch.distributions import Empirical
from qtorch.errors import ArgumentError
from qtorch.forecast import Forecast
from qtorch.nightly.calibration_state import StateError, load_state
from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.forecast_history import History, PortfolioRecord
from qtorch.nightly.record import Record
from qtorch.nightly.tables import PORTFOLIO
from qtorch.nightly.uncertainty import with_band
from qtorch.nn import construct

CALIBRATED = "qtorch_calibrated"
COLUMNS = ["calibrated_value_at_risk", "calibrated_expected_shortfall"]
BAND = ["calibrated_value_at_risk_low", "calibrated_value_at_risk_high"]
MUCH = 0.25  # of the raw value at risk, by which a calibrated one differs much


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a calibrator says tonight, and what it would have said before.

    Attributes:
        tonight: the corrected forecast.
        record: of the first horizon over the backtest, each day corrected by what was known before it.
        calibrator: after tonight's update.
        settings: SHA-256 of what the numbers depend on.
        origin: the earlier night whose state was gone on with, or "backtest" where it was warmed up over that.
        note: why it was.
    """

    tonight: CalibratedForecast
    record: Record
    calibrator: OnlineCalibrator
    settings: str
    origin: str
    note: str


def make_calibrator(
    config: NightlyConfig, assets: Sequence[str] | None, trained_through: str | None = None
) -> OnlineCalibrator:
    """The calibrator that the configuration names, knowing nothing.

    Args:
        config: the job, with a `risk.calibration`.
        assets: that it is to correct, all of which its groups name; None for a portfolio, which learns alone.
        trained_through: the last date that the model's fit used.

    Raises:
        ValueError: it is not allowed, does not exist, is no online calibrator, or its arguments do not fit.
        DataError: it has groups, and an asset is in none of them.
    """
    spec = config.risk.calibration or {}
    if assets is None:
        spec = _without_groups(spec)
    made = construct(spec, allow=config.model.allow, levels=config.risk.levels, trained_through=trained_through)
    if not isinstance(made, OnlineCalibrator):
        raise ArgumentError(
            f"risk.calibration {spec['class_path']!r} makes a {type(made).__name__}, which does not learn night after "
            "night: name one such as qtorch.calibration.AdaptiveConformal."
        )
    if assets is not None:
        labels_of(made.groups, assets)
    return made


def calibrate(history: History, model: dict[str, Any], say: Callable[[str], None]) -> Calibration:
    """Corrects tonight's forecast, and gives the record of such corrections over the backtest.

    What the last earlier night of the output folder has learned is gone on with, by the outcomes known since; where
    that can't be, a fresh calibrator goes through the backtest, of whose dates the model has seen none. Its own folder
    is not read, so that a night that is run again comes to the same.

    Args:
        history: the night's.
        model: what is known about its model, as of `qtorch.nightly.models.model_for`.
        say: receives a line that tells where it started.

    Raises:
        ValueError: as of `make_calibrator`, or the model was trained on a date of the backtest.
    """
    config, forecast = history.config, history.forecast
    returns, known = history.outcomes
    seen = model["validated_through"] or model["trained_through"]
    settings = _settings_hash(config, model)
    start = history.backtest.start
    calibrator, earlier = (make_calibrator(config, forecast.assets, seen) for _ in range(2))
    issued = replay(calibrator, forecast.select(slice(start, None)), returns[start:], known[start:] - start)
    last = _last_night(config, history.panel.dates[-1])
    origin, note = "backtest", "no earlier night"
    if last is not None:
        try:
            load_state(earlier, last, settings, forecast.dates)
        except StateError as error:
            note = str(error)
        else:
            earlier.update(forecast, returns, known)
            calibrator, origin, note = earlier, last.name, "learned from the outcomes known since"
    say(f"calibration: from {origin} ({note})")
    days = len(history.rows) - 1 - start
    return Calibration(
        calibrator.apply(forecast.select(slice(-1, None))),
        Record.of(issued.select(slice(days)), history.returns[history.backtest], config.risk.levels),
        calibrator,
        settings,
        origin,
        note,
    )


def calibrate_portfolio(
    history: History, held: PortfolioRecord, exposures: Float64[Tensor, " N"], model: dict[str, Any]
) -> tuple[Record, CalibratedForecast]:
    """The same for the portfolio over the next session, from the record of tonight's positions.

    Positions change, so that nothing learned of those of earlier nights is gone on with.

    Returns:
        The record, and tonight's law of the profit as a forecast of one asset, in the unit of the exposures.
    """
    calibrator = make_calibrator(history.config, None, model["validated_through"] or model["trained_through"])
    dates, profits, levels = history.panel.dates, held.record.returns.float(), history.config.risk.levels
    # A day's forecast is of the row before. Tonight's own law is not needed to learn from the days before it.
    values = torch.cat([held.fan.values, held.fan.values[-1:]])
    made_on = dates[np.append(dates.get_indexer(held.dates) - 1, len(dates) - 1)]
    past = _of_one(Empirical(values[:, None, None]), made_on)
    returns = torch.cat([profits, profits.new_full((1, 1), torch.nan)])[:, None]
    known = torch.arange(1, len(made_on) + 1)[:, None, None]
    issued = replay(calibrator, past, returns, known)
    there = history.tonight.mask[0]
    scenarios = torch.where(there, history.scenarios(0), 0.0).flatten(0, 1) @ torch.where(there, exposures, 0.0)
    tonight = calibrator.apply(_of_one(Empirical(scenarios[None, None, None]), dates[-1:]))
    return Record.of(issued.select(slice(len(profits))), held.record.returns, levels), tonight


def with_calibration(frame: pd.DataFrame, tonight: CalibratedForecast) -> pd.DataFrame:
    """A table with columns asset, horizon and level, and the calibrated measures beside; NaN where there are none.

    Where the forecast has draws of its model the band of the calibrated value at risk is beside too (`BAND`).
    """
    own = tonight.to_frame()[["asset", "horizon", "level", "value_at_risk", "expected_shortfall"]]
    if tonight.draws > 1:
        own = with_band(own, tonight)
    renamed = own.rename(columns={column.removeprefix("calibrated_"): column for column in COLUMNS + BAND})
    return frame.merge(renamed, how="left", on=["asset", "horizon", "level"])


def changes(forecasts: pd.DataFrame) -> pd.Series:
    """By asset, how much the calibrated value at risk differs from the raw one, at the first horizon and top level."""
    at = (forecasts["level"] == forecasts["level"].max()) & (forecasts["horizon"] == forecasts["horizon"].min())
    rows = forecasts[at].set_index("asset")
    return (rows[COLUMNS[0]] / rows["value_at_risk"] - 1).dropna()


def changed_much(forecasts: pd.DataFrame) -> dict[str, float]:
    """Those of `changes` that are more than 25 % of the raw value at risk."""
    change = changes(forecasts)
    return {str(asset): float(x) for asset, x in change[change.abs() > MUCH].items()}


def _of_one(law: Distribution, dates: pd.DatetimeIndex) -> Forecast:
    """A law of batch shape `[D, 1, 1]` as the forecast of one asset over one session."""
    there = torch.ones(len(dates), 1, dtype=torch.bool)
    return Forecast(
        law, there, torch.full_like(there, int(State.OBSERVED), dtype=torch.uint8), dates, (PORTFOLIO,), (1,)
    )


def _last_night(config: NightlyConfig, date: pd.Timestamp) -> Path | None:
    """The folder of the last night before a date."""
    before = [folder for folder in Path(config.output).glob("as_of=*") if folder.name < f"as_of={date:%Y-%m-%d}"]
    return max(before, key=lambda folder: folder.name, default=None)


def _without_groups(spec: dict[str, Any]) -> dict[str, Any]:
    """The same without the groups of assets."""
    given = {name: value for name, value in (spec.get("init_args") or {}).items() if name != "groups"}
    return {**spec, "init_args": given}


def _settings_hash(config: NightlyConfig, model: dict[str, Any]) -> str:
    made_of = {
        "calibration": _without_groups(config.risk.calibration or {}),  # newcomers are added; others the state knows
        "levels": config.risk.levels,
        "model": [model["weights_sha256"], model["settings_sha256"]],
        "limits": [config.data.min_history, config.data.stale_sessions],
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
