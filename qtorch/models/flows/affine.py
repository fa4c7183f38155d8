"""Flows of affine layers: RealNVP and MAF."""

from collections.abc import Sequence

from torch import nn

from qtorch.distributions.transforms import Affine
from qtorch.models.flows.bases import default_base
from qtorch.models.flows.flow import Flow
from qtorch.models.flows.layers import conditional_layers


class AffineFlow(Flow):
    """Affine layers: RealNVP, or a masked autoregressive flow.

    Args:
        features: coordinates D.
        context: features C of the context; 0 for none.
        transforms: affine layers.
        hidden: widths of their networks.
        autoregressive: each coordinate given all before it (MAF) instead of half given the other half (RealNVP).
        tails: whether a layer of heavy tails stands next to the data, as in `NeuralSplineFlow`.
        base: a module whose call with a batch shape gives the base law; by default a `CommonShockBase`, or without
            `tails` independent normals.

    References:
        Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, ICLR.
        Papamakarios, Pavlakou and Murray (2017), Masked autoregressive flow for density estimation, NeurIPS.
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        transforms: int = 5,
        hidden: Sequence[int] = (128, 128),
        autoregressive: bool = False,
        tails: bool = True,
        base: nn.Module | None = None,
    ) -> None:
        kind, size = Affine, Affine.count
        layers = conditional_layers(features, context, transforms, hidden, kind, size, autoregressive, tails)
        super().__init__(default_base(features, tails) if base is None else base, layers)
        self.features, self.context, self.transforms, self.hidden = features, context, transforms, list(hidden)
        self.autoregressive, self.tails = autoregressive, tails
