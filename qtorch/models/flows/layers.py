"""Layers of flows: modules that, given a context, are transforms of vectors."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions.checks import require
from qtorch.distributions.tail_index import hill, tail_index
from qtorch.distributions.transforms import Autoregressive, Bijection, Coupling, LULinear, Permutation, StudentTails
from qtorch.distributions.transforms.coupling import Elementwise
from qtorch.distributions.transforms.student_tails import heavier
from qtorch.errors import ArgumentError
from qtorch.models.flows.orders import coupling_orders
from qtorch.nn.feature_first import FeatureFirstMLP, MaskedMLP

Context = Float[Tensor, "... C"] | None


class Layer(nn.Module, ABC):
    """A transform that may depend on a context."""

    @abstractmethod
    def given(self, context: Context) -> Bijection:
        """The transform, from data to base, for a context `[..., C]`."""

    def initialise(self, data: Float[Tensor, "T D"]) -> None:
        """Takes from data what is better estimated than learned; nothing by default."""


class Reorder(Layer):
    """A fixed order of the coordinates.

    Args:
        order: a permutation of 0 to D - 1.

    Raises:
        ValueError: it is none.
    """

    order: Tensor
    back: Tensor

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        permutation = Permutation(order)
        self.register_buffer("order", permutation.order, persistent=False)
        self.register_buffer("back", permutation.back, persistent=False)

    def given(self, context: Context) -> Bijection:
        """The transform, which depends on no context."""
        return Permutation(self.order, self.back)


class CouplingLayer(Layer):
    """The second coordinates given the first.

    Args:
        features: coordinates D.
        context: features C of the context.
        hidden: widths of the conditioner.
        elementwise: the map of each coordinate, by its parameters.
        parameters: how many it takes.
        kept: the first coordinates, which stay.
    """

    def __init__(
        self, features: int, context: int, hidden: Sequence[int], elementwise: Elementwise, parameters: int, kept: int
    ) -> None:
        super().__init__()
        self.kept, self.elementwise = kept, elementwise
        self.net = FeatureFirstMLP(kept, context, hidden, parameters, features - kept)
        _start_near_identity(self.net)

    def given(self, context: Context) -> Bijection:
        """The transform for a context `[..., C]`."""
        return Coupling(self.net.given(context), self.elementwise, self.kept)


class AutoregressiveLayer(Layer):
    """Each coordinate given those before it; the arguments are those of `CouplingLayer`, but that none is kept."""

    def __init__(
        self, features: int, context: int, hidden: Sequence[int], elementwise: Elementwise, parameters: int
    ) -> None:
        super().__init__()
        self.elementwise = elementwise
        self.net = MaskedMLP(features, context, hidden, parameters)
        _start_near_identity(self.net)

    def given(self, context: Context) -> Bijection:
        """The transform for a context `[..., C]`."""
        return Autoregressive(self.net.given(context), self.elementwise)


@torch.no_grad()
def _start_near_identity(net: FeatureFirstMLP | MaskedMLP) -> None:
    """Makes the last layer small, so that a fresh flow is what was estimated from data and little else.

    Not 0, which would leave the layers before it without a gradient.
    """
    for last in (net.weights[-1], net.biases[-1]):
        last.mul_(0.01)


class LinearLayer(Layer):
    """A learned linear map, at first the identity.

    Args:
        features: coordinates D.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.factors, self.bias = nn.Parameter(torch.zeros(features, features)), nn.Parameter(torch.zeros(features))

    def given(self, context: Context) -> Bijection:
        """The transform, which depends on no context."""
        return LULinear(self.factors, self.bias)


class TailLayer(Layer):
    """Heavy tails to normal ones, as `StudentTails`, with an index for each side of each coordinate.

    Args:
        features: coordinates D.
        learned: whether indices, location and scale change in training.
    """

    def __init__(self, features: int, learned: bool = True) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(features), requires_grad=learned)
        self.log_scale = nn.Parameter(torch.zeros(features), requires_grad=learned)
        self.log_index = nn.Parameter(torch.full((2, features), math.log(0.1)), requires_grad=learned)

    @property
    def index(self) -> Float[Tensor, "2 D"]:
        """The tail indices xi of the left and the right sides."""
        return torch.exp(self.log_index)

    def given(self, context: Context) -> Bijection:
        """The transform, which depends on no context."""
        lower, upper = self.index
        return StudentTails(self.loc, torch.exp(self.log_scale), lower, upper)

    @torch.no_grad()
    def initialise(self, data: Float[Tensor, "T D"]) -> None:
        """Location: the medians. Indices: extreme-value estimates. Scale: where the map meets the data.

        Raises:
            ValueError: fewer than 20 rows, or not finite ones; or a coordinate without tails, such as a constant.
        """
        loc = data.double().median(0).values
        centred = data.double() - loc
        sides = (-centred, centred)
        index = torch.stack([tail_index(side) for side in sides]).clamp(0.02, 0.9)
        threshold = torch.stack([hill(side)[1] for side in sides])
        mass = (torch.stack((-centred, centred)) >= threshold.unsqueeze(1)).double().mean(1)
        z = -torch.special.ndtri(mass)
        scale = threshold / (z * torch.exp(heavier(z, index)[0]))
        if not (scale.mean(0) > 0).all():
            raise ArgumentError(
                f"coordinates {(~(scale.mean(0) > 0)).nonzero().flatten().tolist()} have no tails: all but a few of "
                "their values are one and the same. Leave them out."
            )
        self.loc.copy_(loc)
        self.log_scale.copy_(torch.log(scale.mean(0)))
        self.log_index.copy_(torch.log(index))


def conditional_layers(
    features: int,
    context: int,
    transforms: int,
    hidden: Sequence[int],
    elementwise: Elementwise,
    parameters: int,
    autoregressive: bool,
    tails: bool,
) -> list[Layer]:
    """Tails if wanted, then coupling or autoregressive layers, with the orders between them and back to the first.

    Raises:
        ValueError: there is no coordinate or no layer.
    """
    require(features >= 1, "features", features, "a law needs a coordinate")
    require(transforms >= 1, "transforms", transforms, "a flow needs a layer")
    layers: list[Layer] = [TailLayer(features)] if tails else []
    current = list(range(features))

    def reorder(order: list[int]) -> None:
        nonlocal current
        if order != current:
            layers.append(Reorder([current.index(i) for i in order]))
            current = order

    for k, (order, kept) in enumerate(coupling_orders(features, transforms)):
        if autoregressive:
            reorder(list(range(features))[:: -1 if k % 2 else 1])
            layers.append(AutoregressiveLayer(features, context, hidden, elementwise, parameters))
        else:
            reorder(order)
            layers.append(CouplingLayer(features, context, hidden, elementwise, parameters, kept))
    reorder(list(range(features)))
    return layers
