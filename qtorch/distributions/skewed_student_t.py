"""The two-piece skewed Student-t distribution."""

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import broadcast_all
from torch.types import _size

from qtorch.distributions.student_t import t_cdf, t_icdf, t_log_prob, t_mean_abs, t_tail_mean
from qtorch.distributions.tails import register_tail_mean


class SkewedStudentT(Distribution):
    """Two-piece skewed Student-t of Fernandez and Steel.

    f(x) = 2 / (gamma + 1/gamma) / scale * [t(gamma z) if z < 0 else t(z / gamma)], z = (x - loc) / scale, with t the
    density of Student's t with df degrees of freedom. gamma < 1 makes the left tail the heavier; loc is the mode.
    `cdf`, `icdf` and tail means are closed forms in Student's; they are computed in float64 and cast back.

    Args:
        df: degrees of freedom, above 1 (above 2 for a finite variance).
        loc: mode.
        scale: positive scale of both halves before the skew.
        skew: positive gamma; 1 is symmetric.

    Raises:
        ValueError: a parameter is outside its domain or not finite.

    References:
        Fernandez and Steel (1998), On Bayesian modeling of fat tails and skewness, JASA 93, equation 1.

    Example:
        >>> import torch
        >>> d = SkewedStudentT(df=torch.tensor(5.0), loc=0.0, scale=0.01, skew=0.9)
        >>> round(d.icdf(torch.tensor(0.01)).item(), 4)
        -0.0384
    """

    arg_constraints = {
        "df": constraints.greater_than(1.0),
        "loc": constraints.real,
        "scale": constraints.positive,
        "skew": constraints.positive,
    }
    support = constraints.real
    has_rsample = True

    def __init__(
        self,
        df: Tensor | float,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        skew: Tensor | float = 1.0,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.df, self.loc, self.scale, self.skew = broadcast_all(df, loc, scale, skew)
        for name, low in (("df", 1.0), ("loc", -torch.inf), ("scale", 0.0), ("skew", 0.0)):
            value = getattr(self, name)
            bad = ~((value > low) & torch.isfinite(value))
            if not torch.compiler.is_compiling() and bad.any():
                raise ValueError(
                    f"SkewedStudentT needs a finite {name} above {low}; {int(bad.sum())} of {bad.numel()} are not, "
                    f"the first is {value[bad].flatten()[0].item()}."
                )
        super().__init__(self.df.shape, validate_args=validate_args)

    def expand(self, batch_shape: _size, _instance: object = None) -> "SkewedStudentT":
        """The distribution with its parameters expanded to a batch shape."""
        return SkewedStudentT(
            *(value.expand(batch_shape) for value in (self.df, self.loc, self.scale, self.skew)), validate_args=False
        )

    @property
    def mean(self) -> Tensor:
        """Mean, for df > 1."""
        shift = t_mean_abs(self.df) * (self.skew.double() - 1 / self.skew.double())
        return self.loc + self.scale * shift.to(self.scale.dtype)

    @property
    def variance(self) -> Tensor:
        """Variance; infinite for df <= 2."""
        nu, gamma = self.df.double(), self.skew.double()
        second = nu / (nu - 2).clamp(min=0) * (gamma**3 + gamma**-3) / (gamma + 1 / gamma)
        shift = t_mean_abs(nu) * (gamma - 1 / gamma)
        return self.scale**2 * (second - shift**2).to(self.scale.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at `value`, which broadcasts against the batch shape."""
        z = (value - self.loc) / self.scale
        z = torch.where(z < 0, z * self.skew, z / self.skew)
        return t_log_prob(z, self.df) + torch.log(2 / (self.skew + 1 / self.skew)) - torch.log(self.scale)

    def cdf(self, value: Tensor) -> Tensor:
        """Distribution function at `value`."""
        z = (value.double() - self.loc.double()) / self.scale.double()
        gamma = self.skew.double()
        left = self._left_mass()
        below = 2 * left * t_cdf(torch.minimum(z, torch.zeros_like(z)) * gamma, self.df)
        above = 2 * (1 - left) * t_cdf(-torch.maximum(z, torch.zeros_like(z)) / gamma, self.df)
        return torch.where(z < 0, below, 1 - above).to(self._dtype(value))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile at left-tail mass `value` in (0, 1)."""
        p = value.double()
        return (self.loc.double() + self.scale.double() * self._standard_icdf(p)).to(self._dtype(value))

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws by inverting the distribution function, so that they differentiate in every parameter."""
        shape = self._extended_shape(torch.Size(sample_shape))
        u = torch.rand(shape, dtype=torch.float64, device=self.df.device)
        return self.icdf(u.clamp(1e-15, 1 - 1e-15)).to(self.loc.dtype)

    def _dtype(self, value: Tensor) -> torch.dtype:
        return torch.promote_types(self.loc.dtype, value.dtype)

    def _left_mass(self) -> Tensor:
        """P(X < loc)."""
        return 1 / (1 + self.skew.double() ** 2)

    def _standard_icdf(self, p: Tensor) -> Tensor:
        gamma, left = self.skew.double(), self._left_mass()
        below = p < left
        # Both branches invert the left half of Student's t; masses of the branch not taken are kept inside (0, 1/2].
        mass = torch.where(below, p / (2 * left), (1 - p) / (2 * (1 - left)))
        half = t_icdf(mass.clamp(max=0.5), self.df)
        return torch.where(below, half / gamma, -half * gamma)


@register_tail_mean(SkewedStudentT)
def _tail_mean(distribution: SkewedStudentT, probability: Tensor) -> Tensor:
    """From E[T; T <= c]: directly in the left half, by complement of the right tail in the right half."""
    p, gamma = probability.double(), distribution.skew.double()
    q = distribution._standard_icdf(p)
    lower = t_tail_mean(torch.minimum(q, torch.zeros_like(q)) * gamma, distribution.df) / gamma
    upper = -t_tail_mean(-torch.maximum(q, torch.zeros_like(q)) / gamma, distribution.df) * gamma
    mean = t_mean_abs(distribution.df) * (gamma - 1 / gamma)
    standard = torch.where(q < 0, lower, (mean - (1 - p) * upper) / p)
    return (distribution.loc.double() + distribution.scale.double() * standard).to(distribution.loc.dtype)
