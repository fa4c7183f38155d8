"""An artefact in the place of the network that it was made of."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from qtorch.errors import ArgumentError
from qtorch.models.market_state import MarketState
from qtorch.training.network import Network

Function = Callable[..., tuple[Tensor, ...]]


class ArtefactNetwork(Network):
    """A network whose parameters of laws an artefact computes, from the last session of windows.

    Args:
        artefact: `(inputs, mask) -> parameters`.
        head: makes laws of them.
        layout: of the windows.
        causal: whether the encoder was.
    """

    def __init__(self, artefact: Function, head: nn.Module, layout: str, causal: bool) -> None:
        super().__init__(_Encoder(layout, causal), head)
        self.artefact = artefact

    def forward(
        self, inputs: Float[Tensor, "B C *N F"], mask: Bool[Tensor, "B C *N"], every_position: bool = False
    ) -> tuple[Shaped[Tensor, "B ..."], ...]:
        """The head's parameter tensors from the window's last session.

        Raises:
            ValueError: they are asked for from each session.
        """
        if every_position:
            raise ArgumentError("an artefact forecasts from the last session of windows alone. Load the bundle.")
        return self.artefact(inputs, mask)


class _Encoder(nn.Module):
    """What is left of an encoder."""

    def __init__(self, layout: str, causal: bool) -> None:
        super().__init__()
        self.layout, self.causal = layout, causal


class ArtefactViews(nn.Module):
    """What an allocator's network says, by an artefact.

    Args:
        artefact: the program of an allocator.
        network: one of the same kind, with any weights, that makes views of parts.
    """

    def __init__(self, artefact: Function, network: nn.Module) -> None:
        super().__init__()
        self.artefact, self.network = artefact, network

    def forward(self, market: MarketState) -> Tensor:
        """The views of a market.

        Raises:
            ValueError: its graph has kinds of edges, or no weights.
        """
        graph = market.graph
        given = (
            market.inputs,
            market.mask,
            market.universe,
            market.correlation,
            market.volatility,
            graph.neighbours,
            graph.present,
            graph.weights,
        )
        outputs = self.artefact(*given)
        views: Any = getattr(self.network, "views", None)
        made: torch.Tensor = views(*outputs) if callable(views) else outputs[0]
        return made
