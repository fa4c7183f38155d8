"""Whether forecasts still fit what comes: tests by session, valid however the assets depend on each other."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from qtorch.nightly.alarms import Reading
from qtorch.nightly.gate_config import CoverageDrift, DriftConfig, UniformityDrift, VolatilityDrift
from qtorch.nightly.record import Record

LEAST = 60  # sessions with an outcome, with fewer of which nothing is said
DEGREE = 4  # of the polynomials: location, spread, skewness, tails
FEW, FIRST_BET, GREATEST_BET = 15, 0.05, 0.5  # after few sessions little is known of the best bet


@dataclass(frozen=True)
class Uniformity:
    """How uniform transforms are.

    Attributes:
        evidence: that they are not, an e-value; 1 with too few sessions.
        distance: the greatest between their distribution and the uniform one (Kolmogorov's), over all of them.
        sessions: how many had any.
    """

    evidence: float
    distance: float
    sessions: int


def read_drift(
    config: DriftConfig,
    transforms: Float[Tensor, "T N"],
    record: Record,
    tonight: Float[Tensor, " N"],
) -> list[Reading]:
    """What the gates that are not off measure tonight.

    Args:
        config: of the gates.
        transforms: probability integral transforms of the last sessions, NaN where there is none.
        record: the value at risk of the same sessions and what came.
        tonight: the value at risk of tonight's forecasts at the record's highest level.
    """
    level, readings = max(record.value_at_risk), []
    if config.uniformity.action != "off":
        readings.append(_uniformity(config.uniformity, uniformity(transforms[-config.sessions :])))
    if config.volatility.action != "off":
        before = record.value_at_risk[level][-config.volatility.nights :]
        readings.append(_volatility(config.volatility, level_ratio(tonight, before)))
    if config.coverage.action != "off":
        mask, exceeded = record.mask(level)[-config.sessions :], record.exceeded(level)[-config.sessions :]
        readings.append(_coverage(config.coverage, exceeded, level, mask))
    return readings


def _uniformity(gate: UniformityDrift, found: Uniformity) -> Reading:
    return Reading(
        "drift",
        "uniformity",
        gate.action,
        found.evidence > gate.evidence and found.distance > gate.distance,
        f"outcomes of the last {found.sessions} sessions fall elsewhere than forecast, by {found.distance:.3f} (limit "
        f"{gate.distance:g}), evidence {found.evidence:.3g} (limit {gate.evidence:g})",
        {"evidence": found.evidence, "distance": found.distance, "limit": gate.evidence},
    )


def _volatility(gate: VolatilityDrift, ratio: float) -> Reading:
    return Reading(
        "drift",
        "volatility",
        gate.action,
        ratio > gate.ratio or ratio < 1 / gate.ratio,
        f"tonight's value at risk is {ratio:.2f} times that of the {gate.nights} nights before, in the median asset "
        f"(limit {gate.ratio:g})",
        {"ratio": ratio, "limit": gate.ratio},
    )


def _coverage(gate: CoverageDrift, exceeded: Bool[Tensor, "T N"], level: float, mask: Bool[Tensor, "T N"]) -> Reading:
    evidence = coverage_evidence(exceeded, level, mask)
    rate = float((exceeded & mask).sum() / mask.sum()) if mask.any() else float("nan")
    return Reading(
        "drift",
        "coverage",
        gate.action,
        evidence > gate.evidence,
        f"losses beyond the value at risk at {level:.4g} came in {rate:.2%} of the outcomes of the last "
        f"{int(mask.any(1).sum())} sessions, evidence {evidence:.3g} (limit {gate.evidence:g})",
        {"evidence": evidence, "rate": rate, "level": level, "limit": gate.evidence},
    )


def uniformity(transforms: Float[Tensor, "T N"]) -> Uniformity:
    """The evidence that probability integral transforms of one-session forecasts are not uniform.

    With Legendre polynomials orthonormal on [0, 1] of degree 1 to 4 (location, spread, skewness and tails), the mean of
    each over a session's assets has mean zero given the past if the forecasts are right, however the assets depend on
    each other. It is bet on each to be above zero and on each to be below, as of `evidence_of_excess`; the mean of the
    eight is an e-value. A test of the pooled transforms would take 500 assets for 500 observations of a day, and one of
    the sessions' means by their estimated covariance finds 12 times as many at 0.1 % as there should be, since these
    means are skewed where assets depend on each other.

    Args:
        transforms: NaN where there is none.

    References:
        Neyman (1937), "Smooth test for goodness of fit", Skandinavisk Aktuarietidskrift; Waudby-Smith and Ramdas
        (2024), "Estimating means of bounded random variables by betting", JRSS B 86(1).

    Example:
        >>> shared = torch.rand(250, 1, generator=torch.Generator().manual_seed(0))
        >>> uniformity(shared.expand(250, 100)).evidence < 2
        True
    """
    there = transforms.isfinite()
    days = there.any(1)
    sessions = int(days.sum())
    if sessions < LEAST:
        return Uniformity(1.0, float("nan"), sessions)
    x = 2 * torch.where(there, transforms, 0.5)[days].double().cpu().numpy() - 1
    weight = there[days].double().cpu()
    evidence = []
    for degree in range(1, DEGREE + 1):
        bound = math.sqrt(2 * degree + 1)
        values = bound * torch.from_numpy(np.polynomial.Legendre.basis(degree)(x))
        mean = (values * weight).sum(1) / weight.sum(1)
        evidence += [evidence_of_excess(mean, bound), evidence_of_excess(-mean, bound)]
    return Uniformity(sum(evidence) / len(evidence), _distance(transforms[there].double()), sessions)


def _distance(u: Float64[Tensor, " M"]) -> float:
    """Kolmogorov's, without the p-value that scipy's costs."""
    ordered, step = u.sort().values, torch.arange(len(u) + 1, dtype=u.dtype, device=u.device) / len(u)
    return torch.maximum(step[1:] - ordered, ordered - step[:-1]).max().item()


def coverage_evidence(exceeded: Bool[Tensor, "T N"], level: float, mask: Bool[Tensor, "T N"]) -> float:
    """The evidence in past sessions that losses beyond a value at risk are too many; an e-value.

    A session's ``exceedances / (assets * (1 - level)) - 1`` has a mean of at most zero given the past if the value at
    risk is right, however the assets depend on each other; see `evidence_of_excess`.

    Args:
        exceeded: losses beyond the value at risk.
        level: its confidence.
        mask: outcomes that count.

    Returns:
        1 with fewer than 60 sessions.

    References:
        Wang, Wang and Ziegel (2022), "E-backtesting", arXiv:2209.00991; Vovk and Wang (2021), "E-values: calibration,
        combination and applications", Annals of Statistics 49(3), for means of dependent ones.
    """
    days = mask.any(1)
    if int(days.sum()) < LEAST:
        return 1.0
    counted = mask[days].double()
    return evidence_of_excess((exceeded[days] * counted).sum(1) / (counted.sum(1) * (1 - level)) - 1, bound=1.0)


def evidence_of_excess(values: Float64[Tensor, " T"], bound: float) -> float:
    """What one has made of 1 who bets, value by value, that a sequence's mean given its past is above zero; an e-value.

    The product of ``1 + bet * value``, each bet made before its value: that which would have grown best so far, to the
    second order. If no mean is above zero, that of the product is at most 1, so that it is above 100 with a probability
    of 1 % at most, for any number of values and any law of them. The same holds for the mean of several products: one
    begins with the first value, others with the second half and the last quarter, where these have 60 values, so that
    what has begun lately is seen soon.

    Args:
        values: none below ``-bound``.
        bound: of them.

    References:
        Wang, Wang and Ziegel (2022), "E-backtesting", arXiv:2209.00991, whose GREE bets these are; Shin, Ramdas and
        Rinaldo (2024), "E-detectors", The New England Journal of Statistics in Data Science 2(2), for several
        beginnings.
    """
    parts = [values[-(len(values) // k) :] for k in (1, 2, 4) if len(values) // k >= LEAST or k == 1]
    return sum(_made_of_one(part, bound) for part in parts) / len(parts)


def _made_of_one(values: Float64[Tensor, " T"], bound: float) -> float:
    count = torch.arange(1, len(values) + 1, device=values.device)
    best = values.cumsum(0) / values.square().cumsum(0).clamp(min=torch.finfo(values.dtype).tiny)
    most = torch.where(count < FEW, FIRST_BET, GREATEST_BET).double() / bound
    bets = torch.minimum(best.clamp(min=0), most)
    before = torch.cat([bets.new_zeros(1), bets[:-1]])
    return (1 + before * values).log().sum().exp().item()


def level_ratio(tonight: Float[Tensor, " N"], before: Float[Tensor, "K N"]) -> float:
    """Tonight's risk over each asset's median of the nights before, of the median asset; 1 where nothing is known."""
    ratio = tonight.cpu() / before.cpu().nanmedian(0).values
    ratio = ratio[ratio.isfinite()]
    return ratio.median().item() if len(ratio) else 1.0
