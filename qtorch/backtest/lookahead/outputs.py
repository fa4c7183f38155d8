"""What a pipeline may answer with, as frames of dates by assets, one for each quantity."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from qtorch.backtest.track import Track
from qtorch.backtest.walk.result import Walk
from qtorch.data import Panel
from qtorch.errors import ArgumentError
from qtorch.forecast import Forecast
from qtorch.risk import value_at_risk

Outputs = dict[str, pd.DataFrame]
"""float64 frames of dates by assets, by the name of the quantity; what has no asset has the asset ``""``."""

_LEVELS = (0.05, 0.5, 0.99)  # of the values at risk that stand for a law: its place, its width and its tails
_SCENARIOS = 256


def outputs_of(answer: Any, panel: Panel) -> Outputs:
    """An answer as frames.

    Args:
        answer: a frame of dates by assets, or by names; one indexed by (date, asset), or with columns of these names,
            whose columns that are no numbers are left out; a series by date, or by (date, asset); a tensor or an array
            with the panel's `T` dates in front, and its assets next if that axis has as many; a `Forecast`, of which
            three values at risk and, if joint, one of the equally weighted portfolio are taken; a `Walk`, of which its
            forecast or its weights; a `Track`; what has a `to_frame()` that gives one of these frames, such as signals;
            or a dict of them. Times with a time zone are of the date that they have there: 20:00 in New York is of New
            York's date, not of the next one in UTC.
        panel: what the pipeline was given.

    Raises:
        TypeError: it is something else.
        ValueError: its dates cannot be read, or a date and asset come twice.
    """
    if isinstance(answer, Mapping):
        return {
            f"{name} {part}".strip(): frame
            for name, each in answer.items()
            for part, frame in outputs_of(each, panel).items()
        }
    if isinstance(answer, Forecast):
        return _forecast(answer)
    if isinstance(answer, Walk):
        return outputs_of(answer.answer, panel)
    if isinstance(answer, Track):
        return outputs_of({"": answer.to_frame(), "weights": answer.weights_frame()}, panel)
    if isinstance(answer, Tensor | np.ndarray):
        return _array(answer.detach().cpu().numpy() if isinstance(answer, Tensor) else answer, panel)
    if isinstance(answer, pd.Series):
        name = "" if answer.name is None else str(answer.name)
        frame = answer.to_frame(name)
        return _long(frame) if isinstance(answer.index, pd.MultiIndex) else {name: _dated(_numbers(frame, [""]))}
    if isinstance(answer, pd.DataFrame):
        return _frame(answer, panel)
    if hasattr(answer, "to_frame"):
        return outputs_of(answer.to_frame(), panel)
    raise TypeError(
        f"the pipeline gave a {type(answer).__name__}. Let it give a frame of dates by assets, a series by date, a "
        f"tensor with the panel's {len(panel.dates)} dates in front, a Forecast, a Walk, or a dict of these."
    )


def _forecast(forecast: Forecast) -> Outputs:
    found = {}
    for level in _LEVELS:
        values = forecast.value_at_risk(level).detach().cpu().numpy()
        for h, horizon in enumerate(forecast.horizons):
            name = f"value_at_risk({level}), horizon {horizon}"
            found[name] = pd.DataFrame(values[:, h], forecast.dates, list(forecast.assets))
    if forecast.distribution.event_shape:
        there = forecast.mask.double()
        profit = forecast.portfolio(there / there.sum(-1, keepdim=True).clamp(min=1), _SCENARIOS)
        values = value_at_risk(profit, 0.99).detach().cpu().double().numpy()
        for h, horizon in enumerate(forecast.horizons):
            name = f"value_at_risk(0.99) of equal weights, horizon {horizon}"
            found[name] = pd.DataFrame(values[:, h], forecast.dates, [""])
    return found


def _array(values: np.ndarray, panel: Panel) -> Outputs:
    T, N = panel.state.shape
    if values.ndim == 0 or values.ndim > 3 or len(values) != T:
        raise ArgumentError(
            f"the pipeline gave a tensor of shape {tuple(values.shape)} for a panel of {T} dates and {N} assets. Give "
            "the dates in front: [T], [T, N] or [T, N, F]; or a frame, if it is of other dates."
        )
    if values.ndim == 1:
        return {"": pd.DataFrame(values.astype(np.float64), panel.dates, [""])}
    by_asset = values.shape[1] == N
    if values.ndim == 2 and by_asset:
        return {"": pd.DataFrame(values.astype(np.float64), panel.dates, list(panel.assets))}
    blocks = np.moveaxis(values, 2, 0) if values.ndim == 3 else values.T[:, :, None]
    assets = list(panel.assets) if by_asset else [""] if values.ndim == 2 else [str(n) for n in range(values.shape[1])]
    return {str(k): pd.DataFrame(block.astype(np.float64), panel.dates, assets) for k, block in enumerate(blocks)}


def _frame(frame: pd.DataFrame, panel: Panel) -> Outputs:
    if isinstance(frame.index, pd.MultiIndex):
        return _long(frame)
    if {"date", "asset"} <= set(frame.columns):
        return _long(frame.set_index(["date", "asset"]))
    if "date" in frame.columns:
        frame = frame.set_index("date")
    if isinstance(frame.columns, pd.MultiIndex) and frame.columns.nlevels == 2:
        for level in (1, 0):
            names = frame.columns.get_level_values(level)
            if set(names) <= set(panel.assets):
                other = frame.columns.get_level_values(1 - level)
                return {
                    str(name): _dated(_numbers(frame.loc[:, other == name], names[other == name]))
                    for name in other.unique()
                }
    if set(frame.columns) <= set(panel.assets):
        return {"": _dated(_numbers(frame, frame.columns))}
    return {str(name): _dated(_numbers(frame[[name]], [""])) for name in frame.columns}


def _long(frame: pd.DataFrame) -> Outputs:
    """Of a frame indexed by (date, asset)."""
    if frame.index.nlevels != 2:
        raise ArgumentError(f"the pipeline gave a frame with {frame.index.nlevels} index levels: give (date, asset).")
    if not frame.index.is_unique:
        date, asset = frame.index[frame.index.duplicated()][0]
        raise ArgumentError(
            f"the pipeline gave {asset} on {date} twice. Give one row a date and asset, and more columns."
        )
    numbers = frame.select_dtypes(["number", "bool"])
    if numbers.columns.empty:
        raise ArgumentError(f"the pipeline gave a frame without a column of numbers; it has {list(frame.columns)}.")
    found = {}
    for name in numbers.columns:
        wide = numbers[name].unstack()
        found[str(name)] = _dated(_numbers(wide, wide.columns))
    return found


def _numbers(frame: pd.DataFrame, assets: Any) -> pd.DataFrame:
    try:
        values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"the pipeline gave what are no numbers in {list(frame.columns)[:5]} ({error}).") from error
    return pd.DataFrame(values, frame.index, [str(asset) for asset in assets])


def _dated(frame: pd.DataFrame) -> pd.DataFrame:
    index = frame.index
    if not isinstance(index, pd.DatetimeIndex):
        raise ArgumentError(
            f"the pipeline gave rows of {index.dtype} ({list(index[:3])}), not of dates: index them by a DatetimeIndex."
        )
    if index.tz is not None:
        frame = frame.set_axis(index.tz_localize(None), axis=0)  # UTC may be on another date
    if not (frame.index.is_unique and frame.columns.is_unique):
        raise ArgumentError("the pipeline gave a date or an asset twice. Give one row a date and one column an asset.")
    return frame.sort_index()


def value_of(outputs: Outputs, column: str, date: pd.Timestamp, asset: str) -> float:
    """One output; NaN where it is not there."""
    frame = outputs.get(column)
    if frame is None or asset not in frame.columns or date not in frame.index:
        return float("nan")
    return float(frame.to_numpy()[frame.index.get_loc(date), frame.columns.get_loc(asset)])
