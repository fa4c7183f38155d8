"""Maps of the probability integral transform, fitted to past transforms."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from qtorch.calibration.calibrated import require_raw
from qtorch.calibration.conformal_quantile import members, recency
from qtorch.calibration.recalibrated import PitMap, Recalibrated
from qtorch.calibration.sessions import first_of_session
from qtorch.calibration.training_set import require_unseen
from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError
from qtorch.forecast import Forecast

MASSES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995)


def fit_recalibration(
    pits: Float[Tensor, "T *H N"],
    mask: Bool[Tensor, "T *H N"] | None = None,
    groups: Int64[Tensor, " N"] | None = None,
    half_life: float | None = None,
    masses: Sequence[float] = MASSES,
    prior: float = 50.0,
    state: UInt8[Tensor, "T N"] | None = None,
    dates: pd.DatetimeIndex | None = None,
    trained_through: str | pd.Timestamp | None = None,
) -> PitMap:
    """The map R of past transforms that makes them uniform, shrunk towards none.

        R(u) = (sum_t w_t 1{pit_t <= u} + n_0 u) / (sum_t w_t + n_0)  at the masses u, a smooth curve between.

    The frequencies are those of Kuleshov et al.'s isotonic regression of them on u: they rise with u by themselves, so
    that the regression changes nothing. `prior` transforms at their expected places make R strictly increasing and hold
    it back where there are few, as in the tails: with n_0 = 50 and 250 transforms, five sixths of the error is removed.

    Below the first mass and beyond the last R is a straight line: there the tail is right by a factor, at best.

    Guarantee: if transforms are independent with one law, R converges to their distribution function at the masses as
    their number grows, and the recalibrated law's coverage at each mass to the nominal (by the law of large numbers; at
    n transforms with an error of the order of sqrt(u (1 - u) / n)). Nothing holds for a finite sample or given a night.

    Args:
        pits: in [0, 1], oldest first, NaN where none.
        mask: which count, all by default.
        groups: `[N]` labels, as of `qtorch.portfolio.groups.numbered`, -1 for an asset of its own; transforms of a
            group are pooled, and its assets have one map. Each asset on its own by default.
        half_life: of the weights, in rows; equal weights by default.
        masses: the inner knots, two or more, increasing.
        prior: n_0, in transforms; of each group.
        state: of the rows, such as the forecast's, which follow each other in the panel: then each session of an asset
            counts once, as in `OnlineCalibrator`. Without it every row counts, also where outcomes are given for
            forecasts made while an asset was closed, which are of the session of its last close.
        dates: of the forecasts, `T`; needed with `trained_through`.
        trained_through: the last date the model's fit used; later ones alone are taken.

    Returns:
        Knots and values `[*H, N, K + 1]`.

    Raises:
        ValueError: a setting is outside its domain, a transform outside [0, 1], or a date not after `trained_through`.

    References:
        Kuleshov, Fenner and Ermon (2018), Accurate uncertainties for deep learning using calibrated regression, ICML,
        algorithm 1.

    Example:
        >>> pits = torch.rand(2000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 2
        >>> round(fit_recalibration(pits)(torch.tensor(0.25, dtype=torch.float64)).item(), 2)
        0.49
    """
    knots = torch.tensor([0.0, *masses, 1.0], dtype=torch.float64, device=pits.device)
    increasing = len(masses) >= 2 and bool((knots.diff() > 0).all())
    require(increasing, "masses", tuple(masses), "give two or more inside (0, 1), increasing")
    require(prior > 0, "prior", prior, "give a positive number of transforms, such as 50")
    require(half_life is None or half_life > 0, "half_life", half_life, "give a positive number of rows, or None")
    if groups is not None and groups.shape != pits.shape[-1:]:
        raise ArgumentError(
            f"groups are labels of {tuple(groups.shape)}, and the transforms have {pits.shape[-1]} assets."
        )
    if trained_through is not None:
        if dates is None or len(dates) != len(pits):
            raise ArgumentError("trained_through needs the dates of the transforms, one for each row: pass dates=.")
        require_unseen(dates, pd.Timestamp(trained_through))
    there = pits.isfinite() if mask is None else pits.isfinite() & mask
    there = there if state is None else first_of_session(state, there)
    u = torch.where(there, pits.double(), 0.5)
    if not ((u >= 0) & (u <= 1)).all():
        raise ArgumentError(f"transforms lie in [0, 1], not in [{u.min():.3g}, {u.max():.3g}].")
    w = recency(len(pits), half_life, u).reshape(-1, *[1] * (u.ndim - 1)) * there
    total = w.sum(0)
    below = torch.stack([(w * (u <= knot)).sum(0) for knot in knots], dim=-1)  # [*H, N, K + 1]
    if groups is not None:
        for group in members(groups):
            total[..., group] = total[..., group].sum(-1, keepdim=True)
            below[..., group, :] = below[..., group, :].sum(-2, keepdim=True)
    values = (below + prior * knots) / (total + prior)[..., None]
    # A transform of exactly 0 is in the first bin, not before it.
    values = torch.cat([torch.zeros_like(values[..., :1]), values[..., 1:-1], torch.ones_like(values[..., :1])], dim=-1)
    return PitMap(knots.expand(values.shape), values)


def recalibrate(forecast: Forecast, map: PitMap) -> Forecast:
    """The forecast with its laws' distribution functions put right; VaR, ES and scores follow.

    Args:
        forecast: whose dates are after those of the transforms that the map was fitted to.
        map: of its horizons and assets, `[H, N, K + 1]`, or broadcast against them.

    Raises:
        ValueError: it is a `CalibratedForecast`, which would be corrected twice.
    """
    require_raw(forecast, "recalibrate")
    return replace(forecast, distribution=Recalibrated(forecast.marginals, map))
