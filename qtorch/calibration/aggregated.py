"""Adaptive conformal inference without a step to choose: experts with several steps, weighted by how they did."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from qtorch.calibration.adaptive import checked_floor
from qtorch.calibration.online import Correction, OnlineCalibrator
from qtorch.calibration.outcomes import Outcomes
from qtorch.distributions.checks import require
from qtorch.risk.scores.quantiles import tick_loss


class AggregatedAdaptiveConformal(OnlineCalibrator):
    """DtACI: the mean mass of several `AdaptiveConformal` with steps of their own, weighted by their past losses.

    Expert i has alpha_i with step gamma_i. With u the transform of the outcome its loss is the tick loss l of alpha_i
    as a p-quantile of u; weights are exponential in past losses and leak to all experts,

        v_i = w_i exp(-eta l(u, alpha_i)),   w_i = (1 - sigma) v_i / sum(v) + sigma / K,
        eta = sqrt(3 / I) sqrt((log(I K) + 2) / ((1 - p)^2 p^3 + (1 - p)^3 p^2)),   sigma = 1 / (2 I).

    Guarantee: the tick loss is convex, so that over any `span` I of outcomes the mean loss of the mass issued exceeds
    that of any slowly moving mass by little (a dynamic regret bound). Unlike `AdaptiveConformal`'s, the long-run share
    of exceedances is no identity: with constant eta and sigma it need not come to p. Nothing is guaranteed for a
    particular night. With `groups` losses are means over the members whose outcomes became known, which are convex too.

    Masses are clamped to [floor, 1 - floor] where they are issued.

    Args:
        levels: confidence levels.
        gammas: steps of the experts, in units of p.
        span: I, the number of outcomes over which regret is small; 500 is the paper's.
        floor: least mass that is issued.
        groups: as of `OnlineCalibrator`.
        trained_through: as of `OnlineCalibrator`.

    Raises:
        ValueError: steps are none or not positive, the span is below 2, or the floor is not below all masses.

    References:
        Gibbs and Candes (2024), Conformal inference for online prediction with arbitrary distribution shifts, Journal
        of Machine Learning Research 25.
    """

    def __init__(
        self,
        levels: Sequence[float],
        gammas: Sequence[float] = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
        span: int = 500,
        floor: float = 1e-6,
        groups: Mapping[str, str | None] | None = None,
        trained_through: str | pd.Timestamp | None = None,
    ) -> None:
        super().__init__(levels, groups, trained_through)
        self.gammas, self.span = tuple(gammas), span
        self.floor = checked_floor(floor, self.levels)
        sound = len(self.gammas) > 0 and all(gamma > 0 for gamma in self.gammas)
        require(sound, "gammas", self.gammas, "give positive steps in units of 1 - level, such as 0.1")
        require(span >= 2, "span", span, "give a number of outcomes of 2 or more, such as 500")

    def _initial(self, H: int, N: int) -> dict[str, Tensor]:
        K = len(self.gammas)
        alpha = self._masses().repeat(K, 1, H, N)
        return {"alpha": alpha, "weight": torch.full_like(alpha, 1 / K)}

    def _issue(self, state: dict[str, Tensor], group: Tensor) -> Correction:
        mass = (state["weight"] * state["alpha"]).sum(0).clamp(self.floor, 1 - self.floor)
        return mass, torch.zeros_like(mass)

    def _learn(self, state: dict[str, Tensor], outcomes: Outcomes) -> dict[str, Tensor]:
        alpha, weight = state["alpha"], state["weight"]
        K, I, p = len(self.gammas), self.span, self._masses(alpha)  # noqa: E741
        eta = math.sqrt(3 / I) * torch.sqrt((math.log(I * K) + 2) / ((1 - p) ** 2 * p**3 + (1 - p) ** 3 * p**2))
        sigma = 1 / (2 * I)
        v = weight * torch.exp(-eta * outcomes.mean(tick_loss(outcomes.pit, alpha, p)))
        v = (1 - sigma) * v / v.sum(0) + sigma / K
        gamma = alpha.new_tensor(self.gammas)[:, None, None, None] * p
        error = outcomes.mean((outcomes.pit < alpha).double())
        return {
            "alpha": torch.where(outcomes.taught, alpha + gamma * (p - error), alpha),
            "weight": torch.where(outcomes.taught, v, weight),
        }
