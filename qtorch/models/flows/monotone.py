"""Flows of integrals of positive networks."""

from collections.abc import Sequence
from functools import partial

from torch import nn

from qtorch.distributions.checks import require
from qtorch.distributions.transforms import UnconstrainedMonotone
from qtorch.distributions.transforms.unconstrained_monotone import MAX_UNITS
from qtorch.models.flows.bases import default_base
from qtorch.models.flows.flow import Flow
from qtorch.models.flows.layers import conditional_layers


class MonotoneFlow(Flow):
    """Unconstrained monotonic networks: each coordinate through the integral of a positive network.

    Args:
        features: coordinates D.
        context: features C of the context; 0 for none.
        transforms: layers.
        hidden: widths of the networks that give the parameters.
        units: of each positive network, 8 at most.
        bound: the networks act on [-bound, bound].
        autoregressive: as in `NeuralSplineFlow`, as are `tails` and `base`; published flows are autoregressive.
        tails: whether a layer of heavy tails stands next to the data.
        base: the module of the base law; by default a `CommonShockBase`, or without `tails` independent normals.

    References:
        Wehenkel and Louppe (2019), Unconstrained monotonic neural networks, NeurIPS.
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        transforms: int = 3,
        hidden: Sequence[int] = (128, 128),
        units: int = 6,
        bound: float = 5.0,
        autoregressive: bool = True,
        tails: bool = True,
        base: nn.Module | None = None,
    ) -> None:
        require(1 <= units <= MAX_UNITS, "units", units, f"a network has 1 to {MAX_UNITS} units")
        kind, size = partial(UnconstrainedMonotone, bound=bound), UnconstrainedMonotone.size(units)
        layers = conditional_layers(features, context, transforms, hidden, kind, size, autoregressive, tails)
        super().__init__(default_base(features, tails) if base is None else base, layers)
        self.features, self.context, self.transforms, self.hidden = features, context, transforms, list(hidden)
        self.units, self.bound, self.autoregressive, self.tails = units, bound, autoregressive, tails
