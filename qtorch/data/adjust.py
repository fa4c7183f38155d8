"""Adjusts prices for corporate actions, so that every ratio of two of an asset's prices is a total return."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from qtorch.data.errors import DataError, listing
from qtorch.data.rows import PRICES

UNADJUSTED = "unadjusted_close"
_ASSETS = 256  # handled at once
_NONE = {"split": 1.0, "dividend": 0.0}  # what says that there is none, as 0 and NaN do


class Events:
    """Splits and dividends as rows state them; those of a session count once, as they were first known.

    As with prices, the latest of the versions that are known at the same as-of holds, and a version known only at a
    later one revises nothing: what a panel's row has taken for a return stays one. Where the first versions state none,
    the first that does counts, on the row that knows it.

    Args:
        kinds: ``"split"``, ``"dividend"`` or both.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        self._stated: dict[str, list[pd.DataFrame]] = {kind: [] for kind in kinds}

    def note(self, rows: pd.DataFrame, t: np.ndarray, n: np.ndarray) -> None:
        """Notes what rows state, given the panel's row that knows each and the column of its asset."""
        known = rows["known_at"].astype("int64").to_numpy() if "known_at" in rows else np.zeros(len(rows), np.int64)
        for kind, parts in self._stated.items():
            value = rows[kind].to_numpy()
            acts = (value > 0) & (value != _NONE[kind])
            there = ~np.isnan(value) if "known_at" in rows else acts  # a version can take an action back
            part = rows.loc[there, ["date", "row"]].assign(t=t[there], n=n[there], known=known[there])
            parts.append(part.assign(value=value[there], acts=acts[there]))

    def grids(
        self, shape: tuple[int, int], since: np.ndarray, refused: pd.Series, refuse: Callable[[pd.DataFrame, str], None]
    ) -> dict[str, np.ndarray]:
        """The actions `[T, N]` by the row that knows them, as of `adjust`.

        Args:
            shape: `T` rows, `N` assets.
            since: the date of each asset's first price, up to which no action matters.
            refused: numbers of the rows of which nothing is taken.
            refuse: told the rows that state an action of the same asset, date and instant, and its kind.
        """
        counted: dict[str, pd.DataFrame] = {}
        for kind, parts in self._stated.items():
            stated = pd.concat(parts, ignore_index=True)
            stated = stated[~stated["row"].isin(refused)]
            twice = stated["acts"] & stated.duplicated(["n", "date", "known", "acts"], keep=False)
            if twice.any():
                refuse(stated[twice], kind)
            versions = stated[~twice].sort_values(["n", "date", "t", "known", "acts"])
            latest = versions.drop_duplicates(["n", "date", "t"], keep="last")
            first = latest[latest["acts"]].drop_duplicates(["n", "date"])
            counted[kind] = first[first["date"].to_numpy() > since[first["n"]]]
        if len(counted) == 2:  # a dividend after a split that becomes known with it is paid on more shares
            met = counted["dividend"].reset_index().merge(counted["split"], on=["t", "n"], suffixes=("", "_of_split"))
            shares = met[met["date_of_split"] < met["date"]].groupby("index")["value_of_split"].prod()
            counted["dividend"] = counted["dividend"].assign(
                value=lambda paid: paid["value"].mul(shares, fill_value=1.0)
            )
        grids = {kind: np.full(shape, _NONE[kind]) for kind in counted}
        for kind, first in counted.items():
            combine = np.multiply if kind == "split" else np.add
            combine.at(grids[kind], (first["t"], first["n"]), first["value"])
        return grids


def adjust(
    values: np.ndarray,
    fields: Sequence[str],
    actions: Mapping[str, np.ndarray],
    assets: Sequence[str],
    dates: pd.DatetimeIndex,
) -> None:
    """Multiplies open, high, low and close by the asset's adjustment factor, in place.

    With `adj_close` the factor is adj_close / close, the vendor's. Else it is made of splits and dividends, forwards
    from 1 at the first price, so that no price depends on a later action: from one observed close P_a to the next P_b,
    with U the running product of split ratios and d the cash per share held before the day's split, the gross return is

        g = (U_b P_b + sum_{a < t <= b} d_t U_{t-1}) / (U_a P_a),

    cash being reinvested at the next observed close; the adjusted close is the first close times the product of the g.

    Args:
        values: `[T, N, F]`, prices as they were traded.
        fields: names of the last axis.
        actions: `[T, N]` each, by the row on which they are known: `adj_close` over close (NaN where none), `split`
            (new shares for an old one, 1 where none), `dividend` (cash for a share, 0 where none).
        assets: names, for errors.
        dates: of the rows, for errors.

    Raises:
        DataError: an asset has an adj_close on some of its prices only.

    References:
        CRSP (2001), Data Descriptions Guide, the definition of holding period returns.
    """
    at = fields.index("close")
    prices = [fields.index(name) for name in PRICES if name in fields]
    for start in range(0, values.shape[1], _ASSETS):
        block = slice(start, start + _ASSETS)
        close = values[:, block, at].copy()
        part = {name: grid[:, block] for name, grid in actions.items()}
        factor = _of_events(close, part.get("split"), part.get("dividend"))
        if "adj_close" in part:
            ratio, there = part["adj_close"], ~np.isnan(close)
            given = (~np.isnan(ratio) & there).any(0)
            lacking = there & np.isnan(ratio) & given
            if lacking.any():
                t, n = np.nonzero(lacking)
                cells = [f"{assets[start + j]} {dates[i]:%Y-%m-%d}" for i, j in zip(t[:5], n[:5], strict=True)]
                raise DataError(
                    f"no adj_close beside the close: {listing(cells, total=len(t))}. Give it for every price of an "
                    "asset or for none, or pass adjust=False."
                )
            factor = np.where(given, ratio, factor)
        for field in prices:
            values[:, block, field] *= factor


def _of_events(close: np.ndarray, split: np.ndarray | None, dividend: np.ndarray | None) -> np.ndarray:
    """Adjustment factors from splits and dividends; 1 before the first price."""
    U = np.ones_like(close) if split is None else np.cumprod(split, axis=0)
    before = np.vstack([np.ones((1, close.shape[1])), U[:-1]])
    K = np.zeros_like(close) if dividend is None else np.cumsum(dividend * before, axis=0)
    P = U * close
    there = ~np.isnan(close)
    row = np.where(there, np.arange(len(close))[:, None], -1)
    last = np.maximum.accumulate(np.vstack([np.full((1, close.shape[1]), -1), row[:-1]]), axis=0)
    first = last < 0
    held = np.maximum(last, 0)
    gross = (P + K - np.take_along_axis(K, held, 0)) / np.take_along_axis(P, held, 0)
    growth = np.cumsum(np.where(there & ~first, np.log(gross, where=there & ~first, out=np.zeros_like(P)), 0.0), axis=0)
    start = np.take_along_axis(close, there.argmax(0)[None], 0)
    return np.where(there, start * np.exp(growth) / close, 1.0)
