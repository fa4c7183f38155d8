"""Invertible maps with log-derivatives, for flows."""

from qtorch.distributions.transforms.affine import Affine
from qtorch.distributions.transforms.autoregressive import Autoregressive
from qtorch.distributions.transforms.bernstein import Bernstein
from qtorch.distributions.transforms.bijection import Bijection
from qtorch.distributions.transforms.composed import Composed
from qtorch.distributions.transforms.continuous import Continuous
from qtorch.distributions.transforms.coupling import Coupling
from qtorch.distributions.transforms.lu_linear import LULinear
from qtorch.distributions.transforms.masked import Masked
from qtorch.distributions.transforms.masked_coupling import MaskedCoupling
from qtorch.distributions.transforms.mixture_gaussianisation import MixtureGaussianisation
from qtorch.distributions.transforms.normal_scores import NormalScores
from qtorch.distributions.transforms.pareto_tails import ParetoTails
from qtorch.distributions.transforms.permutation import Permutation
from qtorch.distributions.transforms.rational_quadratic import RationalQuadratic
from qtorch.distributions.transforms.rotation import Rotation
from qtorch.distributions.transforms.student_tails import StudentTails
from qtorch.distributions.transforms.unconstrained_monotone import UnconstrainedMonotone

__all__ = [
    "Affine",
    "Autoregressive",
    "Bernstein",
    "Bijection",
    "Composed",
    "Continuous",
    "Coupling",
    "LULinear",
    "Masked",
    "MaskedCoupling",
    "MixtureGaussianisation",
    "NormalScores",
    "ParetoTails",
    "Permutation",
    "RationalQuadratic",
    "Rotation",
    "StudentTails",
    "UnconstrainedMonotone",
]
