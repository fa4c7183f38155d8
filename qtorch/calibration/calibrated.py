"""A forecast whose values at risk have been corrected."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.distributions import Distribution

from qtorch.distributions import take
from qtorch.distributions.cumulative import icdf
from qtorch.distributions.tails import tail_mean
from qtorch.errors import ArgumentError
from qtorch.forecast import Forecast


@dataclass(frozen=True, eq=False, repr=False)  # Forecast's, with its own name
class CalibratedForecast(Forecast):
    """A forecast read at corrected left-tail masses, and shifted.

    VaR at a level is minus the law's quantile at `mass` plus `shift`, ES minus the tail mean there plus `shift`: both
    keep the shape of the law's tail. The bounds of `epistemic_interval` are of each draw's quantile at the same mass,
    with the same shift. Law, volatility, `decompose`, transforms, scenarios and portfolios are the raw forecast's.
    Corrections of several levels are made one by one; VaR at 99 % may lie below VaR at 95 % where they differ much.

    Attributes:
        levels: confidence levels that have a correction.
        mass: left-tail masses in (0, 1), for each level.
        shift: in decimals, positive where losses were underestimated.
    """

    levels: tuple[float, ...]
    mass: Float64[Tensor, "L D H N"]
    shift: Float64[Tensor, "L D H N"]

    def value_at_risk(self, level: float) -> Float64[Tensor, "D H N"]:
        """Positive loss, corrected.

        Raises:
            ValueError: the level has no correction.
        """
        return self._masked(self._at_risk(self.marginals, level))

    def expected_shortfall(self, level: float) -> Float64[Tensor, "D H N"]:
        """Positive mean loss beyond the corrected value at risk, under the corrected law.

        Raises:
            ValueError: the level has no correction.
        """
        k = self._place(level)
        return self._masked(self.shift[k] - tail_mean(self.marginals, self.mass[k]))

    def select(self, dates: slice) -> "CalibratedForecast":
        """The forecasts of some of the dates, by position."""
        return CalibratedForecast(
            take(self.distribution, dates),
            self.mask[dates],
            self.state[dates],
            self.dates[dates],
            self.assets,
            self.horizons,
            self.levels,
            self.mass[:, dates],
            self.shift[:, dates],
        )

    def to_frame(self, levels: Iterable[float] | None = None) -> pd.DataFrame:
        """A tidy frame as of `Forecast.to_frame`, of all corrected levels by default."""
        return super().to_frame(self.levels if levels is None else levels)

    def _at_risk(self, law: Distribution, level: float) -> Tensor:
        """That of a draw, corrected as that of all together is."""
        k = self._place(level)
        draws = (..., *[None] * (len(law.batch_shape) - self.mask.ndim - 1))
        return self.shift[k][draws] - icdf(law, self.mass[k][draws])

    def _place(self, level: float) -> int:
        if level not in self.levels:
            raise ArgumentError(f"level={level}: this forecast is calibrated at {self.levels} alone.")
        return self.levels.index(level)


def require_raw(forecast: Forecast, wanted: str) -> None:
    """Refuses a corrected forecast where laws are changed: its masses and shifts are of the law that it has.

    Args:
        forecast: any.
        wanted: what is to be done with it.

    Raises:
        ValueError: it is a `CalibratedForecast`.
    """
    if isinstance(forecast, CalibratedForecast):
        raise ArgumentError(
            f"{wanted} takes raw forecasts, and this one has been corrected by a calibrator, whose masses and shifts "
            "are of its own raw law. Give the forecast from before the calibrator, and calibrate what comes of it."
        )


def scale_of(forecast: Forecast) -> Float64[Tensor, "D H N"]:
    """The unit of shifts: the interquartile range over a normal law's, which every law has, with tails or without.

    NaN where there is no forecast or the range is zero.
    """
    law = forecast.marginals
    low, high = (icdf(law, torch.tensor(p, dtype=torch.float64)) for p in (0.25, 0.75))
    scale = forecast._masked((high - low) / 1.3489795003921634)
    return torch.where(scale > 0, scale, torch.nan)
