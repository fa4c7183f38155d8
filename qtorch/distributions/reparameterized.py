"""Gradients of draws in the parameters of their law, however they were drawn."""

import torch
from torch import Tensor
from torch.distributions import Distribution


def reparameterized(distribution: Distribution, x: Tensor) -> Tensor:
    """Draws x that move with the parameters at their rank: dx = -dF(x) / f(x), by the implicit function theorem.

    First derivatives are exact; where the density underflows they are 0.

    References:
        Figurnov, Mohamed and Mnih (2018), Implicit reparameterization gradients, NeurIPS, equation 6.
    """
    x = x.detach()
    if not torch.is_grad_enabled():
        return x
    mass, density = distribution.cdf(x), torch.exp(distribution.log_prob(x)).detach()
    there = density > 0
    return x - torch.where(there, (mass - mass.detach()) / torch.where(there, density, 1.0), 0.0)
