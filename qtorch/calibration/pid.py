"""Conformal PID control: a shift of the value at risk that tracks its error, adds up errors and may forecast scores."""

import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from qtorch.calibration.memory import pushed
from qtorch.calibration.online import Correction, OnlineCalibrator
from qtorch.calibration.outcomes import Outcomes
from qtorch.distributions.checks import require


class ConformalPID(OnlineCalibrator):
    """Shifts VaR by a controller of its exceedances, in units of the forecast's scale.

    The score is s_t = (loss - raw VaR) / scale, and an exceedance, err_t = 1, one of s_t above the shift issued,

        shift_{t+1} = q_{t+1} + r_t(sum of (err - p)) + g_t,
        q_{t+1} = q_t + eta (err_t - p)                                     quantile tracking (P),
        r_t(x) = K_I tan(x log(t + 1) / ((t + 1) C_sat))                    error integration (I), saturated,
        g_t a forecast of the next scores' quantile from past ones          scorecasting (D), by default 0.

    Guarantee, for any sequence whose scores stay inside [-b, b], after T outcomes: without the integrator and the
    scorecaster |mean(err) - p| <= (b + eta) / (eta T); with the integrator, if q_t + g_t stays inside [-c, c] and the
    `limit` of |r_t| is at least b + c,

        |mean(err) - p| <= (C_sat pi (T + 1) / (2 log(T + 1)) + 1) / T,

    which falls as 1 / log T. Long times, each series on its own; none for a particular night. Outcomes that come h
    sessions late make the 1 an h, and the eta in b + eta an h eta. With `groups` err_t is the mean error of the members
    whose outcomes became known on the t-th row that taught the group, and h as of `AdaptiveConformal`.

    Args:
        levels: confidence levels.
        eta: step of the tracker in units of the scale; one for all levels, or one for each.
        integral_gain: K_I in units of the scale; 0 switches the integrator off.
        saturation: C_sat; smaller integrates harder.
        limit: largest shift by the integrator, in units of the scale.
        scorecaster: of the last scores `[memory, L, H, N]`, oldest first and NaN where there are none, the shift to
            expect next, `[L, H, N]`.
        memory: how many scores are kept for it.
        groups: as of `OnlineCalibrator`; scores are each asset's own.
        trained_through: as of `OnlineCalibrator`.

    Raises:
        ValueError: a setting is not positive, or there is not one step for each level.

    References:
        Angelopoulos, Candes and Tibshirani (2023), Conformal PID control for time series prediction, NeurIPS, sections
        2.1 to 2.3, propositions 1 and 2.
    """

    own_state = ("scores",)

    def __init__(
        self,
        levels: Sequence[float],
        eta: float | Sequence[float] = 0.1,
        integral_gain: float = 1.0,
        saturation: float = 1.0,
        limit: float = 10.0,
        scorecaster: Callable[[Tensor], Tensor] | None = None,
        memory: int = 250,
        groups: Mapping[str, str | None] | None = None,
        trained_through: str | pd.Timestamp | None = None,
    ) -> None:
        super().__init__(levels, groups, trained_through)
        self.eta, self.integral_gain, self.saturation, self.limit = eta, integral_gain, saturation, limit
        self.scorecaster, self.memory = scorecaster, memory
        self._etas = [eta] * len(self.levels) if isinstance(eta, float) else list(eta)
        fits = len(self._etas) == len(self.levels) and all(step > 0 for step in self._etas)
        require(fits, "eta", eta, f"give a positive step, or one for each of {len(self.levels)} levels")
        require(integral_gain >= 0, "integral_gain", integral_gain, "give 0 or more, in units of the scale")
        require(saturation > 0, "saturation", saturation, "give a positive number, such as 1")
        require(limit > 0, "limit", limit, "give a positive number of scales, such as 10")
        require(memory >= 1, "memory", memory, "give a number of scores of 1 or more")

    def _initial(self, H: int, N: int) -> dict[str, Tensor]:
        L = len(self.levels)
        state = {name: torch.zeros(L, H, N, dtype=torch.float64) for name in ("tracked", "errors")}
        state["count"] = torch.zeros(H, N, dtype=torch.float64)
        if self.scorecaster is not None:
            state["scores"] = torch.full((self.memory, L, H, N), torch.nan, dtype=torch.float64)
        return state

    def _issue(self, state: dict[str, Tensor], group: Tensor) -> Correction:
        t = state["count"]
        angle = state["errors"] * torch.log(t + 1) / ((t + 1) * self.saturation)
        # The clamp keeps tan on its rising branch; where it acts, `limit` already does.
        integrated = self.integral_gain * torch.tan(angle.clamp(-math.pi / 2 + 1e-6, math.pi / 2 - 1e-6))
        shift = state["tracked"] + integrated.clamp(-self.limit, self.limit)
        if self.scorecaster is not None:
            shift = shift + self.scorecaster(state["scores"])
        return self._masses(shift).expand(shift.shape), shift

    def _learn(self, state: dict[str, Tensor], outcomes: Outcomes) -> dict[str, Tensor]:
        tracked, errors = state["tracked"], state["errors"]
        eta = tracked.new_tensor(self._etas)[:, None, None]
        error = outcomes.mean((outcomes.excess > outcomes.shift).double()) - self._masses(tracked)
        new = {
            "tracked": torch.where(outcomes.taught, tracked + eta * error, tracked),
            "errors": torch.where(outcomes.taught, errors + error, errors),
            "count": state["count"] + outcomes.taught.double(),
        }
        if self.scorecaster is not None:
            new["scores"] = pushed(state["scores"], outcomes.excess, outcomes.mask)
        return new
