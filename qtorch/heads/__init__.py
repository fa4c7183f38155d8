"""Heads, which map hidden states to distributions."""

from qtorch.distributions import decompose
from qtorch.heads.attentional_copula import AttentionalCopulaHead
from qtorch.heads.copula import CopulaHead
from qtorch.heads.coupling_flow import CouplingFlowHead
from qtorch.heads.drawn_weights import DrawnWeights
from qtorch.heads.each_draw import EachDraw
from qtorch.heads.ensemble import Ensemble
from qtorch.heads.flow import FlowHead
from qtorch.heads.gaussian_process import GaussianProcessNormal, GaussianProcessStudentT
from qtorch.heads.hansen_skewed_t import HansenSkewedT
from qtorch.heads.johnson_su import JohnsonSU
from qtorch.heads.joint import JointHead
from qtorch.heads.mixture import Mixture
from qtorch.heads.normal import Normal
from qtorch.heads.normal_inverse_gaussian import NormalInverseGaussian
from qtorch.heads.parametric import Parametric
from qtorch.heads.skewed_student_t import SkewedStudentT
from qtorch.heads.spliced_tails import SplicedTails
from qtorch.heads.student_t import StudentT
from qtorch.heads.variational import Variational
from qtorch.heads.variational_location import VariationalNormal, VariationalStudentT

__all__ = [
    "AttentionalCopulaHead",
    "CopulaHead",
    "CouplingFlowHead",
    "DrawnWeights",
    "EachDraw",
    "Ensemble",
    "FlowHead",
    "GaussianProcessNormal",
    "GaussianProcessStudentT",
    "HansenSkewedT",
    "JohnsonSU",
    "JointHead",
    "Mixture",
    "Normal",
    "NormalInverseGaussian",
    "Parametric",
    "SkewedStudentT",
    "SplicedTails",
    "StudentT",
    "Variational",
    "VariationalNormal",
    "VariationalStudentT",
    "decompose",
]
