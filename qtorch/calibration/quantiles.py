"""Conformalised quantiles: values at risk shifted by a quantile of past errors."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from qtorch.calibration.calibrated import scale_of
from qtorch.calibration.conformal_quantile import conformal_quantile, members, pooled, recency
from qtorch.calibration.memory import pushed
from qtorch.calibration.online import Correction, OnlineCalibrator
from qtorch.calibration.outcomes import Outcomes, labels_of
from qtorch.calibration.sessions import first_of_session, known_at
from qtorch.calibration.training_set import require_unseen
from qtorch.distributions.checks import require
from qtorch.distributions.cumulative import icdf
from qtorch.errors import ArgumentError
from qtorch.forecast import Forecast
from qtorch.risk.measures.tail import checked_level


class ConformalisedQuantiles(OnlineCalibrator):
    """Shifts VaR by the conformal quantile of the last scores (loss - raw VaR) / scale.

    Guarantee: of `conformal_quantile`. If the scores of the memory and the next are exchangeable (and there is no half
    life), the next loss exceeds the VaR with probability at most p = 1 - level, and at least p - 1 / (n + 1) if scores
    have no ties. Returns are not exchangeable; scores in units of a good scale are nearer to it. With a half-life the
    bound is that plus a weighted sum of how far each score is from exchangeable with the next. Pooled: of all scores of
    the group. None holds given a night, an asset of a group, or a volatility.

    Where there are fewer scores than a finite bound needs (1 / p - 1 of equal weights) the VaR is left as it was.

    Args:
        levels: confidence levels.
        window: W, how many scores of each asset and horizon are kept.
        half_life: of the weights, in own sessions; equal weights by default.
        groups: as of `OnlineCalibrator`; the scores of a group are pooled.
        trained_through: as of `OnlineCalibrator`.

    Raises:
        ValueError: the window is below 1, or the half-life not positive.

    References:
        As of `conformal_quantile`.
    """

    own_state = ("scores",)

    def __init__(
        self,
        levels: Sequence[float],
        window: int = 500,
        half_life: float | None = None,
        groups: Mapping[str, str | None] | None = None,
        trained_through: str | pd.Timestamp | None = None,
    ) -> None:
        super().__init__(levels, groups, trained_through)
        require(window >= 1, "window", window, "give a number of scores of 1 or more")
        _check_half_life(half_life)
        self.window, self.half_life = window, half_life

    def _initial(self, H: int, N: int) -> dict[str, Tensor]:
        return {"scores": torch.full((self.window, len(self.levels), H, N), torch.nan, dtype=torch.float64)}

    def _issue(self, state: dict[str, Tensor], group: Tensor) -> Correction:
        scores = state["scores"]
        weights = recency(len(scores), self.half_life, scores)
        shift = pooled_quantile(scores, self._masses(scores), weights, None if self.groups is None else group)
        shift = torch.where(shift.isfinite(), shift, 0.0)
        return self._masses(shift).expand(shift.shape), shift

    def _learn(self, state: dict[str, Tensor], outcomes: Outcomes) -> dict[str, Tensor]:
        return {"scores": pushed(state["scores"], outcomes.excess, outcomes.mask)}


def conformal_interval(
    past: Forecast,
    returns: Float[Tensor, "T H N"],
    forecast: Forecast,
    coverage: float,
    half_life: float | None = None,
    groups: Mapping[str, str | None] | None = None,
    trained_through: str | pd.Timestamp | None = None,
) -> tuple[Float64[Tensor, "D H N"], Float64[Tensor, "D H N"]]:
    """Two-sided intervals: the central one of each law, widened by the conformal quantile of past scores.

    The score of a past outcome y is max(lower - y, y - upper) / scale with the raw ends; both ends are moved by the
    same number of scales. Each session of an asset counts once, as in `OnlineCalibrator`: of the forecasts at its close
    and on rows on which the asset is closed after it, the first that has an outcome. The guarantee is that of
    `conformal_quantile` with p = 1 - coverage, of both tails together.

    Args:
        past: forecasts that the model was not trained on, of rows that follow each other in the panel up to the one
            before the first of `forecast`.
        returns: their outcomes as far as they are known on the first date of `forecast`; NaN where none, so over h
            sessions on the last h - 1 rows.
        forecast: of the same assets and horizons.
        coverage: such as 0.9.
        half_life: of the weights, in rows of `past`; equal weights by default.
        groups: as of `OnlineCalibrator`; the scores of a group are pooled.
        trained_through: as of `OnlineCalibrator`.

    Returns:
        Lower and upper ends, in decimals; infinite where scores are too few, NaN where there is no forecast.

    Raises:
        ValueError: the coverage is not inside (0, 1); an asset has no label; assets or horizons differ; dates of `past`
            are not all earlier, or trained on; an outcome is not known yet, by the sessions on which its asset is
            observed.
    """
    checked_level(coverage)
    _check_half_life(half_life)
    if past.assets != forecast.assets or past.horizons != forecast.horizons:
        raise ArgumentError("the past and the new forecasts are of other assets or horizons.")
    if past.dates.max() >= forecast.dates.min():
        raise ArgumentError(
            f"past forecasts reach {past.dates.max():%Y-%m-%d}, and new ones start on {forecast.dates.min():%Y-%m-%d}."
        )
    require_unseen(past.dates, None if trained_through is None else pd.Timestamp(trained_through))
    _check_known(past, returns, forecast)
    lower, upper = _central(past, coverage)
    y = returns.double()
    scores = torch.maximum(lower - y, y - upper) / scale_of(past)
    scores = torch.where(first_of_session(past.state, scores.isfinite()), scores, torch.nan)
    p = torch.tensor(1 - coverage, dtype=torch.float64, device=scores.device)
    weights = recency(len(scores), half_life, scores)
    labels = None if groups is None else labels_of(groups, forecast.assets)
    shift = pooled_quantile(scores, p.expand(1, 1), weights, labels) * scale_of(forecast)
    lower, upper = _central(forecast, coverage)
    return lower - shift, upper + shift


def pooled_quantile(
    scores: Float64[Tensor, "W *series N"],
    probability: Tensor,
    weights: Float64[Tensor, " W"],
    groups: Int64[Tensor, " N"] | None,
) -> Float64[Tensor, "*series N"]:
    """The conformal quantile of each asset's group, of all levels and horizons at once."""
    if groups is None:
        return conformal_quantile(scores, probability.expand(scores.shape[1:]), weights)
    result = torch.empty_like(scores[0])
    for group in members(groups):
        rows = pooled(scores, group.to(scores.device))
        p = probability.expand(scores.shape[1:])[..., 0]
        result[..., group] = conformal_quantile(rows, p, weights.repeat(len(group)))[..., None]
    return result


