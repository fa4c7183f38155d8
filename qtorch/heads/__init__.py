"""Heads, which map hidden states to distributions."""

from qtorch.heads.skewed_student_t import SkewedStudentT

__all__ = ["SkewedStudentT"]
