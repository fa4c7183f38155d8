"""All that a night's report tells."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jaxtyping import Float64
from torch import Tensor

from qtorch.nightly.alarms import Reading
from qtorch.nightly.calibration import Calibration
from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.forecast_history import History, PortfolioRecord
from qtorch.nightly.record import Record


@dataclass(frozen=True, eq=False)
class Night:
    """All that a night's report tells.

    Attributes:
        date: the as-of date.
        config: the job's.
        unit: of the exposures, "weight" or "market_value".
        states: tonight's state of each asset.
        findings: of the panel.
        forecasts: the forecast table.
        portfolio: the portfolio table.
        backtest: the backtest table.
        history: the forecasts behind them, of all assets.
        records: by model.
        transforms: of the records' returns under the model, `[T, N]`.
        held: the portfolio's record, None without positions.
        model: what is known about the model.
        dependence: of the portfolio's assets, as of `qtorch.nightly.facts.dependence_facts`.
        trades: the allocation table, None without an allocation.
        allocation: its figures, as of `qtorch.nightly.allocation.allocation_facts`.
        unsure: how sure the model is of each asset, as of `qtorch.nightly.uncertainty.uncertainty_table`; None where it
            does not know.
        calibration: of the assets' risk, None without.
        held_calibrated: the portfolio's record with it, None without positions.
        readings: what the gates measured.
    """

    date: pd.Timestamp
    config: NightlyConfig
    unit: str
    states: pd.DataFrame
    findings: pd.DataFrame
    forecasts: pd.DataFrame
    portfolio: pd.DataFrame
    backtest: pd.DataFrame
    history: History
    records: dict[str, Record]
    transforms: Float64[Tensor, "T N"]
    held: PortfolioRecord | None
    model: dict[str, Any]
    dependence: dict[str, Any]
    trades: pd.DataFrame | None = None
    allocation: dict[str, Any] | None = None
    unsure: pd.DataFrame | None = None
    calibration: Calibration | None = None
    held_calibrated: Record | None = None
    readings: Sequence[Reading] = ()
