"""Nolde and Ziegel's conditional calibration of the pair of value at risk and expected shortfall."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.risk.backtests.coverage import exceedances
from qtorch.risk.backtests.laws import chi2_sf, shortfall_variance
from qtorch.risk.backtests.result import BacktestResult
from qtorch.risk.backtests.series import check_level, check_overlap, check_shortfall, in_order, inflation, usable


def nolde_ziegel(
    returns: Float[Tensor, "T *series"],
    value_at_risk: Float[Tensor, "T *series"],
    expected_shortfall: Float[Tensor, "T *series"],
    level: float,
    mask: Bool[Tensor, "T *series"] | None = None,
    one_sided: bool = False,
    general: bool = False,
    scale: Float[Tensor, "T *series"] | None = None,
    overlap: int = 1,
    tail_index: float | None = 0.2,
) -> BacktestResult:
    """Test that VaR and ES are calibrated together.

    With L the loss, I = 1{L >= VaR} and p = 1 - level, the identification functions

        V1 = I - p,        V2 = I (L - VaR) / p - (ES - VaR)

    have mean zero given the past where both forecasts are right, and a positive mean where they are too small. (Nolde
    and Ziegel's V1 has the opposite sign.) Test functions W are

        simple:             V1, V2
        general, two-sided: V2 / scale - V1 (ES - VaR) / (p scale) = I (L - ES) / (p scale)
        general, one-sided: V1, V1 |VaR|, V2, V2 / scale.

    The general two-sided one is the exceedance residual of `mcneil_frey`: the number of exceedances is not tested.

    Two-sided: n mean(W)' Omega^-1 mean(W), chi-squared with as many degrees of freedom as functions. One-sided, against
    forecasts that are too small: the functions' t-ratios, the smallest of their normal p-values times their number
    (Bonferroni; the paper's Hommel is less strict only where several fail), and the statistic is the largest t-ratio.

    Omega is the functions' covariance under the null, where the excess over the VaR is generalised Pareto of shape xi,
    `tail_index`, and mean m = ES - VaR: Var V1 = p (1 - p), Cov(V1, V2) = m (1 - p) and Var V2 = m^2 [2 (1 - xi) / ((1
    - 2 xi) p) - 1]. None takes mean(W W'), as the paper does; estimated from a dozen exceedances the two-sided simple
    test then rejects 22 % of true models at 5 % (97.5 %, 250 sessions), 14 % (500) and 10 % (1,500), the general one 6
    to 10 %; without an exceedance it has no value (NaN).

    Windows that overlap: squared ratios are divided by the inflation of the functions' variance, as in `kupiec`.

    Size at 5 % with 250 to 1,500 sessions: 1.5 to 7 %, the least where returns are normal, whose excesses are lighter
    than the default's, the most at 99 % with few sessions; the general two-sided one below 1.7 % there, and 3 to 5 %
    where they are Student-t with 5 degrees of freedom. Ten-day windows every session: 1 to 7 %, the general two-sided
    one at most 3.5 %; taken as independent 13 to 42 %, and 5 to 23 %. Power of the general two-sided one against a
    scale 25 % larger than forecast: 41 % (normal, 99 %, 250 sessions) and 65 % (97.5 %, 500).

    Args:
        returns: in decimals.
        value_at_risk: positive losses at `level`.
        expected_shortfall: positive losses at `level`, at least the VaR.
        level: confidence, such as 0.975.
        mask: which days count, all by default; NaN never do.
        one_sided: whether only forecasts that are too small count against the model.
        general: whether to weigh by what was forecast.
        scale: volatility forecasts of the general test; the ES by default.
        overlap: sessions that each observation spans, where there is one every session.
        tail_index: shape of the excess beyond the VaR, below 1/2; 0 is exponential. None for the sample's covariance.

    Raises:
        ValueError: shapes differ; the level, the overlap or the tail index is out of range; an ES is not positive or
            lies below its VaR, or most VaR are negative.

    References:
        Nolde and Ziegel (2017), Elicitability and backtesting: perspectives for banking regulation, Annals of Applied
        Statistics 11, sections 2.2 and 2.3.
    """
    p = check_level(level)
    check_overlap(overlap)
    require(tail_index is None or tail_index < 0.5, "tail_index", tail_index, "give a shape below 1/2, or None")
    panels = {"returns": returns, "value_at_risk": value_at_risk, "expected_shortfall": expected_shortfall}
    there = usable(mask, **panels, **({} if scale is None else {"scale": scale}))
    check_shortfall(value_at_risk, expected_shortfall, there)
    unit = expected_shortfall if scale is None else scale
    there, y, var, es, unit = in_order(there, overlap, *(x.double() for x in (*panels.values(), unit)))
    hit = there & exceedances(y, var)
    unit = torch.where(there, unit, 1.0)
    v1 = torch.where(there, hit.double() - p, 0.0)
    v2 = torch.where(hit, -y - var, 0.0) / p - (es - var)
    # Every function is a V1 + b V2.
    one, none = torch.where(there, 1.0, 0.0).double(), torch.zeros_like(v1)
    if not general:
        weights = [(one, none), (none, one)]
    elif one_sided:
        weights = [(one, none), (var.abs(), none), (none, one), (none, one / unit)]
    else:
        weights = [((var - es) / (p * unit), one / unit)]
    functions = [a * v1 + b * v2 for a, b in weights]
    n = there.sum(0)
    rows = n.double().clamp(min=1)
    if tail_index is None:
        products = [[f * g for g in functions] for f in functions]
    else:
        m = (es - var).clamp(min=0.01 * es)
        c11, c12 = p * (1 - p), m * (1 - p)
        c22 = m**2 * shortfall_variance(p, tail_index)
        products = [[a * c * c11 + (a * d + b * c) * c12 + b * d * c22 for c, d in weights] for a, b in weights]
    mean = torch.stack([f.sum(0) / rows for f in functions])
    omega = torch.stack([torch.stack([torch.where(there, x, 0.0).sum(0) / rows for x in row]) for row in products])
    factor = torch.stack([inflation(f, there, p, overlap) for f in functions])
    tested = (n > 0) & (hit.any(0) | (tail_index is not None))
    size = omega.diagonal(dim1=0, dim2=1).movedim(-1, 0).clamp(min=1e-300).sqrt()
    if one_sided:
        t = mean / size * (rows / factor).sqrt()
        statistic = torch.where(tested, t.amax(0), torch.nan)
        p_value = (len(functions) * torch.special.ndtr(-statistic)).clamp(max=1)
        null = "VaR and ES are large enough"
    else:
        # Scaled by the functions' sizes, so that the unit of returns does not matter to what is singular.
        correlation = (omega / size / size.unsqueeze(1)).reshape(len(functions), len(functions), -1).permute(2, 0, 1)
        ratio = (mean / size).reshape(len(functions), -1).T.unsqueeze(-1)
        sound = tested.reshape(-1) & (torch.linalg.det(correlation) > 1e-10)
        identity = torch.eye(len(functions), dtype=ratio.dtype, device=ratio.device)
        solved = torch.linalg.solve(torch.where(sound.view(-1, 1, 1), correlation, identity), ratio)
        squared = torch.where(sound, (solved * ratio).sum((1, 2)), torch.nan)
        statistic = squared.view(n.shape) * rows / factor.amax(0)
        p_value = chi2_sf(statistic, len(functions))
        null = "VaR and ES are calibrated"
    kind = f"{'general' if general else 'simple'}, {'one' if one_sided else 'two'}-sided"
    return BacktestResult(f"Nolde-Ziegel conditional calibration ({kind})", statistic, p_value, n, null)