def _central(forecast: Forecast, coverage: float) -> tuple[Tensor, Tensor]:
    masses = (torch.tensor(p, dtype=torch.float64) for p in ((1 - coverage) / 2, (1 + coverage) / 2))
    lower, upper = (forecast._masked(icdf(forecast.marginals, p)) for p in masses)
    return lower, upper


def _check_known(past: Forecast, returns: Tensor, forecast: Forecast) -> None:
    """Refuses outcomes of sessions after the first new date."""
    known = known_at(torch.cat([past.state, forecast.state[:1]]), past.horizons)[: len(past.dates)]
    early = past.mask[:, None] & returns.isfinite() & (known > len(past.dates))
    if early.any():
        t, h, n = early.nonzero()[0].tolist()
        raise ArgumentError(
            f"{int(early.sum())} outcomes are not known on {forecast.dates[0]:%Y-%m-%d}, the first new date, counted "
            f"in the sessions on which an asset is observed: the first is that of {past.assets[n]} over "
            f"{past.horizons[h]} sessions from {past.dates[t]:%Y-%m-%d}. Make them NaN, and leave out no row between."
        )


def _check_half_life(half_life: float | None) -> None:
    sound = half_life is None or half_life > 0
    require(sound, "half_life", half_life, "give a positive number of sessions, such as 250, or None")
