"""Parameters of series that are too short, or too still, for a fit of their own."""

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from qtorch.models.garch.estimation import start
from qtorch.models.garch.specification import Parameters, Specification


def pooled(
    parameters: Parameters,
    fitted: Bool[Tensor, " N"],
    group: Int64[Tensor, " N"],
    mean: Float64[Tensor, " N"],
    variance: Float64[Tensor, " N"],
    specification: Specification,
) -> Parameters:
    """The parameters with those of series that were not fitted taken from the others of their group.

    Each free coordinate (persistence, the share of news in it, the negative residuals' share of that, 1 / nu, lambda,
    and mu in standard deviations) is the median over the group's fitted series; omega is such that the unconditional
    variance is the series' own. Medians of shares are shares, so that the bounds hold. A group without a fitted series
    has the persistence and news of RiskMetrics, near enough: .985 and .06 of it, three quarters of them from negative
    residuals with gamma, nu = 8, lambda = 0 and mu = 0.

    Args:
        parameters: of fitted series; the others' do not matter.
        fitted: which they are.
        group: series with the same number share medians, 0 or more.
        mean: of each series.
        variance: of each series, positive.
        specification: of all.
    """
    if bool(fitted.all()):
        return parameters
    zero = torch.zeros_like(mean)
    usual = start(zero, variance, 0.06, 0.985, 0.75 if specification.o else 0.5)
    free = specification.free(
        Parameters(*(torch.where(fitted, a, b) for a, b in zip(parameters, usual, strict=True))), zero, variance
    )
    for of in group[~fitted].unique():
        here = group == of
        donors = here & fitted
        if bool(donors.any()):
            free[here & ~fitted] = free[donors].median(dim=0).values
    borrowed = specification.natural(free, zero, variance)
    omega = variance * (1 - borrowed.persistence)
    borrowed = borrowed._replace(omega=omega)
    return Parameters(*(torch.where(fitted, own, other) for own, other in zip(parameters, borrowed, strict=True)))
