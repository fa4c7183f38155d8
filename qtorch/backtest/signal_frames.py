"""Signals in frames: what a user's rows say, put in place or refused."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from qtorch.backtest.instants import instants, of_column, session_labels
from qtorch.data import DataError
from qtorch.data.errors import listing


def long_values(frame: pd.DataFrame) -> tuple[pd.DatetimeIndex, tuple[str, ...], np.ndarray, np.ndarray]:
    """Dates, assets, values and instants of a long frame.

    Raises:
        DataError: a column is missing, a date or an instant can't be read, or a cell has two values.
    """
    missing = [name for name in ("date", "asset", "value", "known_at") if name not in frame]
    if missing:
        raise DataError(
            f"no column {listing(map(repr, missing))}; the frame has {listing(frame.columns, most=20)}. A long frame "
            "has date, asset, value and known_at; a wide one a DatetimeIndex."
        )
    rows = pd.DataFrame({"asset": frame["asset"].astype(str).to_numpy(), "value": frame["value"].to_numpy(dtype=float)})
    rows["date"] = of_column(frame["date"])
    rows["known_at"] = frame["known_at"].reset_index(drop=True)
    twice = rows.duplicated(["date", "asset"], keep=False)
    if twice.any():
        cells = [f"{asset} {date:%Y-%m-%d}" for asset, date in rows.loc[twice, ["asset", "date"]].to_numpy()]
        raise DataError(f"more than one value for a date and asset: {listing(dict.fromkeys(cells))}. Keep one of each.")
    dates = session_labels(pd.DatetimeIndex(np.unique(rows["date"].to_numpy())))
    assets = tuple(dict.fromkeys(rows["asset"]))
    return dates, assets, *filled(rows, dates, assets)


def filled(rows: pd.DataFrame, dates: pd.DatetimeIndex, assets: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Values and instants of a long frame, put in place."""
    d, n = dates.get_indexer(pd.DatetimeIndex(rows["date"])), pd.Index(assets).get_indexer(pd.Index(rows["asset"]))
    values = np.full((len(dates), len(assets)), np.nan)
    stamps = np.full(values.shape, np.datetime64("NaT", "us"))
    values[d, n] = rows["value"].to_numpy()
    stamps[d, n] = instants(pd.DatetimeIndex(rows["known_at"]), None, None)
    return values, stamps


def own_exchanges(frame: pd.DataFrame) -> dict[str, str]:
    """The exchange of each asset of a long frame.

    Raises:
        DataError: there is no such column, or an asset has two.
    """
    if "exchange" not in frame:
        raise DataError("no column 'exchange'. Add one with the exchange's code (MIC), or pass exchange=...")
    pairs = frame[["asset", "exchange"]].drop_duplicates()
    twice = pairs["asset"][pairs["asset"].duplicated()]
    if len(twice):
        raise DataError(f"more than one exchange: {listing(twice.unique())}. Give each asset one.")
    return {str(asset): code for asset, code in pairs.to_numpy()}


def exchange_codes(assets: tuple[str, ...], exchange: str | Mapping[str, str] | None) -> list[str]:
    """The exchange's code of each asset.

    Raises:
        DataError: one has none.
    """
    if exchange is None:
        raise DataError("no exchanges. Give exchange=..., the exchange's code (MIC) of all assets or of each.")
    codes = dict.fromkeys(assets, exchange) if isinstance(exchange, str) else exchange
    without = [asset for asset in assets if not isinstance(codes.get(asset), str)]
    if without:
        raise DataError(f"no exchange of {listing(without)}. Give its code (MIC).")
    return [codes[asset] for asset in assets]
