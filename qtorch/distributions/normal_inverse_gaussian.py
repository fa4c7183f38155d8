"""The normal inverse Gaussian distribution."""

import math

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.types import _size

from qtorch.distributions.bessel import scaled_k1
from qtorch.distributions.inversion import invert
from qtorch.distributions.loops import in_pieces
from qtorch.distributions.quadrature import along, legendre
from qtorch.distributions.reparameterized import reparameterized
from qtorch.distributions.univariate import Double, Univariate
from qtorch.errors import ArgumentError

_NODES, _WEIGHTS = legendre(64)
_FALL = 40.0  # the integrals end where the density has fallen by exp(-40)
_FAR = 1e10  # the energy from which a tail is its asymptote
_PIECE = 1 << 9  # elements at once, each with all nodes


class NormalInverseGaussian(Univariate):
    """The normal inverse Gaussian law: semi-heavy tails, skew, and sums that stay in the family.

    f(x) = a / (pi scale) K_1(a q) / q exp(gamma + b z), where z = (x - loc) / scale, q = sqrt(1 + z^2) and
    gamma = sqrt(a^2 - b^2). In Barndorff-Nielsen's letters alpha = a / scale, beta = b / scale, mu = loc and
    delta = scale; scipy's norminvgauss has the same parameters as this. The law tends to the normal as a grows, to
    Cauchy's as it vanishes; a negative b makes the left tail the heavier.

    The distribution function and partial means are Gauss-Legendre quadratures in asinh z of 64 nodes, over the nearer
    tail to where the density has fallen by exp(-40): within 3e-13, relative, of 400 nodes' for a from .01 to 1e4 and
    tails of 1e-300. Draws are those of Michael, Schucany and Haas, their gradients implicit.

    Args:
        a: steepness, above |b|.
        b: asymmetry; 0 is symmetric.
        loc: the mean where b is 0.
        scale: positive; the variance is scale^2 a^2 / gamma^3.
        validate_args: False skips the check of the parameters.

    Raises:
        ValueError: a parameter is outside its domain or not finite.

    References:
        Barndorff-Nielsen (1997), Normal inverse Gaussian distributions and stochastic volatility modelling,
        Scandinavian Journal of Statistics 24, equation 2.2.
        Michael, Schucany and Haas (1976), Generating random variates using transformations with multiple roots, The
        American Statistician 30.

    Example:
        >>> d = NormalInverseGaussian(1.5, -0.2, 0.0, torch.tensor(0.01))
        >>> round(d.icdf(torch.tensor(0.01)).item(), 5)
        -0.02447
    """

    a: Tensor
    b: Tensor
    loc: Tensor
    scale: Tensor
    arg_constraints = {
        "a": constraints.positive,
        "b": constraints.real,
        "loc": constraints.real,
        "scale": constraints.positive,
    }

    def __init__(
        self,
        a: Tensor | float,
        b: Tensor | float = 0.0,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        *,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(a=a, b=b, loc=loc, scale=scale, validate_args=validate_args)

    def _check(self) -> None:
        super()._check()
        bad = self.b.abs() >= self.a
        if bad.any():
            raise ArgumentError(
                f"NormalInverseGaussian needs |b| below a; {int(bad.sum())} of {bad.numel()} are not, the first has "
                f"a={self.a[bad][0].item()}, b={self.b[bad][0].item()}."
            )

    def log_moment_generating(self, t: Tensor) -> Tensor:
        """Log of E[exp(t X)], infinite where |b + t scale| > a."""
        a, b, loc, scale = self._doubles()
        shifted = (a - b - t * scale) * (a + b + t * scale)
        there = shifted >= 0
        root = torch.sqrt(torch.where(there, shifted, 1.0))
        return torch.where(there, t * loc + self._gamma() - root, torch.inf).to(self._dtype)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws, by the inverse Gaussian mixture of normals; gradients by the implicit function theorem."""
        _, b, loc, scale = self._doubles()
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            gamma = self._gamma()
            normal, other = torch.randn((2, *shape), dtype=torch.float64, device=self._device)
            # The inverse Gaussian of mean 1/gamma and shape 1: the smaller root of a quadratic, or 1/gamma^2 over it.
            square = other * other / (2 * gamma)
            small = 1 / (gamma * (1 + square + torch.sqrt(square * (2 + square))))
            uniform = torch.rand(shape, dtype=torch.float64, device=self._device)
            v = torch.where(uniform * (1 + gamma * small) <= 1, small, 1 / (gamma * gamma * small))
            x = loc + scale * (b * v + torch.sqrt(v) * normal)
        return reparameterized(self, x).to(self._dtype)

    def _gamma(self) -> Double:
        a, b, *_ = self._doubles()
        return torch.sqrt((a - b) * (a + b))

    def _standard(self, x: Double) -> tuple[Double, Double, Double, Tensor]:
        """Z on the side of the nearer tail, the parameters there, and whether that is the left one."""
        a, b, loc, scale = self._doubles()
        z = (x - loc) / scale
        left = z < b / self._gamma()
        return torch.where(left, z, -z), a.expand(z.shape), torch.where(left, b, -b), left

    def _log_prob(self, x: Double) -> Double:
        a, b, loc, scale = self._doubles()
        return _log_density((x - loc) / scale, a, b) - torch.log(scale)

    def _log_cdf(self, x: Double) -> Double:
        return self._log_tails(x)[0]

    def _log_sf(self, x: Double) -> Double:
        return self._log_tails(x)[1]

    def _log_tails(self, x: Double) -> tuple[Double, Double]:
        z, a, b, left = self._standard(x)
        near = _log_tail(z, a, b)
        far = torch.log1p(-torch.exp(near))
        return torch.where(left, near, far), torch.where(left, far, near)

    def _cdf(self, x: Double) -> Double:
        z, a, b, left = self._standard(x)
        tail = torch.exp(_log_tail(z, a, b))
        return torch.where(left, tail, 1 - tail)

    def _icdf(self, p: Double) -> Double:
        a, b, loc, scale = self._doubles()
        gamma = self._gamma()
        inside = p.clamp(1e-300, 1 - 2**-53)

        def bound(log_mass: Double, b: Double) -> Double:
            """A z with P(Z <= -z) below a mass, by Chernoff's bound at half of where E[exp(-tZ)] ends."""
            t = 0.5 * (a + b)
            return (gamma - torch.sqrt((0.5 * (3 * a - b)) * t) - log_mass) / t

        with torch.no_grad():
            low, high = -bound(torch.log(inside), b), bound(torch.log1p(-inside), -b)
        return invert(self._log_tails, self._log_prob, p, (loc + scale * low).detach(), (loc + scale * high).detach())

    def _partial_mean(self, x: Double) -> Double:
        _, _, loc, scale = self._doubles()
        z, a, b, left = self._standard(x)
        mass = torch.exp(_log_tail(z, a, b))
        mean, some = b / self._gamma(), mass > 0
        nearer = torch.where(some, mass * _tail_mean(torch.where(some, z, mean), a, b), 0.0)
        whole = torch.where(left, 0.0, -mean)
        return torch.where(left, loc * mass, loc * (1 - mass)) + scale * (whole + nearer)

    def _mean(self) -> Double:
        _, b, loc, scale = self._doubles()
        return loc + scale * b / self._gamma()

    def _variance(self) -> Double:
        a, _, _, scale = self._doubles()
        return scale**2 * a**2 / self._gamma() ** 3


def _energy(z: Double, q: Double, a: Double, b: Double, gamma: Double) -> Double:
    """The energy a q - b z - gamma, 0 at the mean, without cancellation; q = sqrt(1 + z^2)."""
    slope = a * z - b * q
    return slope * (slope / (a * q - b * z + gamma))  # a square would overflow for huge z


def _log_density(z: Double, a: Double, b: Double) -> Double:
    end = z.abs() == torch.inf
    z = torch.where(end, 0.0, z)
    q = torch.hypot(z, torch.ones_like(z))
    energy = _energy(z, q, a, b, torch.sqrt((a - b) * (a + b)))
    log_density = torch.log(a) + torch.log(scaled_k1(a * q)) - torch.log(math.pi * q) - energy
    return torch.where(end, -torch.inf, log_density)


def _log_tail(z: Double, a: Double, b: Double) -> Double:
    """Log of P(Z <= z), for z at or left of the mean."""
    gamma = torch.sqrt((a - b) * (a + b))
    far = (_energy(z, torch.hypot(z, torch.ones_like(z)), a, b, gamma) > _FAR) | (z == -torch.inf)
    # There the density falls exponentially, and a log of this size has no digit of the rest.
    beyond = _log_density(z, a, b) - torch.log(a + b)
    near = in_pieces(_log_tail_of_piece, torch.where(far, b / gamma, z), a, b, size=_PIECE)
    return torch.where(far, beyond, near)


def _tail_mean(z: Double, a: Double, b: Double) -> Double:
    """E[Z | Z <= z], for z at or left of the mean."""
    return in_pieces(_tail_mean_of_piece, z, a, b, size=_PIECE)


def _log_tail_of_piece(z: Double, a: Double, b: Double) -> Double:
    _, mass, energy = _beyond(z, a, b)
    return torch.log(mass.sum(0)) - energy


def _tail_mean_of_piece(z: Double, a: Double, b: Double) -> Double:
    points, mass, _ = _beyond(z, a, b)
    return (points * mass).sum(0) / mass.sum(0)


def _beyond(z: Double, a: Double, b: Double) -> tuple[Double, Double, Double]:
    """Points left of z and their masses but for a factor, which is the exponential of minus the third."""
    gamma = torch.sqrt((a - b) * (a + b))
    energy = _energy(z, torch.hypot(z, torch.ones_like(z)), a, b, gamma)
    # The energy has risen by _FALL at the v with a cosh v - b sinh v = c, a quadratic in exp(-v).
    c = energy + gamma + _FALL
    u = torch.asinh(z)
    length = u + torch.log(c * (1 + torch.sqrt(1 - (gamma / c) ** 2)) / (a + b))
    v = u - along(_NODES, u) * length
    points, q = torch.sinh(v), torch.cosh(v)
    fall = energy - _energy(points, q, a, b, gamma)
    return points, along(_WEIGHTS, u) * length * a / math.pi * scaled_k1(a * q) * torch.exp(fall), energy
