"""Bayer and Dimitriadis' regression of realised on forecast expected shortfalls."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.risk.backtests.laws import chi2_sf, shortfall_variance
from qtorch.risk.backtests.result import BacktestResult
from qtorch.risk.backtests.series import check_level, check_overlap, check_shortfall, in_order, inflation, usable

_BANDWIDTHS = (0.4, 0.2, 0.1, 0.05)  # of the smoothed quantile regression, in units of the ES
_STEPS, _LONGEST, _NEAR_ENOUGH = 40, 0.3, 1e-4  # Newton steps for each bandwidth, the longest and the last
_NEAR = 4  # the quantile regression looks at this many times the expected exceedances, and 20 more


class EsRegression(NamedTuple):
    """The joint test of intercept and slope, the one-sided test of an intercept alone, and what was estimated.

    Attributes:
        joint: intercept 0 and slope 1.
        intercept: of ES + constant, against a positive constant.
        coefficients: intercept, in the unit of returns, and slope of the joint regression.
    """

    joint: BacktestResult
    intercept: BacktestResult
    coefficients: Float64[Tensor, "2 *series"]

    def __str__(self) -> str:
        return f"{self.joint}\n\n{self.intercept}"


def es_regression(
    returns: Float[Tensor, "T *series"],
    value_at_risk: Float[Tensor, "T *series"] | None,
    expected_shortfall: Float[Tensor, "T *series"],
    level: float,
    mask: Bool[Tensor, "T *series"] | None = None,
    overlap: int = 1,
    tail_index: float | None = 0.2,
) -> EsRegression:
    """Tests that the expected shortfall of the loss L given the forecast is the forecast.

    q_t = b0 + b1 VaR_t is a quantile regression of the losses; then Z_t = q_t + max(L_t - q_t, 0) / p is regressed on
    (1, ES_t), both with weights that make up for the size of ES_t. Intercept 0 and slope 1 are tested by a Wald
    statistic, chi-squared with two degrees of freedom, one where the ES is constant. The intercept test fixes both
    slopes at 1 and is one-sided, against an ES that is too small. Without VaR the ES stands in the first step too,
    Bayer and Dimitriadis' strict test. NaN where n p < 1 or with fewer than 5 observations.

    What differs from their estimator, as in the R package esback: it minimises one joint loss over both equations, here
    the two are solved one after the other, for all series at once. The mean of Z does not change with q at the first
    order, so that the limit law of the second step is the same as if the quantile were known (Barendse 2020), and the
    quantile regression may be smoothed, by a Gaussian kernel of width 0.05 ES, and solved by Newton's method.

    The joint statistic's covariance is (X'X)^-1 X' diag(s_t^2) X (X'X)^-1 with the variance under the null of Z_t /
    ES_t, s_t^2 = m_t^2 [2 (1 - xi) / ((1 - 2 xi) p) - 1], m_t = 1 - VaR_t / ES_t, of a generalised Pareto excess of
    shape xi, `tail_index`. None takes squared residuals instead, the sandwich of the paper; a dozen exceedances
    estimate it so badly that the test then rejects 46 % (97.5 %, 250 sessions), 30 % (500) and 15 % (1,500) of true
    models.

    Windows that overlap: statistics are divided by the inflation of the variance of Z's residuals, as in `kupiec`.

    Size at 5 % with 250 to 1,500 sessions: joint 1 to 2 % where returns are normal and 3 to 5 % where they are
    Student-t with 5 degrees of freedom, 2 and 7 % with a volatility that varies much; the strict test, whose excess is
    estimated, 7 to 17 %; intercept 1 to 6 %, 8 to 10 % at 99 % and few sessions. Ten-day windows every session: joint
    at most 4 %, intercept at most 7 %; taken as independent 25 to 49 %.

    Args:
        returns: in decimals.
        value_at_risk: positive losses at `level`; None for the strict test.
        expected_shortfall: positive losses at `level`, at least the VaR.
        level: confidence, such as 0.975.
        mask: which days count, all by default; NaN never do.
        overlap: sessions that each observation spans, where there is one every session.
        tail_index: shape of the excess beyond the VaR, below 1/2; 0 is exponential. None for the sandwich covariance.

    Raises:
        ValueError: shapes differ; the level, the overlap or the tail index is out of range; an ES is not positive or
            lies below its VaR.

    References:
        Bayer and Dimitriadis (2022), Regression-based expected shortfall backtesting, Journal of Financial Econometrics
        20; Barendse (2020), Efficiently weighted estimation of tail and interquantile expectations; Fernandes, Guerre
        and Horta (2021), Smoothing quantile regressions, JBES 39.
    """
    p = check_level(level)
    check_overlap(overlap)
    require(tail_index is None or tail_index < 0.5, "tail_index", tail_index, "give a shape below 1/2, or None")
    var = expected_shortfall if value_at_risk is None else value_at_risk
    there = usable(mask, returns=returns, value_at_risk=var, expected_shortfall=expected_shortfall)
    check_shortfall(var, expected_shortfall, there)
    there, y, var, es = in_order(there, overlap, returns.double(), var.double(), expected_shortfall.double())
    n = there.sum(0)
    rows = n.double().clamp(min=1)
    unit = (es.sum(0) / rows).clamp(min=1e-300)
    loss, var, es = -y / unit, var / unit, torch.where(there, es / unit, 1.0)
    tested = (n > 4) & (n.double() * p >= 1)

    # Everything is divided by the ES, which makes the residuals alike.
    inverse = torch.where(there, 1 / es, 0.0)
    loss, share = loss * inverse, var * inverse
    against = inverse - share * (inverse * share).sum(0) / (share**2).sum(0).clamp(min=1e-300)
    q = _quantile(loss, [share, against], torch.stack([torch.ones_like(rows), torch.zeros_like(rows)]), there, p)
    d = torch.where(there, q + (loss - q).clamp(min=0) / p - 1, 0.0)
    # d = intercept / ES + (slope - 1); the first regressor is taken from its mean.
    middle = inverse.sum(0) / rows
    x = torch.where(there, inverse - middle, 0.0)
    xx = (x * x).sum(0)
    varies = xx > 1e-10 * rows * middle**2
    g = torch.where(varies, (x * d).sum(0) / xx.clamp(min=1e-300), 0.0)
    c = d.sum(0) / rows
    coefficients = torch.stack([g * unit, 1 + c - g * middle])
    if tail_index is None:
        square = torch.where(there, d - c - g * x, 0.0) ** 2
    else:
        excess = (1 - (q if value_at_risk is None else share)).clamp(min=0.01)
        square = torch.where(there, excess**2, 0.0) * shortfall_variance(p, tail_index)
    squared = _quadratic_form(rows * c, xx * g, square, x, varies) / inflation(d, there, p, overlap)
    joint = torch.where(tested, squared, torch.nan)

    q = share + _quantile(loss - share, [inverse], torch.zeros_like(rows).unsqueeze(0), there, p)
    # The intercept's estimating equation: sum of (Z - ES - intercept) / ES^2 = 0.
    w = torch.where(there, q + (loss - q).clamp(min=0) / p - 1, 0.0) * inverse
    t = w.sum(0) / ((w * w).sum(0).clamp(min=1e-300) * inflation(w, there, p, overlap)).sqrt()
    t = torch.where(tested, t, torch.nan)
    return EsRegression(
        BacktestResult(
            "ES regression", joint, chi2_sf(joint, 1 + varies.double()), n, "realised ES is the forecast ES"
        ),
        BacktestResult("ES regression, intercept", t, torch.special.ndtr(-t), n, "the ES is large enough"),
        torch.where(tested, coefficients, torch.nan),
    )


def _quadratic_form(m0: Tensor, m1: Tensor, square: Tensor, x: Tensor, varies: Tensor) -> Tensor:
    """The form m' B^-1 m with B = sum of square (1, x)'(1, x); of m0 alone where x does not vary."""
    b00, b01, b11 = square.sum(0).clamp(min=1e-300), (square * x).sum(0), (square * x * x).sum(0)
    determinant = (b00 * b11 - b01**2).clamp(min=1e-300)
    both = (m0**2 * b11 - 2 * m0 * m1 * b01 + m1**2 * b00) / determinant
    return torch.where(varies, both, m0**2 / b00)


def _quantile(loss: Tensor, columns: list[Tensor], start: Tensor, there: Tensor, p: float) -> Tensor:
    """Fitted quantiles of upper tail mass p: sum of x (Phi(r / h) - p) = 0 by Newton's method, with falling h.

    Args:
        loss: in units of the ES, `[R, *series]`.
        columns: regressors, one or two, orthogonal; 0 where there is no row.
        start: coefficients, `[K, *series]`.
        there: usable rows.
        p: probability of an exceedance.
    """
    n = there.sum(0).clamp(min=1)
    near = min(len(loss), int(_NEAR * p * (int(n.max()) if n.numel() else 1)) + 20)
    # Losses far below the quantile add 0 to Phi and its derivative: only the highest against the start are looked at.
    gap = loss - sum(x * c for x, c in zip(columns, start, strict=True))
    order = torch.where(there, gap, -torch.inf).topk(near, dim=0).indices
    due = torch.stack([p * x.sum(0) for x in columns]).reshape(len(columns), n.numel())
    top = loss.gather(0, order).reshape(near, n.numel())
    tails = torch.stack([x.gather(0, order) for x in columns]).reshape(len(columns), near, n.numel())
    b, ridge = start.reshape(len(columns), n.numel()).clone(), 1e-9 * n.reshape(-1)
    for h in _BANDWIDTHS:
        left = torch.arange(b.shape[1], device=b.device)
        x, y, longest, before = tails, top, torch.full_like(ridge, _LONGEST), torch.zeros_like(b)
        for _ in range(_STEPS):
            u = (y - (x * b[:, None, left]).sum(0)) / h
            slope = (x * torch.special.ndtr(u)).sum(1) - due[:, left]
            step = _newton(x, torch.exp(-(u**2) / 2) / (h * (2 * torch.pi) ** 0.5), slope, ridge[left])
            # Between two losses the smoothed function is nearly straight: steps that turn back are shortened.
            longest = torch.where((slope * before).sum(0) < 0, longest / 2, longest)
            before = step * (longest / torch.maximum(step.abs().amax(0), longest))
            b[:, left] += before
            moving = before.abs().amax(0) > _NEAR_ENOUGH
            if not moving.any():
                break
            if 2 * moving.sum() < len(left):
                left, longest, before = left[moving], longest[moving], before[:, moving]
                x, y = x[:, :, moving], y[:, moving]
    b = b.view(start.shape)
    return torch.stack([x * c for x, c in zip(columns, b, strict=True)]).sum(0)


def _newton(x: Tensor, density: Tensor, slope: Tensor, ridge: Tensor) -> Tensor:
    """The solution of (sum of density x x' + ridge) step = slope, for one or two regressors `[K, R, N]`."""
    h00 = (x[0] ** 2 * density).sum(0) + ridge
    if len(x) == 1:
        return slope / h00
    h01, h11 = (x[0] * x[1] * density).sum(0), (x[1] ** 2 * density).sum(0) + ridge
    determinant = h00 * h11 - h01**2
    return torch.stack([h11 * slope[0] - h01 * slope[1], h00 * slope[1] - h01 * slope[0]]) / determinant
