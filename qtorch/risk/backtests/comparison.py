"""Diebold and Mariano's comparison of two forecasts' losses."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.distributions.student_t_functions import t_cdf
from qtorch.risk.backtests.laws import two_sided
from qtorch.risk.backtests.result import BacktestResult
from qtorch.risk.backtests.series import automatic_lags, check_overlap, compress, long_run_variance, usable


def diebold_mariano(
    difference: Float[Tensor, "T *series"],
    mask: Bool[Tensor, "T *series"] | None = None,
    lags: int | None = None,
    panel: bool = False,
    small_sample: bool = False,
    overlap: int = 1,
) -> BacktestResult:
    """Test that two forecasts have the same mean loss, with Newey and West's standard error.

    t = mean(d) / sqrt(V / n), standard normal with a two-sided p-value; V is the long-run variance with Bartlett
    weights. Positive where the first forecast's losses are higher. NaN with fewer than two observations or where d is
    constant.

    Windows of h sessions that overlap: V is at least the variance of d times 1 + 2 sum_{k<h} (1 - k/h)^2, which is what
    the overlap alone does to even functions of sums of independent returns, such as losses.

    Over a panel the differences of a date are averaged over its usable series first, so that the dependence of assets
    on one day, however strong, is in the variance of that average (Driscoll and Kraay 1998).

    Size at 5 %: 5.6 %, 5.5 % and 4.6 % for independent differences of 250, 500 and 1,500 sessions, 7.2 %, 7.2 % and
    5.6 % where they have an autocorrelation of 0.3. Ten-day windows every session: 4 to 6 % for differences of squares
    or of absolute values; 8 to 11 % for differences of the sums themselves, which losses are not; without lags 54 %.

    Args:
        difference: loss of the first forecast less that of the second.
        mask: which days count, all by default; NaN never do.
        lags: of the long-run variance; floor(4 (n / 100)^(2/9)) by default, and at least 2 (overlap - 1), since with
            overlap - 1 Bartlett's weights would lose a third of an overlap's covariances.
        panel: whether to test the mean over all series instead of each.
        small_sample: whether to use the correction of Harvey, Leybourne and Newbold for horizon `overlap`, and
            Student's t with n - 1 degrees of freedom.
        overlap: sessions that each observation spans, where there is one every session.

    Returns:
        A result of the series' shape, of no axis with `panel`.

    Raises:
        ValueError: shapes differ, or the lags or the overlap are out of range.

    References:
        Diebold and Mariano (1995), Comparing predictive accuracy, JBES 13; Newey and West (1994), Automatic lag
        selection in covariance matrix estimation, Review of Economic Studies 61; Harvey, Leybourne and Newbold (1997),
        Testing the equality of prediction mean squared errors, International Journal of Forecasting 13, equation 9;
        Driscoll and Kraay (1998), Consistent covariance matrix estimation with spatially dependent panel data,
        Review of Economics and Statistics 80.
    """
    check_overlap(overlap)
    require(lags is None or lags >= 0, "lags", lags, "give the autocovariances to count, 0 or more")
    there, d = usable(mask, difference=difference), difference.double()
    if panel:
        count = there.flatten(1).sum(1) if there.ndim > 1 else there.long()
        d = torch.where(there, d, 0.0).reshape(len(d), d.shape[1:].numel()).sum(1) / count.clamp(min=1)
        there = count > 0
    there, d = compress(there, d)
    n = there.sum(0)
    rows = n.double().clamp(min=1)
    mean = torch.where(there, d, 0.0).sum(0) / rows
    centred = torch.where(there, d - mean, 0.0)
    if lags is None:
        used = automatic_lags(rows).clamp(min=2 * (overlap - 1))
    else:
        used = torch.full_like(rows, lags)
    variance = long_run_variance(centred, there, used)
    if overlap > 1:
        k = torch.arange(1, overlap, device=rows.device, dtype=torch.float64).view(-1, *[1] * rows.ndim)
        least = 1 + 2 * ((1 - k / overlap) ** 2 * (1 - k / rows).clamp(min=0)).sum(0)
        variance = torch.maximum(variance, least * (centred**2).sum(0) / rows)
    tested = (n > 1) & (variance > 1e-30 * mean**2) & (variance > 0)
    t = torch.where(tested, mean / (variance.clamp(min=1e-300) / rows).sqrt(), torch.nan)
    if small_sample:
        h = overlap
        t = t * ((rows + 1 - 2 * h + h * (h - 1) / rows) / rows).clamp(min=0).sqrt()
        p_value = 2 * t_cdf(-t.abs(), (rows - 1).clamp(min=1))
    else:
        p_value = two_sided(t)
    name = "Diebold-Mariano" + (" over the panel" if panel else "")
    return BacktestResult(name, t, p_value, n, "both forecasts have the same mean loss")
