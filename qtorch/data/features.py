"""Causal inputs of an asset's own sessions: returns in units of volatility, volatilities, the market, gaps."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from qtorch.data.panel import Panel

_FLOOR = 1e-6  # of daily volatility: a price that never moves must not make a scale of zero


@dataclass(frozen=True)
class Features:
    """Which inputs a model sees; all bounded, so that no market can be far outside what training saw.

    In the order of the last axis, for session i of an asset with return r, and with v_d the EWMA of squared returns
    at decay d: ``r / sqrt(v_scale)``, its absolute value, log volatility ratios (one per decay), the log volatility
    level; the market's mean of ``r / sqrt(v_scale)`` over the assets observed at that row, its absolute value, the
    log dispersion, log volatility ratios of that mean (one per decay), its log volatility level; log gap days and
    log next gap days.

    Attributes:
        scale_decay: of the EWMA volatility in whose units returns are seen and predicted; .94 is RiskMetrics'.
        decays: of the EWMA variances whose ratios to that one are inputs.
        warm_up: sessions after an asset's first return that are no input and no target, while its scale settles.

    References:
        J.P. Morgan (1996), RiskMetrics Technical Document, for the EWMA.
    """

    scale_decay: float = 0.94
    decays: tuple[float, ...] = (0.5, 0.8, 0.985, 0.996)
    warm_up: int = 20

    def __post_init__(self) -> None:
        """Checks the settings."""
        object.__setattr__(self, "decays", tuple(self.decays))
        if not all(0 < decay < 1 for decay in (self.scale_decay, *self.decays)):
            raise ValueError(f"decays must lie inside (0, 1): scale_decay {self.scale_decay}, decays {self.decays}.")
        if self.warm_up < 1:
            raise ValueError(f"warm_up must be at least 1 session, not {self.warm_up}.")

    def __len__(self) -> int:
        """The number of inputs `F`."""
        return 9 + 2 * len(self.decays)


@dataclass(frozen=True, eq=False)
class SessionTable:
    """Every asset's own sessions without the holes, `L` of the longest; what windows are gathered from.

    Entry i of an asset is its i-th observed return; entries from `length` on are padding.

    Attributes:
        row: the panel row of each entry; `T` in the padding.
        length: the number of entries of each asset.
        close: closing prices; entry i+1's over entry i's is a one-session return.
        returns: simple returns, 0 in the padding.
        scale: causal EWMA volatility of the returns, through entry i.
        inputs: of `Features`, through entry i.
    """

    row: Int64[Tensor, "N L"]
    length: Int64[Tensor, " N"]
    close: Float64[Tensor, "N L"]
    returns: Float64[Tensor, "N L"]
    scale: Float32[Tensor, "N L"]
    inputs: Float32[Tensor, "N L F"]


def session_table(panel: Panel, features: Features) -> SessionTable:
    """Computes the inputs of every asset's sessions from a panel.

    The EWMAs are plain recursions over each asset's own sessions (scipy's lfilter, float64), started without any
    prior value and divided by the sum of their weights, so that no entry depends on a later one.
    """
    returns = panel.returns().cpu().numpy()
    row, length, own = _compact(returns)
    variance = _ewma(own**2, features.scale_decay)
    sigma = np.sqrt(np.maximum(variance, _FLOOR**2))
    z = own / sigma
    market = _market(_scatter(z, row, length, returns.shape), _scatter(sigma, row, length, returns.shape), features)
    take = np.minimum(row, len(returns) - 1)
    gap, next_gap = _gaps(panel, returns)
    asset = np.arange(len(row))[:, None]
    columns = [
        z,
        np.abs(z),
        *(_log_ratio(_ewma(own**2, decay), variance, _FLOOR**2) for decay in features.decays),
        np.clip(np.log(sigma / 0.01), -5, 3),
        *(series[take] for series in market),
        gap[take, asset],
        next_gap[take, asset],
    ]
    inside = np.arange(row.shape[1]) < length[:, None]
    inputs = np.stack(columns, axis=-1) * inside[:, :, None]
    close = panel.close.cpu().numpy()[take, asset]
    device = panel.values.device

    def tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device=device, dtype=dtype)

    return SessionTable(
        row=tensor(row, torch.int64),
        length=tensor(length, torch.int64),
        close=tensor(np.where(inside, close, np.nan), torch.float64),
        returns=tensor(own, torch.float64),
        scale=tensor(sigma, torch.float32),
        inputs=tensor(inputs, torch.float32),
    )


def _compact(returns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, lengths and values of each asset's observed returns, left-aligned: [N, L], [N], [N, L]."""
    there = ~np.isnan(returns.T)
    length = there.sum(1)
    order = np.argsort(~there, axis=1, kind="stable")[:, : max(1, length.max())]
    inside = np.arange(order.shape[1]) < length[:, None]
    row = np.where(inside, order, len(returns))
    own = np.where(inside, np.take_along_axis(returns.T, order, axis=1), 0.0)
    return row, length, own


