"""Student's t with a small probability of a jump."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions.checks import require
from qtorch.distributions.indexing import take
from qtorch.distributions.student_t import t_cdf, t_icdf, t_log_prob


class JumpStudentT(Distribution):
    """The law of a standardised shock: Student's t, with a small probability that of a jump; mean 0, variance 1.

    X = (Y - E Y) / sd(Y) with Y = T in a quiet session and Y = jump_mean + jump_scale T in one with a jump, T of
    Student's t: a mixture of two located and scaled t's, whose density and distribution function are exact.

    Args:
        df: degrees of freedom, above 2.
        jump_rate: probability of a jump in a session.
        jump_mean: mean of Y in a jump; negative makes crashes.
        jump_scale: scale of Y in a jump, positive.
        batch_shape: every element of the batch has the same law.

    Raises:
        ValueError: a parameter is outside its domain.

    Example:
        >>> import torch
        >>> law = JumpStudentT(df=5.0, jump_rate=0.02)
        >>> x = law.icdf(torch.tensor(0.01, dtype=torch.float64))
        >>> round(law.cdf(x).item(), 12)
        0.01
    """

    arg_constraints = {}
    support = constraints.real

    def __init__(
        self,
        df: float = 6.0,
        jump_rate: float = 0.01,
        jump_mean: float = -1.5,
        jump_scale: float = 3.0,
        batch_shape: _size = torch.Size(),
    ) -> None:
        require(df > 2 and math.isfinite(df), "df", df, "give finite degrees of freedom above 2, such as 6.0")
        require(0 <= jump_rate < 1, "jump_rate", jump_rate, "give a probability in [0, 1), such as 0.01")
        require(math.isfinite(jump_mean), "jump_mean", jump_mean, "give a finite number, such as -1.5")
        require(0 < jump_scale < math.inf, "jump_scale", jump_scale, "give a positive number, such as 3.0")
        self.parameters = {"df": df, "jump_rate": jump_rate, "jump_mean": jump_mean, "jump_scale": jump_scale}
        self.weight = torch.tensor([1 - jump_rate, jump_rate], dtype=torch.float64)
        self.df = torch.tensor(df, dtype=torch.float64)
        loc = torch.tensor([0.0, jump_mean], dtype=torch.float64)
        scale = torch.tensor([1.0, jump_scale], dtype=torch.float64)
        mean = (self.weight * loc).sum()
        sd = (self.weight * (df / (df - 2) * scale**2 + (loc - mean) ** 2)).sum().sqrt()
        self.loc, self.scale = (loc - mean) / sd, scale / sd
        super().__init__(torch.Size(batch_shape), validate_args=False)

    def __repr__(self) -> str:
        return f"JumpStudentT({', '.join(f'{name}={value}' for name, value in self.parameters.items())})"

    def expand(self, batch_shape: _size, _instance: object = None) -> "JumpStudentT":
        """The same law for every element of a batch shape."""
        return JumpStudentT(**self.parameters, batch_shape=batch_shape)

    @property
    def mean(self) -> Tensor:
        """Zero."""
        return torch.zeros(self.batch_shape, dtype=torch.float64)

    @property
    def variance(self) -> Tensor:
        """One."""
        return torch.ones(self.batch_shape, dtype=torch.float64)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, in float64."""
        z = (value.double().unsqueeze(-1) - self.loc) / self.scale
        return torch.logsumexp(torch.log(self.weight) + t_log_prob(z, self.df) - torch.log(self.scale), dim=-1)

    def cdf(self, value: Tensor) -> Tensor:
        """Distribution function, in float64."""
        z = (value.double().unsqueeze(-1) - self.loc) / self.scale
        return (self.weight * t_cdf(z, self.df)).sum(-1)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile at left-tail mass `value` in (0, 1), in float64: Newton's method, kept between the parts' own."""
        p = value.double()
        ends = self.loc + self.scale * t_icdf(p.unsqueeze(-1), self.df)
        low, high = ends.amin(-1), ends.amax(-1)
        x = (low + high) / 2
        for _ in range(64):
            excess = self.cdf(x) - p
            if (excess.abs() <= 1e-14 * p).all():
                break
            low, high = torch.where(excess < 0, x, low), torch.where(excess < 0, high, x)
            step = x - excess / torch.exp(self.log_prob(x))
            x = torch.where((step > low) & (step < high), step, (low + high) / 2)
        return x

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws from torch's generator."""
        shape = self._extended_shape(torch.Size(sample_shape))
        jump = (torch.rand(shape, dtype=torch.float64) < self.weight[1]).long()
        t: Tensor = torch.distributions.StudentT(self.df).sample(shape)
        return self.loc[jump] + self.scale[jump] * t


@take.register
def _jump_student_t(distribution: JumpStudentT, index: Any) -> JumpStudentT:
    return distribution.expand(torch.empty(distribution.batch_shape, device="meta")[index].shape)
