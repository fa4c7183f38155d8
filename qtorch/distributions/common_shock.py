"""The law of many coordinates that one shock makes large together, though the tails of each are light."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions.gamma_gaps import log_gamma_gap
from qtorch.distributions.generalized_pareto import log1p_ratio
from qtorch.distributions.transforms.student_tails import heavier, lighter

_LOG_2PI = math.log(2 * math.pi)


class CommonShock(Distribution):
    """A multivariate Student-t whose coordinates are each made light-tailed, so that only the dependence is heavy.

    With y a multivariate t of nu = 1 / xi degrees of freedom about 0, of scale matrix (W' W)^-1,

        z_i = sign(y_i) sqrt(nu log(1 + y_i^2 / nu)),

    the map of `StudentTails`. The z_i have normal tails; yet given that one of them is extreme, any other is with a
    probability that does not vanish, which no map of independent normals with linear tails gives. Behind a layer of
    `StudentTails` with the same xi stands the multivariate t itself; at xi = 0 the law is the normal one of covariance
    (W' W)^-1. Computed in float64.

    Args:
        index: xi `[...]`, positive.
        whitening: W `[..., D, D]`, lower triangular with a positive diagonal.

    References:
        McNeil, Frey and Embrechts (2015), Quantitative Risk Management, sections 6.2, 6.3 and 7.2, for normal variance
        mixtures, elliptical laws and tail dependence.
        Jaini, Kobyzev, Yu and Brubaker (2020), Tails of Lipschitz triangular flows, ICML.

    Example:
        >>> law = CommonShock(torch.tensor(0.3), torch.eye(2))
        >>> law.log_prob(torch.tensor([[4.0, 0.0], [4.0, 4.0]]))
        tensor([-11.4494, -10.0984])
    """

    arg_constraints = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, index: Float[Tensor, "..."], whitening: Float[Tensor, "... D D"]) -> None:
        self.index, self.whitening = index, whitening
        batch = torch.broadcast_shapes(index.shape, whitening.shape[:-2])
        super().__init__(batch, whitening.shape[-1:], validate_args=False)

    def log_prob(self, value: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
        """Log density at `value`, which broadcasts against the batch shape."""
        z, xi, W = value.double(), self.index.double(), self.whitening.double()
        log_stretch, ladj = heavier(z, xi.unsqueeze(-1))
        far = log_stretch.detach().amax(-1)  # taken out of y, which may be too large for any float
        u = ((z * torch.exp(log_stretch - far.unsqueeze(-1))).unsqueeze(-2) @ W.mT).squeeze(-2)
        q = (u * u).sum(-1)
        near = far < 1
        Q = q * torch.exp(2 * torch.where(near, far, 0.0))
        fall = torch.where(near, Q * log1p_ratio(xi * Q), (2 * far + torch.log(torch.exp(-2 * far) + xi * q)) / xi)
        D = self.event_shape[0]
        normaliser = log_gamma_gap(0.5 / xi, torch.full_like(xi, 0.5 * D)) - 0.5 * D * _LOG_2PI
        log_det = torch.log(W.diagonal(dim1=-2, dim2=-1)).sum(-1)
        result = normaliser + log_det - 0.5 * (1 + D * xi) * fall + ladj.sum(-1)
        return result.to(torch.promote_types(value.dtype, self.index.dtype))

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws from torch's generator, differentiable in both parameters; see `MultivariateStudentT.rsample`."""
        xi, W = self.index.double(), self.whitening.double()
        shape = torch.Size(sample_shape) + self.batch_shape
        e = torch.randn((*shape, *self.event_shape), dtype=torch.float64, device=xi.device)
        gamma = torch._standard_gamma((0.5 / xi).expand(shape).contiguous())
        w = (2 * xi * gamma).clamp(min=torch.finfo(torch.float64).tiny)
        y = torch.linalg.solve_triangular(W, e.unsqueeze(-1), upper=False).squeeze(-1) / torch.sqrt(w).unsqueeze(-1)
        return lighter(y, xi.unsqueeze(-1))[0].to(self.index.dtype)
