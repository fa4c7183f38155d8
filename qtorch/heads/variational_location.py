"""Heads whose mean alone is unsure: the evidence bound without Monte Carlo."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions import Posterior
from qtorch.distributions.checks import require
from qtorch.heads.gaussian_weights import Covariance, GaussianWeights
from qtorch.heads.noise import Noise, NormalNoise, StudentTNoise
from qtorch.heads.parametric import Parameters

_EXACT = 12  # nodes in training


class Location(Protocol):
    """A Gaussian posterior of a function of the hidden state for each horizon, such as `GaussianWeights`."""

    def moments(self, hidden: Float[Tensor, "*batch D"]) -> tuple[Float[Tensor, "*batch H"], Float[Tensor, "*batch H"]]:
        """The posterior's mean and variance at hidden states."""

    def penalty(self) -> Float[Tensor, ""]:
        """The divergence of the posterior from the prior in nats."""


class VariationalLocation(nn.Module):
    """Y = f(hidden) + s(hidden) e with a Gaussian posterior of the function f for each horizon.

    Given the hidden state f is a number, N(m, v), so that both the bound's expected log likelihood and the forecast
    are integrals over it. They are sums over nodes of it. In training these are 12 of Gauss and Hermite's: with normal
    noise the sum is exact, log N(y; m, s^2) - v / (2 s^2). Forecasts take `draws` nodes of equal weight, spread as
    normal quantiles and scaled to unit variance: mean, variance and its parts are exact. Each node is one of the
    mean's quantiles, not one function of the hidden state.

    With Student noise of scale s the expected log likelihood of the 12 nodes is wrong in nats, at the worst outcome, by
    at most 1.3e-4 for 2.1 degrees of freedom, 3.5e-5 for 3 and 1.6e-6 for 6 if sqrt(v) = s, and by 9.5e-3, 5.2e-3 and
    1.1e-3 if sqrt(v) = 2 s. A normal forecast's distribution function of 32 draws is within 0.0019 of
    N(m, s^2 + v)'s if sqrt(v) = s, and 0.0039 if it is 2 s; the errors fall as 1 over the draws.

    Like `Variational`, the bound counts the returns of one date as independent given the hidden states.

    The mean is not bounded, as that of other heads is.

    Args:
        in_features: hidden width `D`.
        horizons: the horizons in sessions, `H` of them.
        location: the posterior of f, a module.
        noise: the law of e and its scale s, affine in the hidden state before it is bounded.
        draws: nodes `K` of forecasts.

    Raises:
        ValueError: fewer than 2 draws.

    References:
        Harrison, Willes and Snoek (2024), Variational Bayesian last layers, ICLR, theorem 1 for normal noise.
    """

    location: Location
    root_horizon: Tensor
    even: Tensor
    exact: Tensor

    def __init__(
        self, in_features: int, horizons: Sequence[int], location: nn.Module, noise: Noise, draws: int
    ) -> None:
        super().__init__()
        require(draws > 1, "draws", draws, "give at least 2")
        self.in_features, self.horizons, self.draws = in_features, tuple(horizons), draws
        self.location, self.noise = location, noise  # type: ignore[assignment]
        self.project = nn.Linear(in_features, len(self.horizons) * noise.size)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        root = torch.tensor(self.horizons, dtype=torch.float32).sqrt()
        self.register_buffer("root_horizon", root, persistent=False)
        quantiles = torch.special.ndtri((torch.arange(draws, dtype=torch.float64) + 0.5) / draws)
        even = torch.stack((quantiles / quantiles.square().mean().sqrt(), torch.full_like(quantiles, 1 / draws)))
        self.register_buffer("even", even.float(), persistent=False)
        at, weight = np.polynomial.hermite_e.hermegauss(_EXACT)
        exact = torch.from_numpy(np.stack((at, weight / weight.sum()))).float()
        self.register_buffer("exact", exact, persistent=False)

    def penalty(self) -> Float[Tensor, ""]:
        """The divergence of the posterior from the prior in nats, summed over the horizons."""
        return self.location.penalty()

    def noise_of(self, hidden: Float[Tensor, "*batch D"]) -> Parameters:
        """The noise's parameters, each `[*batch, H]`."""
        raw = self.project(hidden).to(self.project.weight.dtype)
        return self.noise.parameters(raw.unflatten(-1, (len(self.horizons), self.noise.size)), self.root_horizon)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tensors of `parameters_of`, in their order."""
        return "weights", "loc", *self.noise.names

    def parameters_of(self, hidden: Float[Tensor, "*batch D"]) -> Parameters:
        """The nodes' weights, the mean at each, and the noise's parameters, each `[*batch, H, K]`."""
        mean, variance = self.location.moments(hidden)
        node, weight = (self.exact if self.training else self.even).to(mean.dtype)
        loc = mean.unsqueeze(-1) + variance.sqrt().unsqueeze(-1) * node
        noise = tuple(part.unsqueeze(-1).expand_as(loc) for part in self.noise_of(hidden))
        return weight.expand_as(loc), loc, *noise

    def distribution(self, *parameters: Tensor) -> Posterior:
        """The mixture of parameters as `parameters_of` gives them, batch shape `[*batch, H]`."""
        weight, loc, *noise = parameters
        return Posterior(weight, self.noise.around(loc, *noise), validate_args=False)

    def forward(self, hidden: Float[Tensor, "*batch D"]) -> Posterior:
        """The distribution of standardised returns, batch shape `[*batch, H]`."""
        return self.distribution(*self.parameters_of(hidden))


class VariationalNormal(VariationalLocation):
    """A `VariationalLocation`, affine in the hidden state, with normal noise of a bounded volatility.

    Args:
        in_features: hidden width `D`.
        horizons: the horizons in sessions, `H` of them.
        covariance: of the weights of a horizon, ``"full"`` or ``"diagonal"``.
        prior_scale: standard deviation of each weight, in units of the window's scale; None has it learned.
        draws: as of `VariationalLocation`.

    Raises:
        ValueError: as of `VariationalLocation` and `GaussianWeights`.

    Example:
        >>> head = VariationalNormal(8, (1, 10)).eval()
        >>> head(torch.zeros(3, 8)).batch_shape, head.penalty().item() > 0
        (torch.Size([3, 2]), True)
    """

    def __init__(
        self,
        in_features: int,
        horizons: Sequence[int],
        *,
        covariance: Covariance = "full",
        prior_scale: float | None = 1.0,
        draws: int = 32,
    ) -> None:
        weights = _weights(in_features, horizons, covariance, prior_scale)
        super().__init__(in_features, horizons, weights, NormalNoise(), draws)
        self.covariance, self.prior_scale = covariance, prior_scale


class VariationalStudentT(VariationalLocation):
    """A `VariationalLocation`, affine in the hidden state with Student-t noise of 2.1 to 60 degrees of freedom.

    The expected log likelihood is integrated over the mean as it is, where a scale mixture of normals would bound it
    from below once more.

    Args:
        in_features: hidden width `D`.
        horizons: the horizons in sessions, `H` of them.
        covariance: as of `VariationalNormal`.
        prior_scale: as of `VariationalNormal`.
        draws: as of `VariationalLocation`.

    Raises:
        ValueError: as of `VariationalNormal`.
    """

    def __init__(
        self,
        in_features: int,
        horizons: Sequence[int],
        *,
        covariance: Covariance = "full",
        prior_scale: float | None = 1.0,
        draws: int = 32,
    ) -> None:
        weights = _weights(in_features, horizons, covariance, prior_scale)
        super().__init__(in_features, horizons, weights, StudentTNoise(), draws)
        self.covariance, self.prior_scale = covariance, prior_scale


def _weights(
    in_features: int, horizons: Sequence[int], covariance: Covariance, prior_scale: float | None
) -> GaussianWeights:
    W = in_features + 1
    return GaussianWeights(len(horizons), W, covariance, prior_scale, start=0.1 / W**0.5)
