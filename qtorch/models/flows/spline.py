"""Neural spline flows with heavy tails."""

from collections.abc import Sequence
from functools import partial

from torch import nn

from qtorch.distributions.checks import require
from qtorch.distributions.transforms import RationalQuadratic
from qtorch.models.flows.bases import default_base
from qtorch.models.flows.flow import Flow
from qtorch.models.flows.layers import conditional_layers


class NeuralSplineFlow(Flow):
    """Rational-quadratic splines between a layer of heavy tails and a base with a common shock.

    The tail layer, next to the data, makes them Gaussian in the tails, so that the splines work on values of ordinary
    size, and no input of theirs, however extreme, breaks the inverse in float32. What extremes of several coordinates
    come together is the base's: splines would have to learn it where there is hardly any data. Call `initialise` with
    training data before training: the tail indices start at extreme-value estimates, and a fresh flow is near the
    multivariate t, each side of each coordinate with an index of its own, that fits the data.

    Args:
        features: coordinates D.
        context: features C of the context; 0 for none.
        transforms: spline layers.
        hidden: widths of their networks.
        bins: of each spline.
        bound: splines act on [-bound, bound].
        autoregressive: each coordinate given all before it (NSF-AR) instead of half given the other half (NSF-C).
        tails: False leaves the tail layer out, and the common shock.
        base: a module whose call with a batch shape gives the base law; by default a `CommonShockBase`, or without
            `tails` independent normals.

    References:
        Durkan, Bekasov, Murray and Papamakarios (2019), Neural spline flows, NeurIPS.
        Hickling and Prangle (2024), Flexible tails for normalizing flows.

    Example:
        >>> import torch
        >>> flow = NeuralSplineFlow(features=3, context=2, hidden=[16])
        >>> flow.initialise(torch.randn(100, 3))
        >>> law = flow(torch.zeros(5, 2))
        >>> law.log_prob(law.sample()).shape
        torch.Size([5])
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        transforms: int = 5,
        hidden: Sequence[int] = (128, 128),
        bins: int = 8,
        bound: float = 5.0,
        autoregressive: bool = False,
        tails: bool = True,
        base: nn.Module | None = None,
    ) -> None:
        require(bins >= 2, "bins", bins, "a spline needs two bins")
        kind, size = partial(RationalQuadratic, bound=bound), RationalQuadratic.size(bins)
        layers = conditional_layers(features, context, transforms, hidden, kind, size, autoregressive, tails)
        super().__init__(default_base(features, tails) if base is None else base, layers)
        self.features, self.context, self.transforms, self.hidden = features, context, transforms, list(hidden)
        self.bins, self.bound, self.autoregressive, self.tails = bins, bound, autoregressive, tails
