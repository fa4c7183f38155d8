"""Gaussian processes over hidden states, sparse and variational, by GPyTorch."""

from collections.abc import Sequence

import torch
from gpytorch.constraints import Positive
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import MaternKernel, RBFKernel
from gpytorch.means import ConstantMean, LinearMean
from gpytorch.models import ApproximateGP
from gpytorch.utils.memoize import clear_cache_hook
from gpytorch.variational import CholeskyVariationalDistribution, VariationalStrategy
from jaxtyping import Float
from torch import Tensor, nn

_START = 0.1  # standard deviation of a mean whose prior is learned, of a volatility


class SparseProcess(ApproximateGP):
    """f(x) = m(x) + s g(x) for each horizon, with g a Gaussian process of unit variance over the hidden state x.

    The posterior of g is a Gaussian over its values at inducing points, whitened; it starts as the prior. The scale s
    stands outside of the process, because GPyTorch adds a jitter to variances, 1e-4 in float32 and 1e-6 in float64,
    beside which those of a mean of a hundredth of a volatility would be lost: here it is a share of the prior's.

    Scales and length scales are kept as logs, so that a step of an optimiser is a share of them. GPyTorch computes with
    branches on tensors and lazy operators, which `torch.compile` can't take in whole: it leaves `moments` as it is.

    Args:
        in_features: hidden width `D`.
        horizons: the horizons in sessions, `H` of them.
        inducing: points of each horizon.
        smoothness: of Matern's kernel, 0.5, 1.5 or 2.5; None for its limit, the squared exponential.
        ard: a length scale for each hidden unit, not one for all.
        linear: m is affine in the hidden state, not constant. It is without a posterior.
        prior_scale: s over sqrt(h); None has it learned.
        length_scale: where it starts.
    """

    def __init__(
        self,
        in_features: int,
        horizons: Sequence[int],
        inducing: int,
        smoothness: float | None,
        ard: bool,
        linear: bool,
        prior_scale: float | None,
        length_scale: float,
    ) -> None:
        count = len(horizons)
        batch = torch.Size([count])
        points = torch.randn(count, inducing, in_features)
        super().__init__(VariationalStrategy(self, points, CholeskyVariationalDistribution(inducing, batch)))
        # Its parameters are the prior's as they are made; GPyTorch would set them, with noise, in the first call.
        self.variational_strategy.variational_params_initialized.fill_(1)
        logs = Positive(torch.exp, torch.log)
        options = {"ard_num_dims": in_features if ard else None, "batch_shape": batch, "lengthscale_constraint": logs}
        self.kernel = RBFKernel(**options) if smoothness is None else MaternKernel(smoothness, **options)
        self.kernel.lengthscale = length_scale
        self.mean = LinearMean(in_features, batch) if linear else ConstantMean(batch_shape=batch)
        for parameter in self.mean.parameters():
            nn.init.zeros_(parameter)
        scale = torch.tensor(horizons).sqrt() * (_START if prior_scale is None else prior_scale)
        self.log_scale = nn.Parameter(scale.log(), requires_grad=prior_scale is None)

    def forward(self, x: Tensor) -> MultivariateNormal:
        """The prior of g at points `[H, n, D]`; GPyTorch asks for it."""
        return MultivariateNormal(x.new_zeros(x.shape[:-1]), self.kernel(x))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def moments(self, hidden: Float[Tensor, "*batch D"]) -> tuple[Float[Tensor, "*batch H"], Float[Tensor, "*batch H"]]:
        """The posterior mean and variance of f at hidden states."""
        with torch.autocast(hidden.device.type, enabled=False):
            x = hidden.to(self.log_scale.dtype).reshape(-1, hidden.shape[-1])
            posterior = self(x)
            scale = self.log_scale.exp().unsqueeze(-1)
            mean, variance = self.mean(x) + scale * posterior.mean, scale.square() * posterior.variance
        self._forget()
        shape = (*hidden.shape[:-1], len(mean))
        return mean.mT.reshape(shape), variance.mT.reshape(shape)

    def penalty(self) -> Float[Tensor, ""]:
        """The divergence of the posterior from the prior in nats, summed over the horizons."""
        with torch.autocast(self.log_scale.device.type, enabled=False):
            divergence = self.variational_strategy.kl_divergence().sum()
        self._forget()
        return divergence

    def _forget(self) -> None:
        """Clears what GPyTorch keeps: it would outlive a change of the weights, and can't be copied with its graph."""
        clear_cache_hook(self.variational_strategy)