def _scatter(own: np.ndarray, row: np.ndarray, length: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `_compact`: a [T, N] array, NaN where there is no entry."""
    grid = np.full((shape[0] + 1, shape[1]), np.nan)
    grid[row, np.arange(shape[1])[:, None]] = own
    return grid[:-1]


def _ewma(x: np.ndarray, decay: float) -> np.ndarray:
    """Exponentially weighted mean along the last axis, weights normalised from the first entry on."""
    from scipy.signal import lfilter

    weight = lfilter([1.0], [1.0, -decay], np.ones(x.shape[-1]))
    return lfilter([1.0], [1.0, -decay], x, axis=-1) / weight


def _log_ratio(variance: np.ndarray, reference: np.ndarray, floor: float) -> np.ndarray:
    """Log ratio of two volatilities, bounded by log(10) on either side."""
    lift = 0.01 * reference + floor
    return 0.5 * np.clip(np.log((variance + lift) / (reference + lift)), -2 * np.log(10), 2 * np.log(10))


def _market(z: np.ndarray, sigma: np.ndarray, features: Features) -> list[np.ndarray]:
    """The state of the market at each row, from the assets observed there."""
    there = ~np.isnan(z)
    count = np.maximum(there.sum(1), 1)
    mean = np.where(there, z, 0).sum(1) / count
    size = np.sqrt(np.where(there, (z * sigma) ** 2, 0).sum(1) / count)
    level = np.where(there, sigma, 0).sum(1) / count
    open_rows = there.any(1)

    def ewma(decay: float) -> np.ndarray:
        # Rows on which nothing trades keep the state of the row before; there is always one before the first use.
        out = np.full(len(mean), np.nan)
        out[open_rows] = _ewma(mean[open_rows] ** 2, decay)
        last = np.maximum.accumulate(np.where(open_rows, np.arange(len(out)), 0))
        return out[last]

    variance = ewma(features.scale_decay)
    return [
        mean,
        np.abs(mean),
        np.clip(np.log((size + _FLOOR) / (level + _FLOOR)), -3, 3),
        *(_log_ratio(ewma(decay), variance, 1e-6) for decay in features.decays),
        np.clip(0.5 * np.log(np.maximum(variance, 1e-6)), -3, 1),
    ]


def _gaps(panel: Panel, returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log calendar days since the asset's previous close and to its exchange's next session, at observed rows."""
    day = panel.session_day.cpu().numpy()
    latest = np.maximum.accumulate(day, axis=0)
    before = np.vstack([np.full((1, day.shape[1]), -1), latest[:-1]])
    gap = np.where(np.isnan(returns), 1, day - before)
    next_gap = np.where(day < 0, 1, panel.next_session_day.cpu().numpy() - day)
    return np.log(np.clip(gap, 1, 30)), np.log(np.clip(next_gap, 1, 30))


def horizon_returns(table: SessionTable, horizon: int) -> tuple[Float[Tensor, "N L"], Int64[Tensor, "N L"]]:
    """Simple returns over the next `horizon` own sessions of each entry, and the panel row where each is known.

    Returns:
        Returns, NaN where the future is not there, and rows, the padding's `T` there.
    """
    N, L = table.row.shape
    out = torch.full((N, L), torch.nan, dtype=torch.float64, device=table.close.device)
    known = torch.full_like(table.row, int(table.row.max()) + 1)
    if horizon < L:
        out[:, :-horizon] = table.close[:, horizon:] / table.close[:, :-horizon] - 1
        known[:, :-horizon] = torch.where(out[:, :-horizon].isnan(), known[:, :-horizon], table.row[:, horizon:])
    return out, known
