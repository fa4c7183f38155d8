"""Laws of what is left around a mean, their scale and tail affine in the hidden state before they are bounded."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Normal

from qtorch import distributions
from qtorch.heads.bounds import degrees_of_freedom, factor_of_volatility
from qtorch.heads.parametric import Parameters


class Noise(ABC):
    """A law around a mean that is given from elsewhere.

    Attributes:
        size: raw numbers of the law.
        names: of its parameters.
    """

    size: int
    names: tuple[str, ...]

    @abstractmethod
    def parameters(self, raw: Float[Tensor, "*batch H size"], root_horizon: Float[Tensor, " H"]) -> Parameters:
        """The noise's parameters, each `[*batch, H]`, its scale last."""

    @abstractmethod
    def around(self, loc: Tensor, *noise: Tensor) -> Distribution:
        """The law of the noise around a mean."""


class NormalNoise(Noise):
    """Normal, of a volatility that is sqrt(h) times a factor between 1/8 and 8."""

    size = 1
    names = ("scale",)

    def parameters(self, raw: Float[Tensor, "*batch H 1"], root_horizon: Float[Tensor, " H"]) -> Parameters:
        """The scale."""
        return (root_horizon * factor_of_volatility(raw[..., 0]),)

    def around(self, loc: Tensor, *noise: Tensor) -> Normal:
        """A normal law."""
        (scale,) = noise
        return Normal(loc, scale, validate_args=False)


class StudentTNoise(Noise):
    """Student's t, of 2.1 to 60 degrees of freedom and a volatility as the normal's."""

    size = 2
    names = ("df", "scale")

    def parameters(self, raw: Float[Tensor, "*batch H 2"], root_horizon: Float[Tensor, " H"]) -> Parameters:
        """Degrees of freedom and scale."""
        df = degrees_of_freedom(raw[..., 0])
        return df, root_horizon * factor_of_volatility(raw[..., 1]) * torch.sqrt((df - 2) / df)

    def around(self, loc: Tensor, *noise: Tensor) -> distributions.StudentT:
        """Student's t."""
        df, scale = noise
        return distributions.StudentT(df, loc, scale, validate_args=False)
