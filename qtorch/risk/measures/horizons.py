"""Risk over several sessions: scaling rules, and scenarios drawn session by session."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError


def variance_factor(horizon: int, autocorrelation: float | Tensor = 0.0) -> Tensor:
    """Variance of the sum of `horizon` returns over that of one: h + 2 sum_k (h - k) rho^k for an AR(1).

    Args:
        horizon: sessions.
        autocorrelation: rho of neighbouring returns, inside (-1, 1).

    Returns:
        The factor, in float64, of the shape of rho.

    Raises:
        ValueError: the horizon is not positive, or rho is outside its domain.

    References:
        Lo (2002), The statistics of Sharpe ratios, Financial Analysts Journal 58, equation 19.
    """
    require(horizon >= 1, "horizon", horizon, "give one session or more")
    rho = torch.as_tensor(autocorrelation, dtype=torch.float64)
    require(bool((rho.abs() < 1).all()), "autocorrelation", autocorrelation, "give correlations inside (-1, 1)")
    factor = torch.full_like(rho, float(horizon))
    power = torch.ones_like(rho)
    for k in range(1, horizon):
        power = power * rho
        factor = factor + 2 * (horizon - k) * power
    return factor


def scale_to_horizon(
    risk: Tensor, horizon: int, mean: float | Tensor = 0.0, autocorrelation: float | Tensor = 0.0
) -> Tensor:
    """Value at risk or expected shortfall of `horizon` sessions from that of one, by the square root of time.

    risk_h = sqrt(factor) (risk_1 + mean) - h mean, with the `variance_factor` of the autocorrelation, which is h
    without any. Exact for sums of normal returns of constant variance; too high for fat tails, which thin as returns
    add up, and too low or high where volatility is below or above its long-run level. `filtered_scenarios` knows both.

    Args:
        risk: positive loss over one session, in decimals.
        horizon: sessions.
        mean: return of a session, in decimals.
        autocorrelation: of neighbouring returns, inside (-1, 1).

    Raises:
        ValueError: the horizon is not positive, or the autocorrelation is outside its domain.

    References:
        Danielsson and Zigrand (2006), On time-scaling of risk and the square-root-of-time rule, Journal of Banking and
        Finance 30.
    """
    return torch.sqrt(variance_factor(horizon, autocorrelation)) * (risk + mean) - horizon * mean


def horizon_scenarios(
    returns: Float[Tensor, "S *batch"],
    horizon: int,
    draws: int,
    generator: torch.Generator,
    block: int = 1,
    weights: Float[Tensor, " S"] | None = None,
) -> Float64[Tensor, "D *batch"]:
    """Scenarios of compounded returns over `horizon` sessions, each session a draw from one-session scenarios.

    All assets of a session come from the same scenario, so that their dependence is kept. Blocks of neighbouring
    scenarios, which wrap around the end, keep the dependence over time inside a block too, where the order of the
    scenarios is that of history. The law of independent sessions is found up to the Monte Carlo error that
    `estimate_value_at_risk` and its like state; that the scenarios are few themselves is not part of it.

    Args:
        returns: simple returns of one session, in decimals.
        horizon: sessions.
        draws: how many scenarios to make, `D`.
        generator: of the draws.
        block: sessions that are drawn together.
        weights: of the scenarios (of a block's first), not negative, in any scale; equal by default.

    Returns:
        Simple returns over the horizon.

    Raises:
        ValueError: a horizon, block or number of draws is not positive.

    References:
        Politis and Romano (1992), A circular block-resampling procedure for stationary data, for the blocks.
    """
    _checked(horizon, draws)
    require(1 <= block <= len(returns), "block", block, f"give 1 to {len(returns)} sessions")
    S = len(returns)
    mass = torch.ones(S, dtype=torch.float64) if weights is None else weights.double().cpu()
    blocks = -(-horizon // block)
    start = torch.multinomial(mass, draws * blocks, replacement=True, generator=generator).reshape(draws, blocks)
    row = (start.unsqueeze(-1) + torch.arange(block)).flatten(1)[:, :horizon] % S
    row = row.to(returns.device)
    growth = torch.ones(draws, *returns.shape[1:], dtype=torch.float64, device=returns.device)
    for session in range(horizon):
        growth = growth * (1 + returns[row[:, session]].double())
    return growth - 1


def filtered_scenarios(
    residuals: Float[Tensor, "R *batch"],
    variance: Float[Tensor, "*batch"],
    horizon: int,
    draws: int,
    generator: torch.Generator,
    *,
    omega: float | Tensor = 0.0,
    alpha: float | Tensor = 0.06,
    gamma: float | Tensor = 0.0,
    beta: float | Tensor = 0.94,
    mean: float | Tensor = 0.0,
) -> Float64[Tensor, "D *batch"]:
    """Filtered historical simulation: past standardised residuals under a variance that answers to each draw.

    r = mean + sqrt(v) z, then v <- omega + (alpha + gamma 1{z < 0}) v z^2 + beta v: a GJR-GARCH, or the RiskMetrics
    EWMA by default. All assets of a session come from the same past date, so that their dependence is history's.

    Args:
        residuals: past standardised residuals of mean zero and variance one.
        variance: forecast for the first session.
        horizon: sessions.
        draws: how many scenarios to make, `D`.
        generator: of the draws.
        omega: constant of the variance; this and the following broadcast against the batch.
        alpha: weight of the last squared shock.
        gamma: more weight if it was negative.
        beta: weight of the last variance.
        mean: return of a session, in decimals.

    Returns:
        Simple returns over the horizon, compounded.

    Raises:
        ValueError: a horizon or number of draws is not positive, a variance is not, or a residual is not finite.

    References:
        Barone-Adesi, Giannopoulos and Vosper (1999), VaR without correlations for portfolios of derivative securities,
        Journal of Futures Markets 19.
        Glosten, Jagannathan and Runkle (1993), On the relation between the expected value and the volatility of the
        nominal excess return on stocks, Journal of Finance 48, for the variance.
    """
    _checked(horizon, draws)
    if not residuals.isfinite().all():
        raise ArgumentError(f"{int((~residuals.isfinite()).sum())} residuals are not finite: fill or drop their dates.")
    require(bool((variance > 0).all()), "variance", variance.min().item(), "give positive variances")
    row = torch.randint(len(residuals), (draws, horizon), generator=generator).to(residuals.device)
    v = variance.double().expand(draws, *variance.shape)
    growth = torch.ones_like(v)
    for session in range(horizon):
        z = residuals[row[:, session]].double()
        growth = growth * (1 + mean + torch.sqrt(v) * z)
        v = omega + (alpha + gamma * (z < 0)) * v * z**2 + beta * v
    return growth - 1


def _checked(horizon: int, draws: int) -> None:
    require(horizon >= 1, "horizon", horizon, "give one session or more")
    require(draws >= 1, "draws", draws, "give a positive number, such as 10_000")
