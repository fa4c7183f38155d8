"""An allocator as tensors in and out: the state of a market, and weights."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from qtorch.deploy.program import program_of
from qtorch.deploy.server.protocol import Limits, RequestError
from qtorch.deploy.server.tensor_inputs import require_finite
from qtorch.deploy.server.tensor_options import require_known
from qtorch.deploy.server.tensor_outputs import require_finite_output
from qtorch.deploy.signature import TensorSpec
from qtorch.models.market_state import MarketState
from qtorch.nn.graph import Graph
from qtorch.training import Allocator
from qtorch.training.decisions import Decisions

_GROUP = "group_"
_NETWORK = "network."  # before the names of what the network says


class AllocatorService:
    """What a request of an allocator holds, and what is computed of it.

    Args:
        model: in evaluation mode.

    Raises:
        ValueError: its network has no form of plain tensors.
    """

    def __init__(self, model: Allocator) -> None:
        self.model = model
        self.program = program_of(model)
        self.optional = frozenset({"holdings", "tradable"})
        self.default = ("weights",)
        self.labels = {
            name: sorted({label for label in labels.values() if label is not None})
            for name, labels in model.groups.items()
        }
        self.inputs = (
            *self.program.signature.inputs,
            TensorSpec("holdings", "float32", ("B", "N"), "Today's weights, drifted with the prices; none by default."),
            TensorSpec(
                "tradable", "bool", ("B", "N"), "True where what is held may be traded tonight; all by default."
            ),
            *(
                TensorSpec(
                    _GROUP + name,
                    "int64",
                    ("B", "N"),
                    f"Number of each asset's label among {', '.join(labels)}, from 0; -1 for none.",
                )
                for name, labels in self.labels.items()
            ),
        )
        self.outputs = (
            TensorSpec(
                "weights", "float32", ("B", "N"), "Shares of the portfolio, within the allocator's constraints."
            ),
            *(
                TensorSpec(_NETWORK + output.name, output.dtype, output.axes, output.meaning)
                for output in self.program.signature.outputs
            ),
        )
        self.about = {
            "kind": "allocator",
            "context": model.spec.context,
            "features": list(model.spec.features.names),
            "half_lives": list(model.half_lives),
            "groups": self.labels,
        }

    def options(self, parameters: dict[str, Any]) -> tuple[()]:
        """There are none.

        Raises:
            RequestError: 422, there is one that the protocol does not know.
        """
        require_known(parameters)
        return ()

    def told(self, options: tuple[()], names: tuple[str, ...]) -> dict[str, str]:
        """The parameters of a response: none."""
        return {}

    def prepared(self, tensors: dict[str, Tensor], sizes: Mapping[str, int], limits: Limits) -> dict[str, Tensor]:
        """The market, zeros where nothing is usable.

        Raises:
            RequestError: 422, what is usable is not finite or out of bounds, or there is no asset.
        """
        inputs, mask, universe = tensors["inputs"], tensors["mask"], tensors["universe"]
        require_finite("inputs", inputs, mask.unsqueeze(-1).expand(inputs.shape), "where the mask is true")
        inside = universe.unsqueeze(1)
        volatility, correlation, holdings = tensors["volatility"], tensors["correlation"], tensors.get("holdings")
        require_finite("volatility", volatility, inside.expand(volatility.shape), "inside the universe")
        pairs = torch.logical_and(inside.unsqueeze(-1), inside.unsqueeze(-2)).expand(correlation.shape)
        require_finite("correlation", correlation, pairs, "inside the universe")
        require_finite("weights", tensors["weights"], tensors["present"], "where an edge is present")
        if not universe.any(1).all():
            row = int((~universe.any(1)).nonzero()[0])
            raise RequestError(422, f"input 'universe': of decision {row} no asset may be given a weight.")
        N = sizes["N"]
        _require_within("neighbours", tensors["neighbours"], tensors["present"], 0, N - 1)
        if holdings is None and "tradable" in tensors:
            raise RequestError(422, "input 'tradable' tells what of the holdings may be traded. Give 'holdings' too.")
        if holdings is not None:
            require_finite("holdings", holdings, torch.ones_like(universe), "of a weight")
        for name, labels in self.labels.items():
            _require_within(_GROUP + name, tensors[_GROUP + name], torch.ones_like(universe), -1, len(labels) - 1)
        return tensors | {
            "inputs": torch.where(mask.unsqueeze(-1), inputs, 0.0),
            "volatility": torch.where(inside, volatility, 1.0),
            "correlation": torch.where(pairs, correlation, 0.0),
            "weights": torch.where(tensors["present"], tensors["weights"], 0.0),
            "neighbours": torch.where(tensors["present"], tensors["neighbours"], 0),
        }

    def network(self, tensors: dict[str, Tensor], names: tuple[str, ...]) -> tuple[Tensor, ...]:
        """What the network says, where it is wanted."""
        if all(not name.startswith(_NETWORK) for name in names):
            return ()
        return self.program(*(tensors[spec.name] for spec in self.program.signature.inputs))

    def answers(
        self, views: tuple[Tensor, ...], tensors: dict[str, Tensor], options: tuple[()], names: tuple[str, ...]
    ) -> dict[str, Tensor]:
        """The outputs that are wanted, and no others.

        Raises:
            RequestError: 422, weights are not finite.
            ValueError: no weights keep to the constraints.
        """
        own = dict(zip((output.name for output in self.program.signature.outputs), views, strict=bool(views)))
        found = {
            name: own[name.removeprefix(_NETWORK)] if name.startswith(_NETWORK) else self._weights(tensors)
            for name in names
        }
        if "weights" in found:
            require_finite_output("weights", found["weights"], torch.tensor(True))
        return found

    def _weights(self, tensors: dict[str, Tensor]) -> Tensor:
        universe = tensors["universe"]
        graph = Graph(tensors["neighbours"], tensors["present"], universe, tensors["weights"])
        market = MarketState(
            tensors["inputs"], tensors["mask"], universe, tensors["correlation"], tensors["volatility"], graph
        )
        B, N = universe.shape
        decisions = Decisions(
            market,
            tensors.get("tradable", torch.ones_like(universe)),
            {name: tensors[_GROUP + name] for name in self.labels},
            torch.arange(B),
            # Requests tell no dates; messages count days from here.
            pd.date_range("2000-01-01", periods=B),
            tuple(f"asset {n}" for n in range(N)),
        )
        return self.model.decide(decisions, tensors.get("holdings"))


def _require_within(name: str, value: Tensor, usable: Tensor, low: int, high: int) -> None:
    bad = torch.logical_and(usable, torch.logical_or(value < low, value > high))
    if bad.any():
        at = bad.nonzero()[0].tolist()
        raise RequestError(422, f"input {name!r}: {value[tuple(at)].item()} at {at}, outside [{low}, {high}].")
