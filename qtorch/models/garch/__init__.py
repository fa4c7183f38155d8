"""GARCH(1,1) and GJR-GARCH for thousands of series at once: recursion, likelihood with scores, estimation."""

from qtorch.models.garch.fit import GarchFit
from qtorch.models.garch.specification import Parameters, Specification

__all__ = ["GarchFit", "Parameters", "Specification"]
