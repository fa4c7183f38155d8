"""Heads of outcomes that are no returns: normal and Student-t laws of any median and scale."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from qtorch.distributions import StudentT
from qtorch.heads.parametric import Parameters, Parametric


class RegressionHead(Parametric):
    """A head without the bounds that returns have: the median may be anywhere."""

    def __init__(self, in_features: int, size: int) -> None:
        super().__init__(in_features, (1,), size)
        self.project.reset_parameters()

    def median_and_scale(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The first two numbers, any and positive."""
        return raw[..., 0], nn.functional.softplus(raw[..., 1]) + 1e-3


class NormalRegression(RegressionHead):
    """Normal outcomes."""

    def __init__(self, in_features: int) -> None:
        super().__init__(in_features, 2)

    def constrain(self, raw: Tensor) -> Parameters:
        """Parameters of the law."""
        return self.median_and_scale(raw)

    def distribution(self, *parameters: Tensor) -> Distribution:
        """The law of parameters."""
        return torch.distributions.Normal(*parameters, validate_args=False)


class StudentTRegression(RegressionHead):
    """Student-t outcomes of more than two degrees of freedom."""

    def __init__(self, in_features: int) -> None:
        super().__init__(in_features, 3)

    def constrain(self, raw: Tensor) -> Parameters:
        """Parameters of the law."""
        return 2 + nn.functional.softplus(raw[..., 2] + 3), *self.median_and_scale(raw)

    def distribution(self, *parameters: Tensor) -> Distribution:
        """The law of parameters."""
        return StudentT(*parameters, validate_args=False)
