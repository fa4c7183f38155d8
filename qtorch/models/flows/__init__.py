"""Normalising flows: modules that map a context to a law on R^D."""

from qtorch.models.flows.affine import AffineFlow
from qtorch.models.flows.bases import NormalBase, StudentTBase
from qtorch.models.flows.flow import Flow
from qtorch.models.flows.layers import (
    AutoregressiveLayer,
    CouplingLayer,
    Layer,
    LinearLayer,
    Reorder,
    TailLayer,
)
from qtorch.models.flows.spline import NeuralSplineFlow

__all__ = [
    "AffineFlow",
    "AutoregressiveLayer",
    "CouplingLayer",
    "Flow",
    "Layer",
    "LinearLayer",
    "NeuralSplineFlow",
    "NormalBase",
    "Reorder",
    "StudentTBase",
    "TailLayer",
]
