"""What training minimises: scores of forecast distributions, alone or in a weighted sum."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.distributions import Distribution

from qtorch.distributions import tail_mean
from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError
from qtorch.risk.measures.tail import checked_level
from qtorch.risk.scores import crps, fz0, log_score, pinball

LEVELS = (0.99, 0.975, 0.95)


class Objective(ABC):
    """A loss of a forecast distribution and an outcome, lowest in expectation for the true distribution.

    Objectives add up and take positive weights: `LogScore() + 0.5 * FZ0()`.

    Attributes:
        name: of its values.
        in_returns: whether it scores returns, and not returns over the window's scale, when a model is trained: for
            what depends on how assets' returns compare in size.
    """

    name: str
    in_returns: bool = False

    def __call__(self, distribution: Distribution, outcomes: Tensor, mask: Tensor) -> Tensor:
        """The loss of each outcome.

        Args:
            distribution: forecast, batch shape `[...]`.
            outcomes: `[...]`, in the unit of the forecast; in training the window's scale, unless `in_returns`.
            mask: `[...]`, which outcomes count.

        Returns:
            Losses `[...]`; 0 outside the mask, NaN where the forecast is. Of a joint law of event `[N]` they are per
            observed asset, `[...]` without N: minus the joint log density of the observed over their number, and the
            mean over them of other scores, of the marginals.
        """
        if distribution.event_shape:
            return self._joint_losses(distribution, outcomes, mask)
        return torch.where(mask, self._losses(distribution, outcomes, mask), 0.0)

    @abstractmethod
    def _losses(self, distribution: Distribution, outcomes: Tensor, mask: Tensor) -> Tensor:
        """The same, with anything outside the mask."""

    def _joint_losses(self, joint: Any, outcomes: Tensor, mask: Tensor) -> Tensor:
        """Of a joint law: the mean over the observed assets, 0 where there is none."""
        if joint.marginals is None:
            raise ArgumentError(
                f"{self.name} scores marginals, which a {type(joint).__name__} has not in closed form: give LogScore()."
            )
        return self(joint.marginals, outcomes, mask).sum(-1) / mask.sum(-1).clamp(min=1)

    @property
    def terms(self) -> tuple[tuple[float, "Objective"], ...]:
        """The scores it is made of, with their weights."""
        return ((1.0, self),)

    def __add__(self, other: "Objective") -> "Mix":
        terms = (*self.terms, *other.terms)
        return Mix([objective for _, objective in terms], [weight for weight, _ in terms])

    def __rmul__(self, weight: float) -> "Mix":
        return Mix([objective for _, objective in self.terms], [weight * own for own, _ in self.terms])


@dataclass(frozen=True)
class LogScore(Objective):
    """Minus the log density, in nats: maximum likelihood."""

    name = "log_score"

    def _losses(self, distribution: Distribution, outcomes: Tensor, mask: Tensor) -> Tensor:
        return log_score(distribution, outcomes, mask)

    def _joint_losses(self, joint: Any, outcomes: Tensor, mask: Tensor) -> Tensor:
        return -joint.log_prob(outcomes, mask) / mask.sum(-1).clamp(min=1)


@dataclass(frozen=True)
class CRPS(Objective):
    """The continuous ranked probability score, in units of the scale: less moved by outliers than the log score."""

    name = "crps"

    def _losses(self, distribution: Distribution, outcomes: Tensor, mask: Tensor) -> Tensor:
        return crps(distribution, outcomes, mask)


@dataclass(frozen=True)
class Pinball(Objective):
    """The mean tick loss of values at risk, in units of the scale.

    Attributes:
        levels: confidences.
    """

    levels: Sequence[float] = LEVELS
    name = "pinball"

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", _levels(self.levels))

    def _losses(self, distribution: Distribution, outcomes: Tensor, mask: Tensor) -> Tensor:
        quantiles = distribution.icdf(_masses(self.levels, outcomes))
        losses = [pinball(outcomes, -q, level, mask) for q, level in zip(quantiles, self.levels, strict=True)]
        return torch.stack(losses).mean(0)


@dataclass(frozen=True)
class FZ0(Objective):
    """The mean joint loss of values at risk and expected shortfalls, which trains the left tail and nothing else.

    Its derivative in the value at risk is that of the tick loss over p times the expected shortfall. The body of the
    distribution gets its gradient through the tail alone, so that it is best added to another score.

    Attributes:
        levels: confidences.

    References:
        Patton, Ziegel and Chen (2019), Journal of Econometrics 211, equation 6.
    """

    levels: Sequence[float] = LEVELS
    name = "fz0"

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", _levels(self.levels))

    def _losses(self, distribution: Distribution, outcomes: Tensor, mask: Tensor) -> Tensor:
        masses = _masses(self.levels, outcomes)
        quantiles, means = distribution.icdf(masses), tail_mean(distribution, masses)
        losses = [fz0(outcomes, -q, -e, level, mask) for q, e, level in zip(quantiles, means, self.levels, strict=True)]
        return torch.stack(losses).mean(0)


@dataclass(frozen=True)
class Mix(Objective):
    """A weighted sum of scores.

    Attributes:
        objectives: the scores; no two of one name.
        weights: positive, one each; all 1 by default.

    Raises:
        ValueError: a weight is not positive, there is not one each, or two scores have one name.

    Example:
        >>> mix = LogScore() + 0.5 * FZ0((0.975,))
        >>> mix == Mix([LogScore(), FZ0((0.975,))], [1.0, 0.5])
        True
    """

    objectives: Sequence[Objective]
    weights: Sequence[float] | None = None
    name = "mix"

    def __post_init__(self) -> None:
        given = [1.0] * len(self.objectives) if self.weights is None else [float(weight) for weight in self.weights]
        require(
            len(given) == len(self.objectives) > 0 and all(0 < weight < float("inf") for weight in given),
            "weights",
            self.weights,
            f"give a positive number for each of the {len(self.objectives)} objectives",
        )
        flat = [
            (outer * inner, score)
            for outer, objective in zip(given, self.objectives, strict=True)
            for inner, score in objective.terms
        ]
        names = [score.name for _, score in flat]
        require(len(set(names)) == len(names), "objectives", names, "give each score once, with all its levels in it")
        object.__setattr__(self, "objectives", tuple(score for _, score in flat))
        object.__setattr__(self, "weights", tuple(weight for weight, _ in flat))

    @property
    def terms(self) -> tuple[tuple[float, Objective], ...]:
        """The scores it is made of, with their weights."""
        return tuple(zip(self.weights or (), self.objectives, strict=True))

    def _losses(self, distribution: Distribution, outcomes: Tensor, mask: Tensor) -> Tensor:
        losses = [weight * score(distribution, outcomes, mask) for weight, score in self.terms]
        return torch.stack(losses).sum(0)

    def _joint_losses(self, joint: Any, outcomes: Tensor, mask: Tensor) -> Tensor:
        return self._losses(joint, outcomes, mask)


def _levels(levels: Sequence[float]) -> tuple[float, ...]:
    require(len(levels) > 0, "levels", levels, "give at least one confidence, such as 0.99")
    return tuple(checked_level(float(level)) for level in levels)


def _masses(levels: Sequence[float], outcomes: Tensor) -> Float64[Tensor, "levels ..."]:
    """Left-tail masses in front of the outcomes' axes: all levels in one call, whose cost is mostly its own."""
    masses = torch.tensor([1 - level for level in levels], dtype=torch.float64, device=outcomes.device)
    return masses.reshape(-1, *(1,) * outcomes.ndim)
