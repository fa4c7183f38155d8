"""How sure tonight's model is of each asset, and of which it is oddly unsure."""

from typing import Any

import numpy as np
import pandas as pd
import torch

from qtorch.distributions import Decomposition
from qtorch.forecast import Forecast

COLUMNS = [
    "aleatoric_volatility",
    "epistemic_volatility",
    "epistemic_share",
    "value_at_risk_low",
    "value_at_risk_high",
]
MASS = 0.9  # of the band of the value at risk
MANY = 20  # draws, of which each end of the band leaves one out; of fewer the band is their range
_FENCE = 3.0  # interquartile ranges above the upper quartile: Tukey's far out
_LARGER = 1.5  # than what it is compared with, at least, so that no difference of rounding is extreme
_PAST = 250  # sessions of an asset's own past
_SHORT = 0.5  # of the universe's median history
_ENOUGH = 5  # assets of which a universe is made


def with_uncertainty(frame: pd.DataFrame, tonight: Forecast) -> pd.DataFrame:
    """A forecast's table, of one date, with what is the market's and what is the model's doubt.

    Args:
        frame: with columns asset, horizon and level.
        tonight: the forecast it is of.

    Returns:
        The frame, with further columns if the forecast has draws of its model, else as it is: aleatoric_volatility and
        epistemic_volatility, whose squares sum to that of volatility; epistemic_share, of the variance; and
        value_at_risk_low and value_at_risk_high, the 5 and 95 % quantiles of the draws' values at risk, as of
        `Forecast.epistemic_interval`: of fewer than 20 draws nearly their range.
    """
    if tonight.draws == 1:
        return frame
    parts = tonight.decompose()
    values = {
        "aleatoric_volatility": parts.aleatoric.sqrt(),
        "epistemic_volatility": parts.epistemic.sqrt(),
        "epistemic_share": _share(parts),
    }
    h, n = _places(frame, tonight)
    frame = frame.assign(**{name: value[0, h, n].cpu().numpy() for name, value in values.items()})
    return with_band(frame, tonight)


def with_band(frame: pd.DataFrame, tonight: Forecast) -> pd.DataFrame:
    """A table of one date with the band of each value at risk: value_at_risk_low and value_at_risk_high.

    Args:
        frame: with columns asset, horizon and level.
        tonight: the forecast it is of, which has draws of its model.
    """
    frame, (h, n) = frame.copy(), _places(frame, tonight)
    for level in frame["level"].unique().tolist():
        rows = (frame["level"] == level).to_numpy()
        for column, bound in zip(COLUMNS[3:], tonight.epistemic_interval(level, MASS), strict=True):
            frame.loc[rows, column] = bound[0, h, n].cpu().numpy()[rows]
    return frame


def past_shares(forecast: Forecast) -> pd.DataFrame | None:
    """Epistemic shares of the first horizon at the last 250 as-of dates before tonight, a column for each asset.

    Args:
        forecast: tonight's, its last, and those before.

    Returns:
        NaN where there was no forecast; None where the forecast has no draws.
    """
    past = forecast.over(forecast.horizons[0]).select(slice(-1 - _PAST, -1))
    if past.draws == 1:
        return None
    share = _share(past.decompose())[:, 0]
    return pd.DataFrame(share.cpu().numpy(), index=past.dates, columns=list(past.assets))


def uncertainty_table(forecasts: pd.DataFrame, past: pd.DataFrame, states: pd.DataFrame) -> pd.DataFrame:
    """The band of tonight's value at risk of each asset, and why it is flagged where it is.

    An asset is flagged where its epistemic share, or the width of the band relative to the value at risk, is beyond
    Tukey's outer fence of tonight's universe (three interquartile ranges above the upper quartile) and half as large
    again as the median; or where its share is above all of its own last 250 sessions' and half as large again as their
    median.

    Args:
        forecasts: the forecast table, with the columns of `with_uncertainty`.
        past: epistemic shares before, as of `past_shares`.
        states: tonight's state of each asset, with its returns and sessions without a price.

    Returns:
        One row for each asset with a forecast, over the first horizon at the top level, the widest bands first: asset,
        level, value_at_risk, the columns of `with_uncertainty`, relative_width, flags (empty where there is none).
    """
    at = (forecasts["level"] == forecasts["level"].max()) & (forecasts["horizon"] == forecasts["horizon"].min())
    rows = forecasts[at & forecasts["value_at_risk"].notna()]
    frame = rows[["asset", "level", "value_at_risk", *COLUMNS]].reset_index(drop=True)
    width = (frame["value_at_risk_high"] - frame["value_at_risk_low"]) / frame["value_at_risk"]
    share = frame["epistemic_share"]
    wide, doubtful = _far_out(width), _far_out(share)
    flags = []
    for k, asset in enumerate(frame["asset"]):
        found = []
        if wide[k]:
            found.append(f"the band of its VaR is {width[k]:.0%} of it, the universe's median is {width.median():.0%}")
        if doubtful[k]:
            found.append(f"doubt is {share[k]:.1%} of its variance, the universe's median is {share.median():.1%}")
        own = past[asset].dropna()
        if len(own) == _PAST and share[k] > max(own.max(), _LARGER * own.median()):
            found.append(f"doubt is {share[k]:.1%} of its variance, above all of its last {_PAST} sessions")
        flags.append("; ".join(found + (_why(asset, states) if found else [])))
    frame = frame.assign(relative_width=width, flags=flags)
    return frame.sort_values("relative_width", ascending=False, kind="stable", ignore_index=True)


def uncertainty_facts(table: pd.DataFrame, draws: int) -> dict[str, Any]:
    """What the manifest tells of an uncertainty table.

    Args:
        table: as of `uncertainty_table`.
        draws: of the model, that the bands are of.

    Returns:
        The mass between the bands' quantiles, the draws they are of, and by flagged asset the flags.
    """
    flagged = table[table["flags"] != ""]
    return {"mass": MASS, "draws": draws, "flags": dict(zip(flagged["asset"], flagged["flags"], strict=True))}


def _places(frame: pd.DataFrame, tonight: Forecast) -> tuple[list[int], list[int]]:
    """Of each row, where its horizon and its asset stand in the forecast."""
    place = {asset: n for n, asset in enumerate(tonight.assets)}
    return [tonight.horizons.index(h) for h in frame["horizon"]], [place[asset] for asset in frame["asset"]]


def _share(parts: Decomposition) -> torch.Tensor:
    return parts.epistemic / (parts.aleatoric + parts.epistemic)


def _far_out(values: pd.Series) -> np.ndarray:
    if len(values) < _ENOUGH:
        return np.zeros(len(values), dtype=bool)
    low, middle, high = values.quantile([0.25, 0.5, 0.75])
    return (values > max(high + _FENCE * (high - low), _LARGER * middle)).to_numpy()


def _why(asset: str, states: pd.DataFrame) -> list[str]:
    """What may be the reason."""
    due = states[states["status"] != "retired"]
    usual, returns, quiet = due["returns"].median(), int(due["returns"][asset]), int(due["sessions_without"][asset])
    reasons = []
    if returns < _SHORT * usual:
        reasons.append(f"short history: {returns} returns, the universe's median is {usual:.0f}")
    if quiet:
        reasons.append(f"{quiet} sessions without a price")
    return reasons
