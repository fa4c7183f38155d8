"""Scores of joint forecasts that are given as scenarios."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.risk.measures.estimates import scenario_weights
from qtorch.risk.scores.crps import half_difference
from qtorch.risk.scores.observed import observed

_PIECE = 1 << 22  # elements of a tensor of pairs at once


def energy_score(
    scenarios: Float[Tensor, "S *batch N"],
    outcomes: Float[Tensor, "*batch N"],
    weights: Float[Tensor, " S"] | None = None,
    mask: Bool[Tensor, "*batch N"] | None = None,
    fair: bool = False,
) -> Float[Tensor, "*batch"]:
    """E||X - y|| - E||X - X'|| / 2 with Euclidean norms over the assets; for one asset the CRPS of the scenarios.

    S^2 N operations a forecast, some scenarios at a time; S log S for one asset. It tells wrong means and variances
    better than wrong dependence, for which see `variogram_score`.

    Args:
        scenarios: of the joint forecast, in the unit of the outcomes.
        outcomes: realised; NaN where none. Assets without an outcome are left out of both norms, which scores the
            forecast of the others.
        weights: of the scenarios, not negative, in any scale; equal by default.
        mask: which assets count; all by default.
        fair: estimate E||X - X'|| from pairs of different scenarios, so that the score's mean is that of the law that
            the scenarios are drawn from, for any number of them.

    Returns:
        A loss for each joint outcome; NaN where no asset counts or a scenario of one that does is NaN.

    Raises:
        ValueError: a weight is outside its domain, or there are too few scenarios.

    References:
        Gneiting and Raftery (2007), Strictly proper scoring rules, prediction, and estimation, JASA 102, equation 22.
        Ferro (2014), Fair scores for ensemble forecasts, Quarterly Journal of the Royal Meteorological Society 140.
    """
    w = _weights(scenarios, weights, 2 if fair else 1)
    there, (y,) = observed(mask, outcomes)
    x = torch.where(there, scenarios, 0.0).movedim(0, -2)  # [*batch, S, N]
    y = torch.where(there, y, 0.0)
    first = (w * _norm(x - y.unsqueeze(-2))).sum(-1)
    if x.shape[-1] == 1:
        values, order = x.squeeze(-1).sort(dim=-1)
        half = half_difference(values, w[order])
    else:
        step = max(1, _PIECE // max(x[..., 0].numel(), 1))
        half = torch.zeros_like(first)
        for part, weight in zip(x.split(step, dim=-2), w.split(step), strict=True):
            distance = torch.cdist(part, x, compute_mode="donot_use_mm_for_euclid_dist")
            half = half + 0.5 * torch.einsum("i,j,...ij->...", weight, w, distance)
    if fair:
        half = half / (1 - (w**2).sum())
    return torch.where(there.any(-1), first - half, torch.nan)


def variogram_score(
    scenarios: Float[Tensor, "S *batch N"],
    outcomes: Float[Tensor, "*batch N"],
    order: float = 0.5,
    pair_weights: Float[Tensor, "N N"] | None = None,
    weights: Float[Tensor, " S"] | None = None,
    mask: Bool[Tensor, "*batch N"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Sum over pairs of assets of w_ij (|y_i - y_j|^p - E|X_i - X_j|^p)^2: how well the dependence is forecast.

    Blind to a shift that all assets share. S N^2 operations a forecast, some scenarios at a time.

    Args:
        scenarios: of the joint forecast, in the unit of the outcomes.
        outcomes: realised; NaN where none. Pairs with an asset without an outcome are left out.
        order: p, positive; small orders are less disturbed by outliers.
        pair_weights: of the pairs, both orders of a pair counting; one for each by default.
        weights: of the scenarios, not negative, in any scale; equal by default.
        mask: which assets count; all by default.

    Returns:
        A loss for each joint outcome; NaN where no pair counts or a scenario of one that does is NaN.

    Raises:
        ValueError: the order is not positive, or a weight is outside its domain.

    References:
        Scheuerer and Hamill (2015), Variogram-based proper scoring rules for probabilistic forecasts of multivariate
        quantities, Monthly Weather Review 143, equation 14.
    """
    require(order > 0, "order", order, "give a positive number, such as 0.5")
    w = _weights(scenarios, weights, 1)
    there, (y,) = observed(mask, outcomes)
    x = torch.where(there, scenarios, 0.0)
    i, j = torch.triu_indices(x.shape[-1], x.shape[-1], offset=1, device=x.device)
    both = there[..., i] & there[..., j]
    step = max(1, _PIECE // max(both.numel(), 1))
    expected = torch.zeros_like(y[..., i])
    for part, weight in zip(x.split(step), w.split(step), strict=True):
        expected = expected + torch.einsum("s,s...->...", weight, _power(part[..., i] - part[..., j], order))
    pair = torch.ones(len(i), dtype=x.dtype, device=x.device) * 2
    if pair_weights is not None:
        pair = pair_weights[i, j] + pair_weights[j, i]
    score = (torch.where(both, pair, 0.0) * (_power(y[..., i] - y[..., j], order) - expected) ** 2).sum(-1)
    return torch.where(both.any(-1), score, torch.nan)


def _weights(scenarios: Tensor, weights: Tensor | None, least: int) -> Float[Tensor, " S"]:
    S = scenarios.shape[0]
    require(least <= S, "scenarios", S, f"give {least} or more")
    return scenario_weights(scenarios, weights).to(scenarios.dtype)


def _norm(x: Tensor) -> Tensor:
    """Euclidean norm over the last dimension, whose gradient at zero is zero."""
    return _power((x * x).sum(-1), 0.5)


def _power(x: Tensor, order: float) -> Tensor:
    """|x|^order, whose gradient at zero is zero where that of the power would be infinite."""
    zero = x == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, x).abs() ** order)
