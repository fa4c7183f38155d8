"""The model whose posterior is known: a Normal law whose mean is affine in the hidden state, its noise known."""

import torch
from torch.distributions import Normal

from qtorch.heads import Parametric


class LinearGaussian(Parametric):
    """N(raw, h) for the horizon of h sessions."""

    def __init__(self, in_features, horizons):
        super().__init__(in_features, horizons, size=1)

    def constrain(self, raw):
        loc = raw.squeeze(-1)
        return loc, self.root_horizon.expand_as(loc)

    def distribution(self, *parameters):
        return Normal(*parameters, validate_args=False)


def regression(count, width=3, horizons=(1, 3), seed=0):
    """Hidden states `[n, D]`, outcomes `[n, H]` and weights, 1/h and 0 where masked, in float64."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, width, generator=generator, dtype=torch.float64)
    truth = torch.randn(len(horizons), width + 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, len(horizons), generator=generator, dtype=torch.float64)
    h = torch.tensor(horizons, dtype=torch.float64)
    outcome = with_one(hidden) @ truth.mT + noise * h.sqrt()
    mask = torch.rand(count, len(horizons), generator=generator) < 0.9
    return hidden, outcome, mask / h


def with_one(hidden):
    return torch.cat((hidden, torch.ones_like(hidden[..., :1])), -1)


def exact_posterior(hidden, outcome, weight, horizons, prior_scale):
    """Means `[H, D+1]` and covariances `[H, D+1, D+1]`, each observation's log likelihood weighted."""
    x = with_one(hidden)
    precision = torch.einsum("nd,nh,ne->hde", x, weight / torch.tensor(horizons), x)
    precision = precision + torch.eye(x.shape[-1], dtype=x.dtype) / prior_scale**2
    moment = torch.einsum("nd,nh->hd", x, weight * outcome / torch.tensor(horizons))
    return torch.linalg.solve(precision, moment.unsqueeze(-1)).squeeze(-1), torch.linalg.inv(precision)
