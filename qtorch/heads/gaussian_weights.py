"""A Gaussian over weights whose mean and covariance are trained, and its divergence from a prior."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions.checks import require

Covariance = Literal["full", "diagonal"]


class GaussianWeights(nn.Module):
    """q(w) = prod_g N(m_g, L_g L_g'), against the prior N(0, s^2 I): variational inference's two Gaussians.

    Weights of different groups are independent. The factor is L = diag(d) (I + B) with B strictly lower triangular, so
    that a step of an optimiser is a share of a weight's own scale; `"diagonal"` has no B.

    Args:
        groups: `G`.
        size: weights of a group, `P`.
        covariance: ``"full"`` within a group, or ``"diagonal"``.
        prior_scale: s; None takes the one that fits best, empirical Bayes: s^2 is then the mean of E[w^2].
        start: standard deviation of a fresh posterior's weights.

    Raises:
        ValueError: an unknown covariance, or a scale that is not positive.

    References:
        Graves (2011), Practical variational inference for neural networks, NeurIPS, equation 16, for the best prior.
    """

    def __init__(
        self,
        groups: int,
        size: int,
        covariance: Covariance = "full",
        prior_scale: float | None = 1.0,
        start: float = 0.1,
    ) -> None:
        super().__init__()
        require(covariance in ("full", "diagonal"), "covariance", covariance, 'give "full" or "diagonal"')
        positive = prior_scale is None or 0 < prior_scale < math.inf
        require(positive, "prior_scale", prior_scale, "give a positive number, or None to have it chosen")
        self.groups, self.size, self.covariance, self.prior_scale = groups, size, covariance, prior_scale
        self.start = start
        self.mean = nn.Parameter(torch.zeros(groups, size))
        self.log_scale = nn.Parameter(torch.full((groups, size), math.log(start)))
        full = covariance == "full"
        self.below = nn.Parameter(torch.zeros(groups, size, size)) if full else None

    def draws(self, noise: Float[Tensor, "K G P"]) -> Float[Tensor, "K G P"]:
        """Weights m + L z of standard normal noise z."""
        if self.below is not None:
            noise = noise + torch.einsum("gpq,kgq->kgp", self.below.tril(-1), noise)
        return self.mean + self.log_scale.exp() * noise

    def variance_along(self, direction: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch G"]:
        """The variance of each group's w'x in a direction x."""
        along = direction.unsqueeze(-2) * self.log_scale.exp()
        if self.below is not None:
            along = along + torch.einsum("gpq,...gp->...gq", self.below.tril(-1), along)
        return along.square().sum(-1)

    def moments(self, hidden: Float[Tensor, "*batch D"]) -> tuple[Float[Tensor, "*batch G"], Float[Tensor, "*batch G"]]:
        """Mean and variance of each group's w'x, x the hidden state and a 1, where P = D + 1."""
        x = nn.functional.pad(hidden.to(self.mean.dtype), (0, 1), value=1.0)
        return nn.functional.linear(x, self.mean), self.variance_along(x)

    def factor(self) -> Float[Tensor, "G P P"]:
        """The lower triangular L of the covariance L L'."""
        unit = torch.eye(self.size, device=self.mean.device, dtype=self.mean.dtype)
        below = unit.expand(self.groups, -1, -1) if self.below is None else unit + self.below.tril(-1)
        return self.log_scale.exp().unsqueeze(-1) * below

    def penalty(self) -> Float[Tensor, ""]:
        """KL(q || prior) in nats, summed over all weights."""
        squares = (self.mean.square() + self.factor().square().sum(-1)).sum()
        count = self.mean.numel()
        if self.prior_scale is None:
            return 0.5 * count * (squares / count).log() - self.log_scale.sum()
        variance = self.prior_scale**2
        return 0.5 * (squares / variance - count + count * math.log(variance)) - self.log_scale.sum()


def antithetic(
    draws: int, groups: int, size: int, generator: torch.Generator | None = None, like: Tensor | None = None
) -> Float[Tensor, "K G P"]:
    """Standard normal noise in pairs z and -z, whose mean is exactly zero.

    Args:
        draws: `K`, an even number.
        groups: `G`.
        size: `P`.
        generator: torch's own by default.
        like: a tensor of the device and dtype to draw on.
    """
    device, dtype = (None, None) if like is None else (like.device, like.dtype)
    half = torch.randn(draws // 2, groups, size, generator=generator, device=device, dtype=dtype)
    return torch.cat((half, -half))
