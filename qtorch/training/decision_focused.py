"""Training a forecaster by what the portfolios that are chosen on its scenarios earn."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from qtorch.data.datamodule import DataModule
from qtorch.data.window import Window
from qtorch.distributions.checks import require
from qtorch.portfolio import ScenarioProgram, portfolio_returns
from qtorch.training.forecaster import Forecaster
from qtorch.training.objectives import Objective

_NEEDS_JOINT = "a {} has no joint scenarios with gradients. Give the Forecaster a JointHead."


@dataclass(frozen=True)
class DecisionFocused(Objective):
    """The realised loss of the weights that are best on the forecast's scenarios: its gradient reaches the forecast.

    The scenarios are reparameterised draws of the joint law with the same random numbers at every step. The loss is the
    program's own utility of what the weights earned, over the batch's outcomes at each horizon: variances and tails are
    the batch's. Assets without an outcome are not in the universe.

    A proper score it is not: any law of the same best weights is as good. It is best added to the log score, or used
    for a few steps after it. The unit is that of the law: in a `Forecaster`'s own objective that of the window's scale,
    so that weights are exposures to assets of like volatility; `decision_loss` is in returns.

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
    """

    program: ScenarioProgram
    draws: int = 256
    seed: int = 0
    name = "decision"

    def __post_init__(self) -> None:
        """Checks the settings."""
        require(self.draws >= 2, "draws", self.draws, "give at least 2, from which there is a variance")
        if self.program.needs_holdings:
            raise ValueError("the program limits turnover, and nothing is held here: give one of turnover=None.")

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
            raise ValueError(_NEEDS_JOINT.format(type(distribution).__name__))
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
        raise ValueError(_NEEDS_JOINT.format(type(distribution).__name__))


def decision_loss(model: Forecaster, window: Window, objective: DecisionFocused) -> Float[Tensor, ""]:
    """What a forecaster's decisions lose in a batch of windows in panel layout, in returns; the mean over horizons.

    Args:
        model: of a joint law.
        window: a batch.
        objective: how weights are chosen and valued.

    Raises:
        ValueError: the law is not joint.
    """
    losses = objective(model(window), window.target, window.target_mask)
    there = window.target_mask.any(-1)
    return losses.sum() / there.sum().clamp(min=1)


def fit_decisions(
    model: Forecaster,
    data: DataModule,
    objective: DecisionFocused,
    *,
    steps: int = 20,
    learning_rate: float = 1e-3,
    weight: float = 1.0,
    score: float = 1.0,
) -> list[float]:
    """Trains a forecaster in place for a few steps by its decisions in returns, beside its own objective.

    For a model that `fit` has trained by the log score. On whatever device the model is; in evaluation mode after it.

    Args:
        model: of a joint law, with an encoder in panel layout.
        data: its windows.
        objective: how weights are chosen and valued.
        steps: batches.
        learning_rate: Adam's, constant.
        weight: of the decision's loss, which is of the size of a return.
        score: of the model's own objective; 0 leaves it out.

    Returns:
        The decision's loss at each step.

    Raises:
        ValueError: the model can't be trained on the data, a weight is negative, or the law is not joint.
        FloatingPointError: a loss is not finite.
    """
    require(steps >= 1, "steps", steps, "give at least 1")
    require(weight > 0 and score >= 0, "weight, score", (weight, score), "give a positive and a non-negative number")
    model.check(data)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    model.train()
    lost: list[float] = []
    while len(lost) < steps:
        for window in data.train_dataloader():
            batch = window.to(model.device)
            decided = decision_loss(model, batch, objective)
            loss = weight * decided + (score * model.mean_loss(batch) if score else 0.0)
            if not loss.isfinite():
                raise FloatingPointError(
                    f"step {len(lost)}: the loss is {loss.item()}, the decision's {decided.item()}: lower the learning "
                    "rate, or bound the weights."
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            lost.append(decided.item())
            if len(lost) == steps:
                break
    model.eval()
    return lost
