"""Risk measures of weighted scenarios with their Monte Carlo standard errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from qtorch.distributions import Empirical
from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError
from qtorch.risk.measures.expectiles import expectile
from qtorch.risk.measures.spectral import Spectrum, spectral_risk
from qtorch.risk.measures.tail import checked_level, expected_shortfall, value_at_risk


@dataclass(frozen=True, eq=False)
class Estimate:
    """A risk measure of scenarios and how well they determine it.

    The standard errors are those of independent draws, first order in the number of scenarios: for draws of a
    simulation they are the Monte Carlo error; for overlapping or autocorrelated history they are too small.

    Attributes:
        value: positive losses in decimals.
        standard_error: of the value.
    """

    value: Float64[Tensor, "*batch"]
    standard_error: Float64[Tensor, "*batch"]


def estimate_value_at_risk(
    scenarios: Float[Tensor, "S *batch"], level: float, weights: Float[Tensor, " S"] | None = None
) -> Estimate:
    """Value at risk of scenarios, as that of their `Empirical` distribution.

    The standard error is half the width of Woodruff's interval of one standard error of the distribution function
    at the quantile, mapped through the quantile function: no density is estimated. Where fewer than about two
    scenarios lie beyond the value at risk, the interval ends at the worst of them and the error is too small.

    Args:
        scenarios: returns in decimals.
        level: confidence, such as 0.99.
        weights: of the scenarios, not negative, in any scale (importance weights); equal by default.

    Raises:
        ValueError: a level, scenario or weight is outside its domain.

    References:
        Woodruff (1952), Confidence intervals for medians and other position measures, JASA 47.
    """
    x, w = checked_scenarios(scenarios, weights)
    p = 1 - checked_level(level)
    law = scenario_law(x, weights)
    quantile = -value_at_risk(law, level)
    error = _standard_error((x <= quantile).double() - p, w)
    # Masses stay inside the sample's; a quantile at mass 0 would be minus infinity.
    low, high = (p - error).clamp(min=1e-12), (p + error).clamp(max=1.0)
    return Estimate(-quantile, (law.icdf(high) - law.icdf(low)) / 2)


def estimate_expected_shortfall(
    scenarios: Float[Tensor, "S *batch"], level: float, weights: Float[Tensor, " S"] | None = None
) -> Estimate:
    """Expected shortfall of scenarios, as that of their `Empirical` distribution.

    The standard error is that of the mean of max(q - X, 0) / p over the scenarios; that q is itself estimated does
    not matter to first order, because the expected shortfall is stationary in it.

    Args:
        scenarios: returns in decimals.
        level: confidence, such as 0.975.
        weights: of the scenarios, not negative, in any scale (importance weights); equal by default.

    Raises:
        ValueError: a level, scenario or weight is outside its domain.

    References:
        Manistre and Hancock (2005), Variance of the CTE estimator, North American Actuarial Journal 9.
        Rockafellar and Uryasev (2000), Optimization of conditional value-at-risk, theorem 1, for the stationarity.
    """
    x, w = checked_scenarios(scenarios, weights)
    law = scenario_law(x, weights)
    shortfall = (-value_at_risk(law, level) - x).clamp(min=0) / (1 - level)
    return Estimate(expected_shortfall(law, level), _standard_error(shortfall, w))


def estimate_spectral_risk(
    scenarios: Float[Tensor, "S *batch"],
    spectrum: Spectrum,
    breaks: Sequence[float] = (),
    weights: Float[Tensor, " S"] | None = None,
) -> Estimate:
    """Spectral risk of scenarios: minus the sorted scenarios, weighted by the spectrum's integral over their masses.

    The standard error is that of an L-statistic, by its influence function: int (F(t) - 1{x <= t}) phi(F(t)) dt.

    Args:
        scenarios: returns in decimals.
        spectrum: a density of left-tail masses in (0, 1] that does not rise.
        breaks: masses inside (0, 1), ascending, where the spectrum jumps or has a kink.
        weights: of the scenarios, not negative, in any scale (importance weights); equal by default.

    Raises:
        ValueError: the spectrum is not one, or a scenario or weight is outside its domain.

    References:
        Acerbi (2002), Spectral measures of risk, Journal of Banking and Finance 26, definition 3.2.
        Serfling (1980), Approximation Theorems of Mathematical Statistics, section 8.1.1.
    """
    x, w = checked_scenarios(scenarios, weights)
    value = spectral_risk(scenario_law(x, weights), spectrum, breaks)
    x, order = x.sort(dim=0)
    w = w.expand_as(x).gather(0, order)
    edges = torch.cat([torch.zeros_like(w[:1]), w.cumsum(0)]).clamp(max=1.0)
    between = spectrum(edges[1:-1]).double() * x.diff(dim=0)
    influence = torch.cat([torch.zeros_like(x[:1]), between.cumsum(0)])
    return Estimate(value, _standard_error(influence, w))


def estimate_expectile(
    scenarios: Float[Tensor, "S *batch"], level: float, weights: Float[Tensor, " S"] | None = None
) -> Estimate:
    """Expectile value at risk of scenarios, as that of their `Empirical` distribution.

    The standard error is that of an M-estimator: of tau (x - e)+ - (1 - tau) (e - x)+ over minus its mean slope.

    Args:
        scenarios: returns in decimals.
        level: confidence, such as 0.99855.
        weights: of the scenarios, not negative, in any scale (importance weights); equal by default.

    Raises:
        ValueError: a level, scenario or weight is outside its domain.

    References:
        Newey and Powell (1987), Asymmetric least squares estimation and testing, Econometrica 55, theorem 3.
    """
    x, w = checked_scenarios(scenarios, weights)
    e = -expectile(scenario_law(x, weights), level)
    slope = torch.where(x > e, 1 - level, level)
    return Estimate(-e, _standard_error(slope * (x - e), w) / (w * slope).sum(0))


def checked_scenarios(
    scenarios: Float[Tensor, "S *batch"], weights: Float[Tensor, " S"] | None
) -> tuple[Float64[Tensor, "S *batch"], Float64[Tensor, "S *ones"]]:
    """Scenarios in float64, and their weights scaled to sum to one and shaped to broadcast against them.

    Raises:
        ValueError: a scenario is not finite, or the weights are negative, not finite or all zero.
    """
    S = scenarios.shape[0]
    require(S > 1, "scenarios", S, "give two or more")
    bad = ~scenarios.isfinite()
    if bad.any():
        at = tuple(bad.nonzero()[0].tolist())
        raise ArgumentError(
            f"{int(bad.sum())} of {bad.numel()} scenarios are not finite, the first at {at}: fill holes."
        )
    return scenarios.double(), scenario_weights(scenarios, weights).reshape(-1, *[1] * (scenarios.ndim - 1))


def scenario_weights(scenarios: Float[Tensor, "S ..."], weights: Float[Tensor, " S"] | None) -> Float64[Tensor, " S"]:
    """Weights of scenarios scaled to sum to one; equal where none are given.

    Raises:
        ValueError: the weights are negative, not finite or all zero.
    """
    S = scenarios.shape[0]
    w = torch.ones(S, dtype=torch.float64, device=scenarios.device) if weights is None else weights.double()
    if not ((w >= 0).all() and w.isfinite().all() and (w > 0).any()):
        raise ArgumentError("Weights of scenarios must be finite, not negative, and not all zero.")
    return w / w.sum()


def scenario_law(scenarios: Float64[Tensor, "S *batch"], weights: Float[Tensor, " S"] | None) -> Empirical:
    """The distribution that has the mass of each scenario at its value."""
    values = scenarios.movedim(0, -1)
    return Empirical(values) if weights is None else Empirical(values, weights.double().expand_as(values))


def _standard_error(influence: Float64[Tensor, "S *batch"], w: Float64[Tensor, "S ..."]) -> Float64[Tensor, "*batch"]:
    """Of a weighted mean: sum w^2 (x - mean)^2, over 1 - sum w^2 so that equal weights give s^2 / S."""
    centred = influence - (w * influence).sum(0)
    return torch.sqrt((w**2 * centred**2).sum(0) / (1 - (w**2).sum(0)))
