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
    """What an allocator's network says, computed by an artefact: it stands in the network's place in an `Allocator`.

    Args:
        artefact: the program of an allocator.
        network: one of the same kind, whose own weights are not looked at; it joins the artefact's outputs to views,
            where those come in parts.
        kinds: of edges that the artefact is given; 0 for none.
    """

    def __init__(self, artefact: Function, network: nn.Module, kinds: int) -> None:
        super().__init__()
        self.artefact, self.network, self.kinds = artefact, network, kinds

    def forward(self, market: MarketState) -> Tensor:
        """The views of a market.

        Raises:
            ValueError: its graph lacks the weights, or the kinds, of edges.
        """
        graph = market.graph
        edges = {"weights": graph.weights} | ({"kinds": graph.kinds} if self.kinds else {})
        if lacks := [name for name, value in edges.items() if value is None]:
            raise ArgumentError(
                f"the edges of the graph have no {' and no '.join(lacks)}, which the artefact is given: take the "
                "graphs that the model was exported with."
            )
        given = (
            market.inputs,
            market.mask,
            market.universe,
            market.correlation,
            market.volatility,
            graph.neighbours,
            graph.present,
            *edges.values(),
        )
        outputs = self.artefact(*given)
        views: Any = getattr(self.network, "views", None)
        made: torch.Tensor = views(*outputs) if callable(views) else outputs[0]
        return made
