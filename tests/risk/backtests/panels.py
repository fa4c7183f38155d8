"""Panels of a true model for the backtests' tests."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor


@dataclass(frozen=True)
class Forecasts:
    """Returns beside right forecasts of them, `[T, N]`, and their transforms."""

    returns: Tensor
    value_at_risk: Tensor
    expected_shortfall: Tensor
    scale: Tensor
    pit: Tensor

    @property
    def risk(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.returns, self.value_at_risk, self.expected_shortfall


def forecasts(sessions: int, series: int, level: float, df: float | None = None, seed: int = 0, wrong: float = 1.0):
    """Normal or Student-t returns with a volatility that wanders; their scale is `wrong` times what was forecast."""
    rng = np.random.default_rng(seed)
    log_scale = np.zeros((sessions, series))
    for t in range(1, sessions):
        log_scale[t] = 0.97 * log_scale[t - 1] + 0.15 * rng.standard_normal(series)
    scale = 0.01 * np.exp(log_scale)
    z = rng.standard_normal((sessions, series)) if df is None else rng.standard_t(df, (sessions, series))
    var, es = normal_tail(level) if df is None else student_tail(level, df)
    law = stats.norm if df is None else stats.t(df)
    tensors = (wrong * scale * z, var * scale, es * scale, scale, law.cdf(wrong * z))
    return Forecasts(*(torch.from_numpy(x) for x in tensors))


def normal_tail(level: float) -> tuple[float, float]:
    """VaR and ES of the standard normal."""
    var = -stats.norm.ppf(1 - level)
    return var, stats.norm.pdf(var) / (1 - level)


def student_tail(level: float, df: float) -> tuple[float, float]:
    """VaR and ES of the standard Student-t."""
    var = -stats.t.ppf(1 - level, df)
    return var, stats.t.pdf(var, df) / (1 - level) * (df + var**2) / (df - 1)


def holes(shape: tuple[int, ...], share: float = 0.15, seed: int = 1) -> Tensor:
    """A mask with that share of holes."""
    return torch.from_numpy(np.random.default_rng(seed).random(shape) > share)


def share_rejected(p_value: Tensor, size: float = 0.05) -> float:
    """Of the series that could be tested."""
    tested = p_value.isfinite()
    return ((p_value < size) & tested).sum().item() / max(tested.sum().item(), 1)
