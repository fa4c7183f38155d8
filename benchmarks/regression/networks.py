"""Networks of rows, without panel or `Forecaster`: an encoder and a head, alone or several with stacked weights."""

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call, vmap

from qtorch.heads.parametric import Parameters

WIDTH = 64


class Layers(nn.Module):
    """Two layers of SiLU, at every position of a window."""

    def __init__(self, in_features: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.in_features, self.out_features, self.dropout = in_features, WIDTH, dropout
        layers: list[nn.Module] = []
        for size in (in_features, WIDTH):
            layers += [nn.Linear(size, WIDTH), nn.SiLU(), *([nn.Dropout(dropout)] if dropout else [])]
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Hidden states."""
        return self.layers(inputs)


class Regression(nn.Module):
    """An encoder, which sees each row as a window of one session, and a head."""

    def __init__(self, encoder: nn.Module, head: Any) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def hidden(self, x: Tensor) -> Tensor:
        """Hidden states of rows."""
        return self.encoder(x.unsqueeze(1), torch.ones(len(x), 1, dtype=torch.bool)).squeeze(1)

    def parameters_of(self, x: Tensor) -> Parameters:
        """The laws' parameters, each `[Q, H]`, or `[Q, H, K]` of K draws."""
        return self.head.parameters_of(self.hidden(x))

    def forward(self, x: Tensor) -> Distribution:
        """The law of the outcomes of rows, batch shape `[Q, H]`."""
        return self.head(self.hidden(x))


class Parts(nn.Module):
    """A network's parameters of rows' laws, and its penalty: tensors, which `vmap` can stack."""

    def __init__(self, network: Regression) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Parameters, Tensor]:
        """Both."""
        return self.network.parameters_of(x), self.network.head.penalty()


class Together(nn.Module):
    """Variational networks, evaluated together with stacked weights. Its law is a batch of theirs, `[M, Q, H]`."""

    stacked: ClassVar[bool] = True

    def __init__(self, networks: list[Regression]) -> None:
        super().__init__()
        self.parts = Parts(copy.deepcopy(networks[0]))
        for name, value in self.parts.network.named_parameters():
            value.data = torch.stack([network.get_parameter(name).detach() for network in networks])

    def each(self, x: Tensor) -> tuple[Parameters, Tensor]:
        """The parts of every member, members first."""

        def of_one(weights: dict[str, Tensor]) -> Any:
            return functional_call(self.parts, weights, (x,))

        return vmap(of_one, randomness="different")(dict(self.parts.named_parameters()))

    def law(self, x: Tensor) -> Distribution:
        """The mixture of all draws of all members, batch shape `[Q, H]`."""
        parameters, _ = self.each(x)
        return self.parts.network.head.distribution(*(part.movedim(0, -2).flatten(-2) for part in parameters))
