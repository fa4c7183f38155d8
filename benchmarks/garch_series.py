"""Markets of simulated GJR-GARCH returns with Hansen's skewed errors, for benchmarks of volatility models."""

import numpy as np
import pandas as pd
import torch

from qtorch.distributions import HansenSkewedT


def simulate(T: int, N: int, seed: int = 0) -> torch.Tensor:
    """Daily returns in per cent `[T, N]`, each series with parameters of its own."""
    torch.manual_seed(seed)

    def between(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(N, dtype=torch.float64)

    alpha, gamma, persistence = between(0.01, 0.06), between(0.02, 0.15), between(0.95, 0.995)
    beta, variance = persistence - alpha - gamma / 2, between(1.0, 4.0)
    omega, rows = variance * (1 - persistence), []
    law = HansenSkewedT(between(4.0, 10.0), between(-0.15, 0.05))
    for z in law.sample(torch.Size([T + 300])).double():
        e = variance.sqrt() * z
        rows.append(0.03 + e)
        variance = omega + (alpha + gamma * (e < 0)) * e**2 + beta * variance
    return torch.stack(rows[300:])


def market(T: int, N: int, seed: int = 0) -> pd.DataFrame:
    """Closes of `N` such series on `T + 1` business days."""
    returns = simulate(T, N, seed).numpy() / 100
    days = pd.bdate_range("2000-01-03", periods=T + 1)
    closes = np.exp(np.concatenate([np.zeros((1, N)), returns]).cumsum(0))
    return pd.DataFrame(closes, index=days, columns=[f"A{n:04d}" for n in range(N)])
