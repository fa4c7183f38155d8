"""Null laws by simulation of statistics whose law depends on the number of observations alone."""

from collections.abc import Callable

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

_LENGTHS = 16  # different numbers of observations that are simulated; a series takes the nearest


def simulated_p_values(
    test: Callable[[Tensor, Tensor], Tensor],
    sample: Callable[[Tensor], Tensor],
    statistic: Float64[Tensor, "*series"],
    observations: Int64[Tensor, "*series"],
    draws: int,
    generator: torch.Generator | None,
) -> Float64[Tensor, "*series"]:
    """Share of samples of a true model whose statistic is at least as large as the observed one.

    The observed one is counted among them, and samples without a statistic are not.

    Args:
        test: of compressed rows and values to statistics, NaN where there is none.
        sample: of independent uniform transforms `[T, S]` to the values of a true model.
        statistic: observed, NaN where there is none.
        observations: of each series.
        draws: samples.
        generator: of the draws; they are made on its device.

    References:
        Dufour (2006), Monte Carlo tests with nuisance parameters, Journal of Econometrics 133.
    """
    device = statistic.device if generator is None else generator.device
    lengths = observations[statistic.isfinite()].unique()
    if len(lengths) > _LENGTHS:
        lengths = lengths[torch.linspace(0, len(lengths) - 1, _LENGTHS, device=lengths.device).round().long()]
    p_value = torch.full_like(statistic, torch.nan)
    if not len(lengths):
        return p_value
    nearest = (observations.unsqueeze(-1) - lengths).abs().argmin(-1)
    for i, length in enumerate(lengths.tolist()):
        u = torch.rand(length, draws, generator=generator, device=device, dtype=torch.float64).to(statistic.device)
        null = test(torch.ones_like(u, dtype=torch.bool), sample(u))
        null = null[null.isfinite()].sort().values
        of = (nearest == i) & statistic.isfinite()
        as_large = len(null) - torch.searchsorted(null, statistic[of] - 1e-9)
        p_value[of] = (1 + as_large).double() / (1 + len(null))
    return p_value
