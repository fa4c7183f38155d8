"""A portfolio's risk, and what each of its assets contributes, from joint scenarios or an elliptical law."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.distributions import Distribution

from qtorch.distributions import MultivariateStudentT, StudentT
from qtorch.distributions.checks import require
from qtorch.risk.measures.estimates import (
    Estimate,
    checked_scenarios,
    estimate_expected_shortfall,
    estimate_value_at_risk,
    scenario_law,
)
from qtorch.risk.measures.tail import expected_shortfall, value_at_risk

_NEAR = 0.3  # half width of the kernel about the value at risk, as a share of the tail's mass
_PIECE = 1 << 22  # elements that are sorted at once


@dataclass(frozen=True, eq=False)
class PortfolioRisk:
    """The risk of one portfolio or a batch of them at one confidence level.

    Value at risk, expected shortfall, their standard errors and the components are in the unit of the exposures; the
    marginals are per unit of exposure, so that a component is its exposure times its marginal.

    Attributes:
        value_at_risk: positive loss.
        expected_shortfall: positive mean loss beyond it.
        component_value_at_risk: Euler contributions of the assets; they sum to `value_at_risk`.
        component_expected_shortfall: Euler contributions of the assets; they sum to `expected_shortfall`.
        marginal_value_at_risk: derivatives with respect to the exposures.
        marginal_expected_shortfall: derivatives with respect to the exposures.
        value_at_risk_error: Monte Carlo standard error, zero for a closed form.
        expected_shortfall_error: Monte Carlo standard error, zero for a closed form.
        component_expected_shortfall_error: Monte Carlo standard errors, zero for a closed form.
    """

    value_at_risk: Float64[Tensor, "*batch"]
    expected_shortfall: Float64[Tensor, "*batch"]
    component_value_at_risk: Float64[Tensor, "*batch N"]
    component_expected_shortfall: Float64[Tensor, "*batch N"]
    marginal_value_at_risk: Float64[Tensor, "*batch N"]
    marginal_expected_shortfall: Float64[Tensor, "*batch N"]
    value_at_risk_error: Float64[Tensor, "*batch"]
    expected_shortfall_error: Float64[Tensor, "*batch"]
    component_expected_shortfall_error: Float64[Tensor, "*batch N"]


def portfolio_risk(
    scenarios: Float[Tensor, "S N"],
    exposures: Float[Tensor, "*batch N"],
    level: float,
    weights: Float[Tensor, " S"] | None = None,
) -> PortfolioRisk:
    """Value at risk, expected shortfall and the assets' contributions, from weighted scenarios.

    Both measures are homogeneous of degree one in the exposures, so that by Euler's theorem exposure times derivative
    sums to the whole. The derivative of the expected shortfall is an asset's mean loss in the tail; that of the value
    at risk its E[loss of the asset | loss of the portfolio = VaR], a kernel estimate from the scenarios about it,
    scaled so that the components sum.

    Args:
        scenarios: simple returns.
        exposures: weights, or market values; a batch of portfolios shares the scenarios.
        level: confidence, such as 0.99.
        weights: of the scenarios, not negative, in any scale; equal by default.

    Raises:
        ValueError: a level, scenario or weight is outside its domain.

    References:
        Tasche (2000), Risk contributions and performance measurement, section 4.
        Glasserman (2005), Measuring marginal risk contributions in credit portfolios, for the standard errors.
    """
    x, w = checked_scenarios(scenarios, weights)
    w, exposures = w.flatten(), exposures.double()
    total = torch.einsum("sn,...n->s...", x, exposures)
    var = estimate_value_at_risk(total, level, weights)
    es, tail = _shortfall_and_tail(total, level, weights)
    near = _near(total, -var.value, w, 1 - level)
    marginal_var = -torch.einsum("s...,sn->...n", near, x)
    sum_near = (exposures * marginal_var).sum(-1, keepdim=True)
    whole = var.value.unsqueeze(-1)
    marginal_var = marginal_var * torch.where(sum_near == 0, 1.0, whole / torch.where(sum_near == 0, 1.0, sum_near))
    marginal_es = -torch.einsum("s...,sn->...n", tail, x)
    return PortfolioRisk(
        var.value,
        es.value,
        exposures * marginal_var,
        exposures * marginal_es,
        marginal_var,
        marginal_es,
        var.standard_error,
        es.standard_error,
        exposures.abs() * _tail_error(x, w, tail, marginal_var, marginal_es),
    )


def incremental_risk(
    scenarios: Float[Tensor, "S N"],
    exposures: Float[Tensor, "*batch N"],
    level: float,
    weights: Float[Tensor, " S"] | None = None,
) -> tuple[Float64[Tensor, "*batch N"], Float64[Tensor, "*batch N"]]:
    """What each position adds: the portfolio's risk minus that of the portfolio without it, exactly recomputed.

    Sorts the scenarios once per position: N S log S operations for each portfolio, some positions at a time.

    Args:
        scenarios: simple returns.
        exposures: weights, or market values; a batch of portfolios shares the scenarios.
        level: confidence, such as 0.99.
        weights: of the scenarios, not negative, in any scale; equal by default.

    Returns:
        Incremental value at risk and expected shortfall, in the unit of the exposures; negative for a hedge.

    Raises:
        ValueError: a level, scenario or weight is outside its domain.
    """
    x, _ = checked_scenarios(scenarios, weights)
    exposures = exposures.double()
    total = torch.einsum("sn,...n->s...", x, exposures)
    law = scenario_law(total, weights)
    step = max(1, _PIECE // max(total.numel(), 1))
    parts = []
    for start in range(0, x.shape[1], step):
        own = torch.einsum("sn,...n->s...n", x[:, start : start + step], exposures[..., start : start + step])
        without = scenario_law(total.unsqueeze(-1) - own, weights)
        parts.append((value_at_risk(without, level), expected_shortfall(without, level)))
    var, es = (torch.cat(part, dim=-1) for part in zip(*parts, strict=True))
    return value_at_risk(law, level).unsqueeze(-1) - var, expected_shortfall(law, level).unsqueeze(-1) - es


def elliptical_risk(
    standard: Distribution,
    loc: Float[Tensor, "*#batch N"],
    dispersion_product: Float[Tensor, "*batch N"],
    exposures: Float[Tensor, "*batch N"],
    level: float,
) -> PortfolioRisk:
    """The closed form for returns of an elliptical law, such as the normal or the multivariate Student-t.

    A portfolio w of X = loc + L Z, with Z spherical and Sigma = L L', is w'loc + sqrt(w'Sigma w) Z_1; so that a
    measure's derivative in w is -loc + Sigma w / sqrt(w'Sigma w) times the measure of Z_1.

    Args:
        standard: the law of Z_1: Normal(0, 1), or Student's t of the joint law's degrees of freedom; of no batch, or
            one that broadcasts against that of the exposures.
        loc: of the returns, in decimals.
        dispersion_product: Sigma w, without the N x N matrix where it is factors and a diagonal. Sigma is the
            covariance for the normal law, and for Student's t with nu degrees of freedom (nu - 2) / nu of it.
        exposures: w, weights or market values.
        level: confidence, such as 0.99.

    Raises:
        ValueError: the level is not inside (0, 1), or a portfolio's dispersion is negative.

    References:
        McNeil, Frey and Embrechts (2015), Quantitative Risk Management, theorem 8.28 and example 8.43.
    """
    w, product, centre = exposures.double(), dispersion_product.double(), loc.double()
    square = (w * product).sum(-1, keepdim=True)
    lowest = square.min().item() if square.numel() else 0.0
    require(lowest >= 0, "dispersion_product", lowest, "give Sigma w of a positive semi-definite Sigma")
    direction = torch.where(square > 0, product / torch.where(square > 0, square, 1.0).sqrt(), 0.0)
    var = -centre + direction * value_at_risk(standard, level).double().unsqueeze(-1)
    es = -centre + direction * expected_shortfall(standard, level).double().unsqueeze(-1)
    none = torch.zeros_like(square.squeeze(-1))
    return PortfolioRisk(
        (w * var).sum(-1), (w * es).sum(-1), w * var, w * es, var, es, none, none.clone(), torch.zeros_like(w)
    )


def student_t_risk(law: MultivariateStudentT, exposures: Float[Tensor, "... N"], level: float) -> PortfolioRisk:
    """The closed form for returns of a multivariate Student-t: `elliptical_risk`, in N R operations for R factors.

    Args:
        law: of the returns, in decimals.
        exposures: weights, or market values `[..., N]`; broadcasts against the law's batch, so that dates may have
            their own laws, portfolios or both.
        level: confidence, such as 0.99.

    Raises:
        ValueError: the level is not inside (0, 1), or the exposures do not end in the law's N.

    Example:
        >>> law = MultivariateStudentT(4.0, torch.zeros(2), 0.01 * torch.ones(2, 1), torch.full((2,), 1e-4))
        >>> student_t_risk(law, torch.tensor([100.0, 50.0]), 0.99).component_value_at_risk
        tensor([5.0071, 2.0028], dtype=torch.float64)
    """
    product = law.scale_product(exposures.double())
    return elliptical_risk(StudentT(law.df.double()), law.loc, product, exposures.expand(product.shape), level)


def _shortfall_and_tail(
    total: Float64[Tensor, "S *batch"], level: float, weights: Tensor | None
) -> tuple[Estimate, Float64[Tensor, "S *batch"]]:
    """Expected shortfall of profits, and each scenario's part in it: minus its derivative in the profits."""
    with torch.inference_mode(False), torch.enable_grad():
        total = total.detach().clone().requires_grad_()
        weights = None if weights is None else weights.clone()
        estimate = estimate_expected_shortfall(total, level, weights)
        (slope,) = torch.autograd.grad(estimate.value.sum(), total)
    return Estimate(estimate.value.detach(), estimate.standard_error.detach()), -slope


