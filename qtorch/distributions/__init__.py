"""torch.distributions that risk needs: exact cdf, icdf and tail means where torch has none."""

from qtorch.distributions.affine import Affine
from qtorch.distributions.attentional_copula import AttentionalCopula
from qtorch.distributions.conditioned import Conditioned
from qtorch.distributions.copulas import GaussianCopula, StudentTCopula
from qtorch.distributions.empirical import Empirical
from qtorch.distributions.exp_minus_one import ExpMinusOne
from qtorch.distributions.generalized_pareto import GeneralizedPareto
from qtorch.distributions.hansen_skewed_t import HansenSkewedT
from qtorch.distributions.indexing import take
from qtorch.distributions.johnson_su import JohnsonSU
from qtorch.distributions.joining import concatenate, stack
from qtorch.distributions.joint import JointDistribution
from qtorch.distributions.joint_mixture import JointMixture
from qtorch.distributions.jump_student_t import JumpStudentT
from qtorch.distributions.log_tails import log_cdf, log_sf, log_tails
from qtorch.distributions.masked_flow import MaskedFlow
from qtorch.distributions.mixture import Mixture
from qtorch.distributions.moment_generating import log_moment_generating
from qtorch.distributions.multivariate_student_t import MultivariateStudentT
from qtorch.distributions.normal_inverse_gaussian import NormalInverseGaussian
from qtorch.distributions.posterior import Decomposition, Posterior, decompose, over_draws
from qtorch.distributions.quantile_spline import QuantileSpline
from qtorch.distributions.skewed_student_t import SkewedStudentT
from qtorch.distributions.spliced_tails import SplicedTails
from qtorch.distributions.stacked import Stacked
from qtorch.distributions.student_t import StudentT
from qtorch.distributions.tails import partial_mean, register_tail_mean, tail_mean

__all__ = [
    "Affine",
    "AttentionalCopula",
    "Conditioned",
    "Decomposition",
    "Empirical",
    "ExpMinusOne",
    "GaussianCopula",
    "GeneralizedPareto",
    "HansenSkewedT",
    "JohnsonSU",
    "JointDistribution",
    "JointMixture",
    "JumpStudentT",
    "MaskedFlow",
    "Mixture",
    "MultivariateStudentT",
    "NormalInverseGaussian",
    "Posterior",
    "QuantileSpline",
    "SkewedStudentT",
    "SplicedTails",
    "Stacked",
    "StudentT",
    "StudentTCopula",
    "concatenate",
    "decompose",
    "log_cdf",
    "log_moment_generating",
    "log_sf",
    "log_tails",
    "over_draws",
    "partial_mean",
    "register_tail_mean",
    "stack",
    "tail_mean",
    "take",
]
