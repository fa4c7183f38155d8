"""Normal scores under a mixture of normals, far into the tails."""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.distributions.cumulative import log_ndtr, ndtr
from qtorch.distributions.transforms.affine import MAX_LOG_SCALE
from qtorch.distributions.transforms.bijection import Bijection, Values, expand_first, promoted, soft_clip
from qtorch.distributions.transforms.numeric_inverse import solve
from qtorch.distributions.transforms.pareto_tails import ParetoTails

Double = Float64[Tensor, "..."]
_HALF_LOG_2PI, _LOG_2 = 0.5 * math.log(2 * math.pi), math.log(2)


class MixtureGaussianisation(Bijection):
    """y = Phi^-1(F(x)) for F the distribution function of a mixture of K normals.

    Computed in float64 from the log of the smaller tail, so that no x saturates; far out y is the score under the
    widest kernel. With parameters of 0 it is the identity. The inverse lies between the values of x whose scores under
    the single kernels are y, and is found there by Newton's method.

    Args:
        parameters: `[3 K, ...]`: K logits of the weights, K locations, K logs of scales, clipped softly to +-5.

    Raises:
        ValueError: the number of parameters is no positive multiple of 3.

    References:
        Chen and Gopinath (2000), Gaussianization, NeurIPS.
        Meng, Song, Song and Ermon (2020), Gaussianization flows, AISTATS, section 3.

    Example:
        >>> MixtureGaussianisation(torch.zeros(12, 2))(torch.tensor([0.3, 50.0]))
        tensor([ 0.3000, 50.0000])
    """

    def __init__(self, parameters: Float[Tensor, "P ..."]) -> None:
        super().__init__()
        count = parameters.shape[0]
        require(count % 3 == 0 and count > 0, "parameters.shape[0]", count, "K kernels take 3 K parameters")
        logits, loc, log_scale = promoted(parameters).double().unflatten(0, (3, -1)).unbind()
        self.log_weight, self.loc = torch.log_softmax(logits, 0), loc
        self.log_scale = soft_clip(log_scale, MAX_LOG_SCALE)

    @staticmethod
    def size(kernels: int) -> int:
        """Parameters of one map."""
        return 3 * kernels

    def call_and_ladj(self, x: Values) -> tuple[Values, Values]:
        """The score y(x) and log dy/dx."""
        x = promoted(x)
        y, ladj = self._score(x.double())
        return y.to(x.dtype), ladj.to(x.dtype)

    def inv_and_ladj(self, y: Values) -> tuple[Values, Values]:
        """The x with y(x) = y and log dx/dy."""
        y = promoted(y)
        shape = torch.broadcast_shapes(y.shape, self.loc.shape[1:])
        score = y.double().expand(shape)
        with torch.no_grad():
            single = self._of(self.loc, shape) + torch.exp(self._of(self.log_scale, shape)) * score
            slack = 1e-12 * (1 + single.abs().amax(0))
            bracket = single.amin(0) - slack, single.amax(0) + slack
        x, ladj = solve(self._score, score, *bracket)
        return x.to(y.dtype), ladj.to(y.dtype)

    def _of(self, parameter: Double, shape: torch.Size) -> Double:
        return expand_first(parameter, shape)

    def _score(self, x: Double) -> tuple[Double, Double]:
        shape = torch.broadcast_shapes(x.shape, self.loc.shape[1:])
        log_weight, loc, log_scale = (self._of(p, shape) for p in (self.log_weight, self.loc, self.log_scale))
        z = (x - loc) * torch.exp(-log_scale)
        left = (torch.exp(log_weight) * ndtr(z)).sum(0) < 0.5
        t = torch.where(left, -z, z)
        tails, hazards = _log_tail_and_hazard(t)
        parts = log_weight + tails
        log_mass = torch.logsumexp(parts, 0)
        # The slope of -log of the mass, from ratios alone: differences of squares far out would lose every digit.
        log_slope = torch.logsumexp(torch.log_softmax(parts, 0) + hazards - log_scale, 0)
        size, log_hazard = _normal_size(log_mass)
        return torch.where(left, -size, size), log_slope - log_hazard


def _normal_size(log_mass: Double) -> tuple[Double, Double]:
    """The y with log P(N(0, 1) > y) = log_mass, which is about log 0.5 or less, and the log of its hazard."""
    with torch.no_grad():
        zero = torch.zeros_like(log_mass)
        y = ParetoTails(zero, zero + 1, zero, zero)(-log_mass - _LOG_2)
        tail, hazard = _log_tail_and_hazard(y)
        slope = torch.exp(-hazard)
    y = y + (tail - log_mass) * slope
    return y, _log_tail_and_hazard(y)[1]


def _log_tail_and_hazard(t: Double) -> tuple[Double, Double]:
    """Logs of P(N(0, 1) > t) and of the density divided by it, with gradients that stay right however far out."""
    right, far = t > 0, t > _FAR
    near = t.clamp(min=0, max=_FAR)
    hazard = 0.5 * math.log(2 / math.pi) - torch.log(torch.special.erfcx(near * math.sqrt(0.5)))
    hazard = torch.where(far, torch.log(t.clamp(min=_FAR)), hazard)
    inner = t.clamp(max=0)
    log_left = log_ndtr(-inner)
    square = 0.5 * t * t + _HALF_LOG_2PI
    return torch.where(right, -square - hazard, log_left), torch.where(right, hazard, -square - log_left)


_FAR = 1e5  # from here the hazard is t to 1e-10, and erfcx's derivative loses its digits
