"""Flows of Bernstein polynomials."""

from collections.abc import Sequence
from functools import partial

from torch import nn

from qtorch.distributions.checks import require
from qtorch.distributions.transforms import Bernstein
from qtorch.models.flows.bases import default_base
from qtorch.models.flows.flow import Flow
from qtorch.models.flows.layers import conditional_layers


class BernsteinFlow(Flow):
    """Increasing Bernstein polynomials; their inverse is found by Newton's method.

    Args:
        features: coordinates D.
        context: features C of the context; 0 for none.
        transforms: layers.
        hidden: widths of their networks.
        degree: of each polynomial.
        bound: polynomials act on [-bound, bound].
        autoregressive: as in `NeuralSplineFlow`, as are `tails` and `base`.
        tails: whether a layer of heavy tails stands next to the data.
        base: the module of the base law; by default a `CommonShockBase`, or without `tails` independent normals.

    References:
        Sick, Hothorn and Duerr (2021), Deep transformation models, ICPR.
        Ramasinghe, Fernando, Khan and Barnes (2022), Robust normalizing flows using Bernstein-type polynomials, BMVC.
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        transforms: int = 5,
        hidden: Sequence[int] = (128, 128),
        degree: int = 16,
        bound: float = 5.0,
        autoregressive: bool = False,
        tails: bool = True,
        base: nn.Module | None = None,
    ) -> None:
        require(degree >= 1, "degree", degree, "a polynomial needs a step")
        kind, size = partial(Bernstein, bound=bound), Bernstein.size(degree)
        layers = conditional_layers(features, context, transforms, hidden, kind, size, autoregressive, tails)
        super().__init__(default_base(features, tails) if base is None else base, layers)
        self.features, self.context, self.transforms, self.hidden = features, context, transforms, list(hidden)
        self.degree, self.bound, self.autoregressive, self.tails = degree, bound, autoregressive, tails
