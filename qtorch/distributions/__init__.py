"""torch.distributions that risk needs: exact cdf, icdf and tail means where torch has none."""

from qtorch.distributions.affine import Affine
from qtorch.distributions.empirical import Empirical
from qtorch.distributions.indexing import take
from qtorch.distributions.jump_student_t import JumpStudentT
from qtorch.distributions.skewed_student_t import SkewedStudentT
from qtorch.distributions.tails import register_tail_mean, tail_mean

__all__ = ["Affine", "Empirical", "JumpStudentT", "SkewedStudentT", "register_tail_mean", "tail_mean", "take"]
