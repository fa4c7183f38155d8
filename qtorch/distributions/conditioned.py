"""A law of one coordinate after the latent variable behind it has become known better."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions.cumulative import cdf, icdf
from qtorch.distributions.indexing import take
from qtorch.distributions.log_tails import log_cdf, log_sf, score
from qtorch.distributions.parameters import tensor_of
from qtorch.distributions.quadrature import between, entropy

Double = Float64[Tensor, "..."]


class Conditioned(Distribution):
    """The law of X = Q(G(Z)), Q a marginal's quantile function, for latent Z of law G before and `posterior` now.

    With G for the posterior too, X has the marginal law. Density, distribution function and quantiles are closed forms
    in those of the three; moments are quadratures of the quantile function.

    Args:
        marginal: of batch shape `[...]`, without event dimension.
        prior: G, symmetric about zero, of a batch shape that broadcasts to that of the others together.
        posterior: likewise.
    """

    arg_constraints = {}
    support = constraints.real
    has_rsample = True

    def __init__(self, marginal: Distribution, prior: Distribution, posterior: Distribution) -> None:
        shape = torch.broadcast_shapes(marginal.batch_shape, posterior.batch_shape, prior.batch_shape)
        self.marginal = marginal if marginal.batch_shape == shape else marginal.expand(shape)
        self.prior = prior if prior.batch_shape == shape else prior.expand(shape)
        self.posterior = posterior if posterior.batch_shape == shape else posterior.expand(shape)
        super().__init__(shape, validate_args=False)

    def expand(self, batch_shape: _size, _instance: object = None) -> "Conditioned":
        """The distribution expanded to a batch shape."""
        return Conditioned(self.marginal.expand(batch_shape), self.prior, self.posterior)

    @property
    def mean(self) -> Tensor:
        """Mean, by quadrature."""
        return self._integral(self.icdf)

    @property
    def variance(self) -> Tensor:
        """Variance, by quadrature."""
        mean = self.mean
        return self._integral(lambda u: (self.icdf(u) - mean) ** 2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at `value`, which broadcasts against the batch shape."""
        z = self._latent(value)
        return self.marginal.log_prob(value) + self.posterior.log_prob(z) - self.prior.log_prob(z)

    def cdf(self, value: Tensor) -> Tensor:
        """Distribution function."""
        return cdf(self.posterior, self._latent(value))

    def log_cdf(self, value: Tensor) -> Tensor:
        """Log of the distribution function."""
        return log_cdf(self.posterior, self._latent(value))

    def log_sf(self, value: Tensor) -> Tensor:
        """Log of P(X > value)."""
        return log_sf(self.posterior, self._latent(value))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile at left-tail mass `value`."""
        u = cdf(self.prior, icdf(self.posterior, value.double()))
        return icdf(self.marginal, u.clamp(1e-300, 1 - 2**-53))

    def entropy(self) -> Tensor:
        """Differential entropy, by quadrature."""
        like = torch.empty(self.batch_shape, device=self._device)
        return entropy(self.log_prob, self.icdf, like)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws by inverting the distribution function, from torch's generator."""
        u = torch.rand(self._extended_shape(sample_shape), dtype=torch.float64, device=self._device)
        return self.icdf(u.clamp(1e-16, 1 - 1e-16))

    @property
    def _device(self) -> torch.device:
        return tensor_of(self.posterior).device

    def _latent(self, value: Tensor) -> Tensor:
        return score(self.marginal, value, lambda mass: icdf(self.prior, mass))

    def _integral(self, function: Callable[[Double], Double]) -> Tensor:
        zero = torch.zeros((), dtype=torch.float64, device=self._device)
        return between(function, zero, zero, len(self.batch_shape))


@take.register
def _conditioned(distribution: Conditioned, index: Any) -> Conditioned:
    parts = (take(part, index) for part in (distribution.marginal, distribution.prior, distribution.posterior))
    return Conditioned(*parts)
