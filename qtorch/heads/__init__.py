"""Heads, which map hidden states to distributions."""

from qtorch.heads.attentional_copula import AttentionalCopulaHead
from qtorch.heads.copula import CopulaHead
from qtorch.heads.coupling_flow import CouplingFlowHead
from qtorch.heads.flow import FlowHead
from qtorch.heads.joint import JointHead
from qtorch.heads.parametric import Parametric
from qtorch.heads.skewed_student_t import SkewedStudentT

__all__ = [
    "AttentionalCopulaHead",
    "CopulaHead",
    "CouplingFlowHead",
    "FlowHead",
    "JointHead",
    "Parametric",
    "SkewedStudentT",
]
