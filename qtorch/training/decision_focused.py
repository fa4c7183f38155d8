"""Training a forecaster by what the portfolios that are chosen on its scenarios earn."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError
from qtorch.portfolio import ScenarioProgram, portfolio_returns
from qtorch.training.objectives import Objective

_NEEDS_JOINT = "a {} has no joint scenarios with gradients. Give the Forecaster a JointHead."


@dataclass(frozen=True)
class DecisionFocused(Objective):
    """The realised loss of the weights that are best on the forecast's scenarios: its gradient reaches the forecast.

    The scenarios are reparameterised draws of the joint law with the same random numbers at every step. The loss is the
    program's own utility of what the weights earned, over the batch's outcomes at each horizon: variances and tails are
    the batch's. Assets without an outcome are not in the universe.

    A proper score it is not: any law of the same best weights is as good. It is best added to the log score, or a model
    that was trained by that is trained on for a few steps with it. It is of the size of a return, or of its square, so
    that its weight has to be large.

    Attributes:
        program: from scenarios to weights, without limits or costs of trading, since nothing is held. Least tail risk
            needs a `smoothing`, or the gradient is that of a vertex.
        draws: S, scenarios.
        seed: of the draws, apart from torch's generator.

    Raises:
        ValueError: the program limits turnover, there are fewer than two draws, or, when it is called, the law is of
            one asset or can't be reparameterised.

    References:
        Donti, Amos and Kolter (2017), Task-based end-to-end model learning in stochastic optimization, NeurIPS;
        Costa and Iyengar (2023), Distributionally robust end-to-end portfolio construction, Quantitative Finance 23.

    Example:
        >>> from qtorch.portfolio import Constraints, MeanVariance
        >>> from qtorch.training import LogScore
        >>> program = ScenarioProgram(MeanVariance(risk_aversion=10.0), Constraints(upper=0.3))
        >>> mix = LogScore() + 100.0 * DecisionFocused(program)  # Forecaster(..., objective=mix)
        >>> [score.name for _, score in mix.terms]
        ['log_score', 'decision']
    """

    program: ScenarioProgram
    draws: int = 256
    seed: int = 0
    name = "decision"
    in_returns = True

    def __post_init__(self) -> None:
        """Checks the settings."""
        require(self.draws >= 2, "draws", self.draws, "give at least 2, from which there is a variance")
        if self.program.needs_holdings:
            raise ArgumentError("the program limits turnover, and nothing is held here: give one of turnover=None.")

    def weights(self, distribution: Distribution, mask: Tensor) -> Tensor:
        """The best weights on the scenarios of a joint law.

        Args:
            distribution: batch shape `[...]`, event `[N]`.
            mask: the universe `[... N]`.

        Returns:
            `[... N]`.

        Raises:
            ValueError: the law is not joint, or its draws have no gradient.
        """
        if not distribution.event_shape or not distribution.has_rsample:
            raise ArgumentError(_NEEDS_JOINT.format(type(distribution).__name__))
        devices = [mask.device] if mask.is_cuda else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.seed)
            scenarios = distribution.rsample(torch.Size([self.draws]))
        N = mask.shape[-1]
        return self.program(scenarios.reshape(self.draws, -1, N), mask.reshape(-1, N)).reshape(mask.shape)

    def _joint_losses(self, joint: Any, outcomes: Tensor, mask: Tensor) -> Tensor:
        earned = portfolio_returns(self.weights(joint, mask), outcomes, mask)
        there = mask.any(-1)
        # Horizons are the last axis of a batch; each has moments of its own.
        flat, here = (x.reshape(-1, x.shape[-1]).mT for x in (earned, there))
        return self.program.utility.losses(flat, here).mT.reshape(earned.shape)

    def _losses(self, distribution: Distribution, outcomes: Tensor, mask: Tensor) -> Tensor:
        raise ArgumentError(_NEEDS_JOINT.format(type(distribution).__name__))
