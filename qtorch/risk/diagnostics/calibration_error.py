"""How far the frequencies of outcomes are from the probabilities that were forecast, quantile by quantile."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.risk.backtests.result import flat, series_index
from qtorch.risk.backtests.series import usable
from qtorch.risk.diagnostics.clustered import clustered_mean

PROBABILITIES = (0.01, 0.025, 0.05, *(k / 20 for k in range(2, 19)), 0.95, 0.975, 0.99)
_DRAWS = 4096


@dataclass(frozen=True, eq=False)
class CalibrationError:
    """The reliability of forecast quantiles.

    Attributes:
        probabilities: of the quantiles.
        observed: share of the outcomes at or below each quantile; NaN without an observation.
        standard_error: of that share if the forecast is right.
        error: the mean over the quantiles of |observed - probability|.
        expected: the error that a right forecast has on average, because observations are few.
        bound: the error that a right forecast stays below with probability `confidence`.
        p_value: the probability that a right forecast has an error as large.
        observations: outcomes that count.
        confidence: of the bound.
    """

    probabilities: Float64[Tensor, " Q"]
    observed: Float64[Tensor, "Q *series"]
    standard_error: Float64[Tensor, "Q *series"]
    error: Float64[Tensor, "*series"]
    expected: Float64[Tensor, "*series"]
    bound: Float64[Tensor, "*series"]
    p_value: Float64[Tensor, "*series"]
    observations: Int64[Tensor, "*series"]
    confidence: float

    def to_frame(self, names: Sequence[Hashable] | None = None) -> pd.DataFrame:
        """Error, its mean and bound if the forecast is right, p-value and observations, one row for each series.

        Args:
            names: of the series; their positions by default.
        """
        columns = {name: flat(getattr(self, name)) for name in ("error", "expected", "bound", "p_value")}
        columns["observations"] = flat(self.observations)
        return pd.DataFrame(columns, index=series_index(self.error.shape, names))


def calibration_error(
    pit: Float[Tensor, "T *series"],
    probabilities: Sequence[float] = PROBABILITIES,
    mask: Bool[Tensor, "T *series"] | None = None,
    *,
    panel: bool = False,
    overlap: int = 1,
    confidence: float = 0.95,
    seed: int = 0,
) -> CalibrationError:
    r"""The mean over quantiles of |share of outcomes below the quantile - its probability|, and its sampling band.

    If the forecast is right, the shares less their probabilities are nearly normal with mean zero. For one series their
    covariance is that of a Brownian bridge, (min(p, q) - p q) / n; over a panel, or with windows that overlap, it is
    estimated from sums by date, see `clustered_mean`. The band is of 4,096 draws of that law. A right forecast has an
    error above the bound at 95 % in 4 to 6 % of samples of 50 and more.

    Args:
        pit: probability that the forecast gave to returns at most as high as the one that came.
        probabilities: left-tail masses of the quantiles; dense in the tails by default.
        mask: which outcomes count, all by default; NaN never do.
        panel: whether to take all series together.
        overlap: sessions that each observation spans, where there is one every session.
        confidence: of the bound.
        seed: of the draws.

    Returns:
        A result of the series' shape, of no axis with `panel`.

    Raises:
        ValueError: shapes differ, transforms leave [0, 1], or a probability, the confidence or the overlap is out of
            range.

    References:
        Kuleshov, Fenner and Ermon (2018), Accurate uncertainties for deep learning using calibrated regression, ICML,
        section 3.5, with absolute errors; Gneiting, Balabdaoui and Raftery (2007), Probabilistic forecasts, calibration
        and sharpness, JRSS B 69.

    Example:
        >>> u = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> wide = torch.special.ndtr(torch.special.ndtri(u) / 1.5)  # intervals half as wide again as is right
        >>> torch.stack([u, wide], -1).shape
        torch.Size([1000, 2, 2])
        >>> result = calibration_error(torch.stack([u, wide], -1))
        >>> (result.error > result.bound).tolist()
        [[False, True], [False, True]]
    """
    p = torch.tensor(tuple(probabilities), dtype=torch.float64, device=pit.device)
    inside = len(p) > 0 and bool(((p > 0) & (p < 1)).all())
    require(inside, "probabilities", tuple(probabilities), "give masses inside (0, 1)")
    require(0 < confidence < 1, "confidence", confidence, "give a probability inside (0, 1), such as 0.95")
    there = usable(mask, pit=pit)
    u = torch.where(there, pit.double(), 0.5)
    require(bool(((u >= 0) & (u <= 1)).all()), "pit", f"{u.min()} to {u.max()}", "transforms are probabilities")
    below = (u.unsqueeze(-1) <= p).double()
    normals = torch.randn(_DRAWS, len(p), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(p)
    if panel or overlap > 1:
        shape = torch.Size() if panel else pit.shape[1:]
        groups = [(below, there)] if panel else _by_series(below, there)
        each = [clustered_mean(x, m, overlap, centre=p) for x, m in groups]
        observed = torch.stack([one.mean for one in each])
        scale = torch.stack([one.standard_error for one in each])
        drawn = torch.stack([_errors(normals, one.covariance) for one in each])
        n = torch.tensor([one.observations for one in each], device=p.device)
        unit = torch.ones_like(observed[:, 0])
    else:
        shape = pit.shape[1:]
        n = there.sum(0).reshape(-1)
        unit = torch.where(n > 0, n.double(), torch.nan) ** -0.5
        observed = (below * there.unsqueeze(-1)).sum(0).reshape(-1, len(p)) * unit.unsqueeze(-1) ** 2
        scale = (p * (1 - p)).sqrt() * unit.unsqueeze(-1)
        drawn = _errors(normals, torch.minimum(p, p.unsqueeze(-1)) - p * p.unsqueeze(-1)).unsqueeze(0)
    error = (observed - p).abs().mean(-1)
    smaller = torch.searchsorted(drawn, (error / unit).reshape(len(drawn), -1)).reshape(-1)
    p_value = torch.where(error.isnan() | drawn[:, 0].isnan(), torch.nan, 1 - smaller.double() / _DRAWS)
    expected, bound = drawn.mean(-1) * unit, drawn.quantile(confidence, -1) * unit
    observed, scale = (x.T.reshape(len(p), *shape) for x in (observed, scale))
    error, expected, bound, p_value, n = (x.reshape(shape) for x in (error, expected, bound, p_value, n))
    return CalibrationError(p, observed, scale, error, expected, bound, p_value, n, confidence)


def _by_series(below: Tensor, there: Tensor) -> list[tuple[Tensor, Tensor]]:
    columns = there.reshape(len(there), -1)
    values = below.reshape(len(below), columns.shape[1], -1)
    return [(values[:, k], columns[:, k]) for k in range(columns.shape[1])]


def _errors(normals: Tensor, covariance: Tensor) -> Float64[Tensor, " S"]:
    """Mean absolute values of draws of a centred normal law, ascending; of any positive semidefinite covariance."""
    if covariance.isnan().any():
        return normals.new_full((len(normals),), torch.nan)
    size, axes = torch.linalg.eigh(covariance)
    return (normals @ (axes * size.clamp(min=0).sqrt()).T).abs().mean(-1).sort().values
