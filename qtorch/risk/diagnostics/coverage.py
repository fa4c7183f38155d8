"""Coverage of a value at risk group by group: regimes, spans of time, lengths of history, or labels of one's own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.risk.backtests.laws import two_sided
from qtorch.risk.backtests.series import check_level, usable
from qtorch.risk.diagnostics.clustered import clustered_mean


def coverage_by_group(
    exceeded: Bool[Tensor, "T *series"],
    level: float,
    groups: Int64[Tensor, "T *series"],
    mask: Bool[Tensor, "T *series"] | None = None,
    *,
    overlap: int = 1,
    confidence: float = 0.95,
    names: Mapping[int, Any] | None = None,
) -> pd.DataFrame:
    """How often losses were beyond the value at risk in each group, with errors of two kinds.

    The binomial's interval is where the rate lies with probability `confidence` if the model is right and exceedances
    are independent. Within a date they are not: a fall of the market is beyond many values at risk at once. So the
    error from sums by date (`clustered_mean`) stands beside it, and a p-value of the rate from that; NaN where the rate
    has no error, as without an exceedance.

    Args:
        exceeded: whether the loss was beyond the value at risk.
        level: confidence of the value at risk, such as 0.99.
        groups: a number for each; negative ones are in no group.
        mask: which count, all by default.
        overlap: sessions that each observation spans, where there is one every session.
        confidence: of the intervals.
        names: of the groups; their numbers by default.

    Returns:
        One row for each group that has observations, in the order of their numbers: group, observations, dates,
        exceedances, rate, expected, binomial_low, binomial_high, standard_error, low, high (the rate's interval by
        date), p_value.

    Raises:
        ValueError: shapes differ, or the level, the overlap or the confidence is out of range.

    References:
        Cameron and Miller (2015), A practitioner's guide to cluster-robust inference, Journal of Human Resources 50.

    Example:
        >>> u = torch.rand(2000, 5, generator=torch.Generator().manual_seed(0))
        >>> calm = torch.arange(2000).expand(5, 2000).T // 1000
        >>> frame = coverage_by_group(u < 0.05, 0.95, calm, names={0: "calm", 1: "rough"})
        >>> frame[["group", "observations", "exceedances"]].values.tolist()
        [['calm', 5000, 269], ['rough', 5000, 259]]
    """
    from scipy.stats import binom, norm

    p = check_level(level)
    require(0 < confidence < 1, "confidence", confidence, "give a probability inside (0, 1), such as 0.95")
    there = usable(mask, exceeded=exceeded, groups=groups) & (groups >= 0)
    half = norm.ppf((1 + confidence) / 2)
    rows = []
    for group in groups[there].unique().tolist():
        own = there & (groups == group)
        result = clustered_mean(exceeded.unsqueeze(-1).double(), own, overlap)
        n, rate, error = result.observations, result.mean.item(), result.standard_error.item()
        low, high = binom.interval(confidence, n, p)
        error = error if error > 0 else np.nan
        rows.append(
            {
                "group": group if names is None else names[group],
                "observations": n,
                "dates": result.dates,
                "exceedances": int((exceeded & own).sum()),
                "rate": rate,
                "expected": p,
                "binomial_low": low / n,
                "binomial_high": high / n,
                "standard_error": error,
                "low": rate - half * error,
                "high": rate + half * error,
                "p_value": two_sided(torch.tensor((rate - p) / error, dtype=torch.float64)).item(),
            }
        )
    columns = ["group", "observations", "dates", "exceedances", "rate", "expected", "binomial_low", "binomial_high"]
    return pd.DataFrame(rows, columns=[*columns, "standard_error", "low", "high", "p_value"])
