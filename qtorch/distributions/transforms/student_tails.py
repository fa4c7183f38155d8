"""Student's t made nearly normal, and normal tails made those of Student's t, in closed form."""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.distributions.generalized_pareto import expm1_ratio, log1p_ratio
from qtorch.distributions.transforms.bijection import Bijection, Values, promoted

Double = Float64[Tensor, "..."]

_FAR = 1e150  # whose square float64 holds


class StudentTails(Bijection):
    """Each side of a law whose tails fall like |x|^(-1/xi) becomes a side of a law whose tails are the normal's.

    With t = (x - loc) / scale, y has the sign of t and

        y^2 = log(1 + xi t^2) / xi,

    the signed root of what twice the log density of Student's t with 1 / xi degrees of freedom loses from its middle to
    t, but for a factor 1 + xi. The density of such a t becomes that of the normal law times a constant and
    |y| / sqrt(1 - exp(-xi y^2)): normal tails, whatever xi. The map is twice continuously differentiable where the
    sides meet, at xi = 0 it is the identity, and it costs a logarithm or, backwards, an exponential.

    Computed in float64. Backwards |x| ends at about 1e34 scales in float32, so that no y gives an infinite x.

    Args:
        loc: where the sides meet, broadcasts against the values.
        scale: positive.
        lower: xi of the left side, at least 0.
        upper: xi of the right side, at least 0.

    References:
        Wallace (1959), Bounds on normal approximations to Student's and the chi-square distributions, Annals of
        Mathematical Statistics 30.

    Example:
        >>> law = StudentTails(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(0.3), torch.tensor(0.3))
        >>> law(torch.tensor([-50.0, 1.0]))
        tensor([-4.6980,  0.9352])
    """

    def __init__(self, loc: Values, scale: Values, lower: Values, upper: Values) -> None:
        super().__init__()
        self.loc, self.scale, self.lower, self.upper = loc, scale, lower, upper

    def call_and_ladj(self, x: Values) -> tuple[Values, Values]:
        """The value y(x), normal in the tails, and log dy/dx."""
        x = promoted(x)
        scale = self.scale.double()
        t = (x.double() - self.loc.double()) / scale
        y, ladj = lighter(t, self._index(t))
        return y.to(x.dtype), (ladj - torch.log(scale)).to(x.dtype)

    def inv_and_ladj(self, y: Values) -> tuple[Values, Values]:
        """The x with y(x) = y, of a power law's tails, and log dx/dy."""
        y = promoted(y)
        scale, z = self.scale.double(), y.double()
        log_stretch, ladj = heavier(z, self._index(z))
        end = 0.9 * math.log(torch.finfo(y.dtype).max)
        x = self.loc.double() + scale * z * torch.exp(log_stretch.clamp(max=end))
        return x.to(y.dtype), (ladj + torch.log(scale)).to(y.dtype)

    def _index(self, side: Double) -> Double:
        return torch.where(side < 0, self.lower.double(), self.upper.double())


def lighter(t: Double, xi: Double) -> tuple[Double, Double]:
    """Y with the sign of t and y^2 = log(1 + xi t^2) / xi, and log dy/dt."""
    t = t.clamp(-_FAR, _FAR)
    v = xi * t * t
    ratio = log1p_ratio(v)
    return t * torch.sqrt(ratio), -torch.log1p(v) - 0.5 * torch.log(ratio)


def heavier(y: Double, xi: Double) -> tuple[Double, Double]:
    """Log(t / y) for the t with y(t) = y, in which however far out no number is too large, and log dt/dy."""
    half = 0.5 * xi * y * y
    log_root = 0.5 * torch.log(expm1_ratio(-2 * half))
    return half + log_root, half - log_root
