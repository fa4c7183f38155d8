"""A flow: layers of transforms over a base law, given a context."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions.flow import FlowDistribution
from qtorch.distributions.transforms import Composed
from qtorch.models.flows.bases import CommonShockBase, StudentTBase
from qtorch.models.flows.layers import Layer


class Flow(nn.Module):
    """Maps a context to a law on R^D.

    Args:
        base: a module whose call with a batch shape gives a law of event shape `[D]`.
        layers: from data to base.
    """

    def __init__(self, base: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.base, self.layers = base, nn.ModuleList(layers)

    def forward(self, context: Float[Tensor, "... C"] | None = None) -> FlowDistribution:
        """The law given a context `[..., C]`, of batch shape `[...]`."""
        shape = torch.Size() if context is None else context.shape[:-1]
        return FlowDistribution(self.base(shape), Composed([layer.given(context) for layer in self._parts()]))

    def initialise(self, data: Float[Tensor, "T D"]) -> None:
        """Estimates from data, in float64, what gradients learn slowly: tail indices, locations, scales.

        Each layer sees what the layers before it make of the data, without a context. The base sees what those make of
        it that take something from data; later layers start near the identity.

        Raises:
            ValueError: fewer than 20 rows, or not finite ones.
        """
        parts = self._parts()
        while parts and type(parts[-1]).initialise is Layer.initialise:  # nobody waits for what it makes of the data
            parts.pop()
        z = data
        for part in parts:
            part.initialise(z)
            with torch.no_grad():
                z = part.given(None)(z)
        if isinstance(self.base, (CommonShockBase, StudentTBase)):
            self.base.initialise(z)

    def _parts(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]
