"""Adaptive conformal inference: the left-tail mass moves with each exceedance."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from qtorch.calibration.online import Correction, OnlineCalibrator
from qtorch.calibration.outcomes import Outcomes
from qtorch.distributions.checks import require


class AdaptiveConformal(OnlineCalibrator):
    """Reads each law's quantile at a left-tail mass that falls after an exceedance and rises else.

        alpha_{t+1} = alpha_t + gamma (p - err_t),   err_t = 1{return below the VaR issued},   p = 1 - level.

    Guarantee, for any sequence of forecasts and outcomes: after T outcomes

        mean(err) - p = (alpha_1 - alpha_{T+1}) / (gamma T),

    and, if no return is below the quantile at mass `floor` while alpha is at or below it, nor above that at 1 - floor
    while alpha is at or above it, alpha stays inside [-gamma, 1 + gamma], so that

        |mean(err) - p| <= (max(alpha_1, 1 - alpha_1) + gamma) / (gamma T).

    (Gibbs and Candes' own quantiles are infinite there.) It is a guarantee over long times, of each series on its own;
    none is given for a particular night, market or volatility. Outcomes that come h sessions late leave the identity as
    it is, and alpha inside [-h gamma, 1 + h gamma].

    With `groups` T counts the rows that taught a group, and err_t is the mean error of the members whose outcomes
    became known on the t-th of them. Both statements then hold as they stand, for members that come, go and pause too;
    the condition is asked of every member, and h is the most steps of the group from a mass to an outcome of it.

    alpha itself may leave (0, 1); the mass that is issued is clamped to [floor, 1 - floor], so that numbers are finite.
    With thin tails the VaR at the floor is far out, and additive steps reach it after a few exceedances near each
    other.

    `relative` steps multiply the mass instead, log(alpha_{t+1} / alpha_t) = gamma (p - err_t), so that it never gets to
    0: an exceedance lowers it by the factor exp(-gamma (1 - p)). It is the quantile tracking of `ConformalPID` on the
    score -log(transform). The identity is mean(err) - p = log(alpha_1 / alpha_{T+1}) / (gamma T), and under the same
    condition |mean(err) - p| <= (max(log(alpha_1 / floor), log(1 / alpha_1)) + gamma) / (gamma T).

    Args:
        levels: confidence levels, each adapted on its own.
        gamma: step; one for all levels, or one for each. An exceedance lowers alpha by nearly gamma, so steps much
            larger than p make the VaR swing. By default p / 5, so that an exceedance lowers the mass by a fifth of the
            nominal; of relative steps .4, so that it lowers the mass by a third.
        floor: least mass that is issued.
        relative: whether steps multiply the mass.
        groups: as of `OnlineCalibrator`.
        trained_through: as of `OnlineCalibrator`.

    Raises:
        ValueError: a step is not positive, there is not one for each level, or the floor is not below all masses.

    References:
        Gibbs and Candes (2021), Adaptive conformal inference under distribution shift, NeurIPS, equation 2 and
        proposition 4.1.

    Example:
        >>> import pandas as pd
        >>> from torch.distributions import Normal
        >>> from qtorch import Forecast
        >>> dates, there = pd.bdate_range("2024-01-01", periods=500), torch.ones(500, 1, dtype=torch.bool)
        >>> law = Normal(torch.zeros(500, 1, 1), 0.01)
        >>> forecast = Forecast(law, there, 3 * there.byte(), dates, ("A",), (1,))
        >>> returns = 0.02 * torch.randn(500, 1, 1, generator=torch.Generator().manual_seed(0))  # twice as wide
        >>> calibrator = AdaptiveConformal([0.95])
        >>> calibrator.update(forecast, returns)
        >>> last = forecast.select(slice(-1, None))
        >>> round(last.value_at_risk(0.95).item(), 4), calibrator.apply(last).value_at_risk(0.95).item() > 0.025
        (0.0164, True)
    """

    def __init__(
        self,
        levels: Sequence[float],
        gamma: float | Sequence[float] | None = None,
        floor: float = 1e-6,
        relative: bool = False,
        groups: Mapping[str, str | None] | None = None,
        trained_through: str | pd.Timestamp | None = None,
    ) -> None:
        super().__init__(levels, groups, trained_through)
        self.gamma, self.relative = gamma, relative
        self.floor = checked_floor(floor, self.levels)
        if gamma is None:
            self._gammas = [0.4 if relative else (1 - level) / 5 for level in self.levels]
        else:
            self._gammas = [gamma] * len(self.levels) if isinstance(gamma, float) else list(gamma)
        fits = len(self._gammas) == len(self.levels) and all(step > 0 for step in self._gammas)
        require(fits, "gamma", gamma, f"give a positive step, or one for each of {len(self.levels)} levels")

    def _initial(self, H: int, N: int) -> dict[str, Tensor]:
        alpha = self._masses().repeat(1, H, N)
        return {"log_alpha": alpha.log()} if self.relative else {"alpha": alpha}

    def _issue(self, state: dict[str, Tensor], group: Tensor) -> Correction:
        alpha = state["log_alpha"].exp() if self.relative else state["alpha"]
        mass = alpha.clamp(self.floor, 1 - self.floor)
        return mass, torch.zeros_like(mass)

    def _learn(self, state: dict[str, Tensor], outcomes: Outcomes) -> dict[str, Tensor]:
        ((name, alpha),) = state.items()
        gamma = alpha.new_tensor(self._gammas)[:, None, None]
        error = outcomes.mean((outcomes.pit < outcomes.mass).double())
        return {name: torch.where(outcomes.taught, alpha + gamma * (self._masses(alpha) - error), alpha)}


def checked_floor(floor: float, levels: Sequence[float]) -> float:
    """The least mass itself.

    Raises:
        ValueError: it is not positive and below the masses of all levels.
    """
    least = min(min(1 - level, level) for level in levels)
    require(0 < floor < least, "floor", floor, f"give a mass inside (0, {least:.3g}), such as 1e-6")
    return floor
