"""Student's t with a small probability of a jump."""

import math
from typing import Any

import torch
from torch.types import _size

from qtorch.distributions.checks import require
from qtorch.distributions.indexing import take
from qtorch.distributions.mixture import Mixture
from qtorch.distributions.student_t import StudentT


class JumpStudentT(Mixture):
    """The law of a standardised shock: Student's t, with a small probability that of a jump; mean 0, variance 1.

    X = (Y - E Y) / sd(Y) with Y = T in a quiet session and Y = jump_mean + jump_scale T in one with a jump, T of
    Student's t: a mixture of two located and scaled t's.

    Args:
        df: degrees of freedom, above 2.
        jump_rate: probability of a jump in a session.
        jump_mean: mean of Y in a jump; negative makes crashes.
        jump_scale: scale of Y in a jump, positive.
        batch_shape: every element of the batch has the same law.

    Raises:
        ValueError: a parameter is outside its domain.

    Example:
        >>> law = JumpStudentT(df=5.0, jump_rate=0.02)
        >>> x = law.icdf(torch.tensor(0.01, dtype=torch.float64))
        >>> round(law.cdf(x).item(), 12)
        0.01
    """

    components: StudentT

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
        weight = torch.tensor([1 - jump_rate, jump_rate], dtype=torch.float64)
        loc = torch.tensor([0.0, jump_mean], dtype=torch.float64)
        scale = torch.tensor([1.0, jump_scale], dtype=torch.float64)
        mean = (weight * loc).sum()
        sd = (weight * (df / (df - 2) * scale**2 + (loc - mean) ** 2)).sum().sqrt()
        shape = torch.Size((*batch_shape, 2))
        super().__init__(weight.expand(shape), StudentT(df, (loc - mean) / sd, scale / sd).expand(shape))

    def __repr__(self) -> str:
        return f"JumpStudentT({', '.join(f'{name}={value}' for name, value in self.parameters.items())})"

    def expand(self, batch_shape: _size, _instance: object = None) -> "JumpStudentT":
        """The same law for every element of a batch shape."""
        return JumpStudentT(**self.parameters, batch_shape=batch_shape)


@take.register
def _jump_student_t(distribution: JumpStudentT, index: Any) -> JumpStudentT:
    return distribution.expand(torch.empty(distribution.batch_shape, device="meta")[index].shape)
