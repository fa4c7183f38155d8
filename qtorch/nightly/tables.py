"""The tables that a night writes."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from qtorch.distributions import take
from qtorch.nightly.forecast_history import History
from qtorch.nightly.schema import stamped
from qtorch.nightly.uncertainty import with_uncertainty
from qtorch.risk import portfolio_risk, scenario_errors, stand_alone_risk

PORTFOLIO = "PORTFOLIO"
ERRORS = ["value_at_risk_error", "expected_shortfall_error"]


def forecast_table(history: History, states: pd.DataFrame, levels: Sequence[float]) -> pd.DataFrame:
    """Tonight's risk of every asset of the universe, those without a forecast included, with state and status.

    Where the model knows how sure it is there are the columns of `with_uncertainty` beside.
    """
    frame = with_uncertainty(history.alone.to_frame(levels), history.alone).drop(columns=["date", "state"])
    due = states[states["status"] != "retired"][["exchange", "state", "last_price", "status", "reason"]]
    absent = due.index.difference(pd.Index(frame["asset"]))
    index = pd.MultiIndex.from_product([absent, history.alone.horizons, levels], names=["asset", "horizon", "level"])
    frame = pd.concat([frame, index.to_frame(index=False)]).merge(due, left_on="asset", right_index=True)
    return frame.sort_values(["asset", "horizon", "level"], ignore_index=True).astype({"asset": "str"})


def portfolio_table(history: History, exposures: pd.Series, unit: str, states: pd.DataFrame) -> pd.DataFrame:
    """Tonight's risk of the portfolio and its contributions by asset, per horizon and level.

    The row PORTFOLIO holds the whole; a position's own row holds its stand-alone risk and its Euler contributions,
    which sum to the portfolio's. Positions without a forecast are left out of the whole, whose status names them. Where
    the scenarios are a copula's, the whole has standard errors, from independent randomisations of them.
    """
    tonight, assets = history.tonight, list(exposures.index)
    place = {asset: n for n, asset in enumerate(tonight.assets)}
    column = [place[asset] for asset in assets]
    there = tonight.mask[0, column]
    exposure = torch.tensor(exposures.to_list(), dtype=torch.float64)
    held = torch.where(there, exposure, 0.0)
    without = exposures.index[~there.numpy() & (exposures != 0).to_numpy()]
    status = "ok" if without.empty else "without " + ", ".join(without)
    parts = []
    for h, horizon in enumerate(tonight.horizons):
        scenarios = torch.where(there, history.scenarios(h)[..., column], 0.0)
        for level in history.config.risk.levels:
            risk = portfolio_risk(scenarios.flatten(0, 1), held, level)
            var, es = risk.value_at_risk.item(), risk.expected_shortfall.item()
            alone = [
                torch.where(there, x, torch.nan)
                for x in stand_alone_risk(take(tonight.marginals, (0, h, column)), exposure, level)
            ]
            errors = scenario_errors(scenarios @ held, level)
            nothing = [math.nan] * len(assets)
            rows = {
                "horizon": horizon,
                "level": level,
                "asset": [PORTFOLIO, *assets],
                "exposure": [held.sum().item(), *exposures],
                "unit": unit,
                "value_at_risk": [var, *alone[0].tolist()],
                "expected_shortfall": [es, *alone[1].tolist()],
                "component_value_at_risk": [var, *risk.component_value_at_risk.tolist()],
                "component_expected_shortfall": [es, *risk.component_expected_shortfall.tolist()],
                ERRORS[0]: [errors[0].item(), *nothing],
                ERRORS[1]: [errors[1].item(), *nothing],
                "status": [status, *states.loc[assets, "status"]],
            }
            parts.append(pd.DataFrame(rows))
    return pd.concat(parts, ignore_index=True).astype({"asset": "str", "unit": "str", "status": "str"})


def no_portfolio() -> pd.DataFrame:
    """The portfolio table of a night without positions."""
    columns = ["horizon", "level", "asset", "exposure", "unit", "value_at_risk", "expected_shortfall"]
    return pd.DataFrame(
        columns=[*columns, "component_value_at_risk", "component_expected_shortfall", *ERRORS, "status"]
    )


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Writes a table; the same rows give the same bytes."""
    table = stamped(pa.Table.from_pandas(frame, preserve_index=False), path.stem)
    pq.write_table(table, path, compression="zstd")
