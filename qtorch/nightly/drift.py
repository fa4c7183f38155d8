"""Whether forecasts still fit what comes: tests by session, valid however the assets depend on each other."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

from qtorch.nightly.alarms import Reading
from qtorch.nightly.gate_config import CoverageDrift, DriftConfig, UniformityDrift, VolatilityDrift
from qtorch.nightly.record import Record

LEAST = 60  # sessions with an outcome, with fewer of which nothing is said
DEGREE = 4  # of the polynomials: location, spread, skewness, tails
GREATEST_BET = 0.5


@dataclass(frozen=True)
class Uniformity:
    """How uniform transforms are.

    Attributes:
        p_value: of their moments by session; NaN with too few sessions.
        distance: the greatest between their distribution and the uniform one (Kolmogorov's), over all of them.
        sessions: how many had any.
    """

    p_value: float
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
        found.p_value < gate.p_value and found.distance > gate.distance,
        f"outcomes of the last {found.sessions} sessions fall elsewhere than forecast with p = {found.p_value:.2g} "
        f"(limit {gate.p_value:g}), by {found.distance:.3f} (limit {gate.distance:g})",
        {"p_value": found.p_value, "distance": found.distance, "sessions": found.sessions},
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
    """Tests probability integral transforms of one-session forecasts for uniformity, a session being one observation.

    With Legendre polynomials orthonormal on [0, 1] of degree 1 to 4 (location, spread, skewness and tails), the mean of
    each over a session's assets has mean zero given the past if the forecasts are right, however the assets depend on
    each other. Hotelling's test of the sessions' means, whose covariance is estimated from them, therefore needs no
    model of this dependence; a test of the pooled transforms would take 500 assets for 500 observations of a day.

    Args:
        transforms: NaN where there is none.

    References:
        Neyman (1937), "Smooth test for goodness of fit", Skandinavisk Aktuarietidskrift; Knüppel (2015), "Evaluating
        the calibration of multi-step-ahead density forecasts using raw moments", JBES 33(2).

    Example:
        >>> shared = torch.rand(250, 1, generator=torch.Generator().manual_seed(0))
        >>> round(uniformity(shared.expand(250, 100)).p_value, 2)
        0.9
    """
    there = transforms.isfinite()
    pooled = transforms[there].double().cpu().numpy()
    days = there.any(1)
    sessions = int(days.sum())
    if sessions < LEAST:
        return Uniformity(float("nan"), float("nan"), sessions)
    x = 2 * torch.where(there, transforms, 0.5).double() - 1
    basis = [torch.from_numpy(np.polynomial.Legendre.basis(k)(x.cpu().numpy())) for k in range(1, DEGREE + 1)]
    weight = there.cpu().double()
    means = torch.stack(
        [np.sqrt(2 * k + 1) * (b * weight).sum(1) / weight.sum(1).clamp(min=1) for k, b in enumerate(basis, start=1)],
        dim=1,
    )[days.cpu()]
    centre = means.mean(0)
    squared = sessions * centre @ torch.linalg.pinv(means.T.cov(), hermitian=True) @ centre
    f = (sessions - DEGREE) / (DEGREE * (sessions - 1)) * squared.item()
    p_value = float(stats.f.sf(f, DEGREE, sessions - DEGREE))
    return Uniformity(p_value, float(stats.kstest(pooled, "uniform").statistic), sessions)


def coverage_evidence(exceeded: Bool[Tensor, "T N"], level: float, mask: Bool[Tensor, "T N"]) -> float:
    """The evidence in past sessions that losses beyond a value at risk are too many; an e-value.

    A session's ``x = exceedances / (assets * (1 - level))`` has a mean of at most 1 given the past if the value at risk
    is right, however the assets depend on each other, and so has ``1 + bet (x - 1)`` with a bet that is made before.
    The product over the sessions is what one who bets against the value at risk has made of 1; its mean is at most 1,
    so that it is above 100 with a probability of 1 % at most. The bets are those that would have grown best in the
    sessions before, to the second order.

    Args:
        exceeded: losses beyond the value at risk.
        level: its confidence.
        mask: outcomes that count.

    Returns:
        The product; 1 with fewer than 60 sessions.

    References:
        Wang, Wang and Ziegel (2022), "E-backtesting", arXiv:2209.00991, whose GREE bets these are; Vovk and Wang
        (2021), "E-values: calibration, combination and applications", Annals of Statistics 49(3), for their means.
    """
    days = mask.any(1)
    if int(days.sum()) < LEAST:
        return 1.0
    counted = mask[days].double()
    excess = (exceeded[days] * counted).sum(1) / (counted.sum(1) * (1 - level)) - 1
    count = torch.arange(1, len(excess) + 1, dtype=torch.float64, device=excess.device)
    bets = (excess.cumsum(0) / excess.square().cumsum(0).clamp(min=1e-12)).clamp(0, GREATEST_BET)
    bets = torch.where(count < LEAST // 4, torch.minimum(bets, bets.new_tensor(0.05)), bets)  # little is known yet
    before = torch.cat([bets.new_zeros(1), bets[:-1]])
    return (1 + before * excess).log().sum().exp().item()


def level_ratio(tonight: Float[Tensor, " N"], before: Float[Tensor, "K N"]) -> float:
    """Tonight's risk over each asset's median of the nights before, of the median asset; 1 where nothing is known."""
    ratio = tonight.cpu() / before.cpu().nanmedian(0).values
    ratio = ratio[ratio.isfinite()]
    return ratio.median().item() if len(ratio) else 1.0
