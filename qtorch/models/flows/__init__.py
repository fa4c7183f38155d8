"""Normalising flows: modules that map a context to a law on R^D."""

from qtorch.models.flows.affine import AffineFlow
from qtorch.models.flows.bases import CommonShockBase, NormalBase, StudentTBase
from qtorch.models.flows.bernstein import BernsteinFlow
from qtorch.models.flows.continuous import ContinuousFlow, ContinuousLayer
from qtorch.models.flows.flow import Flow
from qtorch.models.flows.gaussianisation import (
    ContextAffineLayer,
    GaussianisationFlow,
    MixtureLayer,
    RotationLayer,
)
from qtorch.models.flows.layers import (
    AutoregressiveLayer,
    CouplingLayer,
    Layer,
    LinearLayer,
    Reorder,
    TailLayer,
)
from qtorch.models.flows.monotone import MonotoneFlow
from qtorch.models.flows.spline import NeuralSplineFlow

__all__ = [
    "AffineFlow",
    "AutoregressiveLayer",
    "BernsteinFlow",
    "CommonShockBase",
    "ContextAffineLayer",
    "ContinuousFlow",
    "ContinuousLayer",
    "CouplingLayer",
    "Flow",
    "GaussianisationFlow",
    "Layer",
    "LinearLayer",
    "MixtureLayer",
    "MonotoneFlow",
    "NeuralSplineFlow",
    "NormalBase",
    "Reorder",
    "RotationLayer",
    "StudentTBase",
    "TailLayer",
]