def _near(
    total: Float64[Tensor, "S *batch"], quantile: Float64[Tensor, "*batch"], w: Float64[Tensor, " S"], p: float
) -> Float64[Tensor, "S *batch"]:
    """Weights of the scenarios about the quantile: those within a share of the tail's mass, at least its neighbours."""
    order = total.argsort(dim=0)
    weight = w[order]
    middle = weight.cumsum(0) - weight / 2
    rank = (total < quantile).sum(0, keepdim=True)
    centre = middle.gather(0, rank)
    place = torch.arange(len(total), device=total.device).reshape(-1, *[1] * (total.ndim - 1))
    inside = ((middle - centre).abs() <= _NEAR * p) | ((place - rank).abs() <= 1)
    kernel = torch.where(inside, weight, 0.0)
    return torch.zeros_like(total).scatter(0, order, kernel / kernel.sum(0))


def _tail_error(
    x: Float64[Tensor, "S N"],
    w: Float64[Tensor, " S"],
    tail: Float64[Tensor, "S *batch"],
    at_quantile: Float64[Tensor, "*batch N"],
    marginal: Float64[Tensor, "*batch N"],
) -> Float64[Tensor, "*batch N"]:
    """Standard error of the marginal expected shortfalls, from influence functions.

    A scenario's influence is tail / w (loss - m) - (marginal - m), with m the mean loss at the value at risk, because
    moving the quantile moves the tail's edge, where an asset loses m.
    """
    squared = tail**2
    gap = marginal - at_quantile
    mass = squared.sum(0).unsqueeze(-1)
    first = -torch.einsum("s...,sn->...n", squared, x)
    second = torch.einsum("s...,sn->...n", squared, x**2)
    cross = torch.einsum("s...,s->...", tail, w).unsqueeze(-1)
    linear = -torch.einsum("s...,s,sn->...n", tail, w, x) - at_quantile * cross
    variance = second - 2 * at_quantile * first + at_quantile**2 * mass - 2 * gap * linear + gap**2 * (w**2).sum()
    return torch.sqrt(variance.clamp(min=0) / (1 - (w**2).sum()))
