"""Selective risk: what is lost where the model is sure, and whether it is unsure where it errs."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.risk.backtests.confidence_set import resampled
from qtorch.risk.backtests.series import usable

_CHUNK = 8_000_000  # numbers held at once


@dataclass(frozen=True, eq=False)
class SelectiveRisk:
    """Mean losses of the forecasts that are kept when the most uncertain are left out.

    Attributes:
        coverage: share that is kept, 1/n to 1.
        risk: mean loss of the kept, the surest of all.
        oracle: the same if losses were known: the least there can be.
        random: the mean loss of all, which leaving out at random keeps.
    """

    coverage: Float64[Tensor, " n"]
    risk: Float64[Tensor, " n"]
    oracle: Float64[Tensor, " n"]
    random: float

    @property
    def area(self) -> float:
        """The mean risk over all coverages (AURC)."""
        return float(self.risk.mean())

    @property
    def excess_area(self) -> float:
        """The area less the oracle's (E-AURC)."""
        return float((self.risk - self.oracle).mean())

    @property
    def gain(self) -> float:
        """How much of the way from random to the oracle the area goes: 1 the oracle's, 0 random, below 0 worse."""
        best = self.random - float(self.oracle.mean())
        return (self.random - self.area) / best if best > 0 else math.nan


def selective_risk(
    uncertainty: Float[Tensor, "*shape"], loss: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"] | None = None
) -> SelectiveRisk:
    """The risk-coverage curve: forecasts are kept in the order of their uncertainty, the surest first.

    Where uncertainties tie, each has the mean loss of those that tie, which is what any order gives on average.

    Args:
        uncertainty: such as the epistemic variance, or the width of the band of the value at risk; no scale is needed.
        loss: such as the log score.
        mask: which count, all by default; NaN never do.

    Raises:
        ValueError: shapes differ, or nothing counts.

    References:
        Geifman and El-Yaniv (2017), Selective classification for deep neural networks, NeurIPS; Geifman, Uziel and
        El-Yaniv (2019), Bias-reduced uncertainty estimation for deep neural classifiers, ICLR, equation 2.

    Example:
        >>> curve = selective_risk(torch.tensor([0.1, 0.3, 0.2]), torch.tensor([1.0, 6.0, 2.0]))
        >>> curve.risk.tolist(), curve.gain
        ([1.0, 1.5, 3.0], 1.0)
    """
    there = usable(mask, uncertainty=uncertainty, loss=loss)
    u, x = uncertainty[there].double(), loss[there].double()
    n = len(x)
    require(n > 0, "uncertainty", "no usable element", "give finite uncertainties and losses inside the mask")
    _, place, size = u.unique(return_inverse=True, return_counts=True)
    tied = x.new_zeros(len(size)).scatter_add(0, place, x) / size
    kept = torch.arange(1, n + 1, device=x.device, dtype=torch.float64)
    risk = tied.repeat_interleave(size).cumsum(0) / kept
    return SelectiveRisk(kept / n, risk, x.sort().values.cumsum(0) / kept, float(x.mean()))


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation with its uncertainty.

    Attributes:
        estimate: of the sample; NaN where one of the two does not vary.
        lower: end of the interval.
        upper: the other.
        standard_error: standard deviation over the draws.
        observations: pairs.
        dates: on which they are.
    """

    estimate: float
    lower: float
    upper: float
    standard_error: float
    observations: int
    dates: int

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.lower:.3f}, {self.upper:.3f}]"


def rank_correlation(
    uncertainty: Float[Tensor, "T *series"],
    loss: Float[Tensor, "T *series"],
    mask: Bool[Tensor, "T *series"] | None = None,
    *,
    confidence: float = 0.95,
    block: int = 10,
    draws: int = 500,
    generator: torch.Generator | None = None,
) -> RankCorrelation:
    """Whether the model errs where it is unsure: Spearman's correlation, with an interval that resamples dates.

    All pairs are ranked together. Ranks are taken anew in every draw of the stationary bootstrap, whose blocks keep all
    series of a date together and neighbours in time.

    Args:
        uncertainty: such as the epistemic variance.
        loss: such as the log score.
        mask: which count, all by default; NaN never do.
        confidence: of the percentile interval.
        block: mean length of the blocks of dates; at least the overlap of the windows.
        draws: samples.
        generator: of the draws; a fixed one by default, so that the same numbers give the same interval.

    Raises:
        ValueError: shapes differ, or a setting is out of range.

    References:
        Politis and Romano (1994), The stationary bootstrap, JASA 89; Spearman (1904), The proof and measurement of
        association between two things, American Journal of Psychology 15.
    """
    require(0 < confidence < 1, "confidence", confidence, "give a probability inside (0, 1), such as 0.95")
    require(block >= 1, "block", block, "give the mean length of the resampled blocks, 1 or more")
    require(draws >= 100, "draws", draws, "draw at least 100 samples")
    there = usable(mask, uncertainty=uncertainty, loss=loss)
    T = len(there)
    date = torch.arange(T, device=there.device).view(T, *[1] * (there.ndim - 1)).expand(there.shape)[there]
    own, at = date.unique(return_inverse=True)
    pairs = [x[there].double().unique(return_inverse=True)[1] for x in (uncertainty, loss)]
    estimate = _spearman(pairs, torch.ones(1, len(at), dtype=torch.float64, device=at.device)).item()
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    if len(own) < 2:
        return RankCorrelation(estimate, math.nan, math.nan, math.nan, len(at), len(own))
    weights = resampled(len(own), draws, block, generator).to(at.device)
    parts = weights.split(max(1, _CHUNK // len(at)))
    drawn = torch.cat([_spearman(pairs, part[:, at]) for part in parts])
    ends = drawn.nanquantile(drawn.new_tensor([(1 - confidence) / 2, (1 + confidence) / 2])).tolist()
    return RankCorrelation(estimate, ends[0], ends[1], float(drawn.std()), len(at), len(own))


def _spearman(places: list[Tensor], weights: Float64[Tensor, "S n"]) -> Float64[Tensor, " S"]:
    """Pearson's correlation of weighted mid-ranks; `places` number the distinct values in ascending order."""
    total = weights.sum(1, keepdim=True)
    scores = []
    for place in places:
        if not len(place):
            return weights.new_full((len(weights),), torch.nan)
        mass = weights.new_zeros(len(weights), int(place.max()) + 1).index_add(1, place, weights)
        rank = (mass.cumsum(1) - mass / 2)[:, place]
        scores.append(rank - (weights * rank).sum(1, keepdim=True) / total)
    a, b = scores
    product = (weights * a * b).sum(1)
    return product / ((weights * a**2).sum(1) * (weights * b**2).sum(1)).sqrt()
