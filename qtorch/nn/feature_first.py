"""Conditioner networks of flows, with features first and the batch last.

A flow's elementwise arithmetic on `[P, d, batch]` then runs along the batch, and the last linear map writes that
layout without a copy. What a context contributes to the first layer is computed once and used by every pass.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions.transforms.bijection import expand_first
from qtorch.nn.linear import linear_first
from qtorch.nn.squash import squash


class FeatureFirstMLP(nn.Module):
    """Parameters `[P, b, ...]` of b coordinates from a others and a context.

    Coordinates enter as asinh(x): extreme values would otherwise drown the context, and amplify rounding so far that
    the inverse of a flow is lost in float32.

    Args:
        in_features: a, 0 or more.
        context: features of the context, 0 or more.
        hidden: widths, at least one.
        parameters: P of each coordinate.
        out_features: b.
    """

    def __init__(
        self, in_features: int, context: int, hidden: Sequence[int], parameters: int, out_features: int
    ) -> None:
        super().__init__()
        self.out = (parameters, out_features)
        fan_in = in_features + context
        self.first = _parameter(hidden[0], in_features, fan_in=fan_in)
        self.context = _parameter(hidden[0], context, fan_in=fan_in) if context else None
        sizes = [*hidden, parameters * out_features]
        self.weights = nn.ParameterList(_parameter(n, m, fan_in=m) for m, n in pairwise(sizes))
        self.biases = nn.ParameterList(_parameter(n, fan_in=m) for m, n in zip([fan_in, *hidden], sizes, strict=True))

    def given(self, context: Float[Tensor, "... C"] | None) -> Callable[[Tensor], Tensor]:
        """The network of `[a, ...]` alone, the context's part computed."""
        return partial(self._pass, before=_before(self.context, self.biases[0], context))

    def _pass(self, x: Float[Tensor, "a ..."], before: Float[Tensor, "H ..."]) -> Float[Tensor, "P b ..."]:
        hidden = linear_first(self.first, squash(x), before)
        for weight, bias in zip(self.weights, self.biases[1:], strict=True):
            hidden = linear_first(weight, torch.relu(hidden), bias)
        return hidden.unflatten(0, self.out)


class MaskedMLP(nn.Module):
    """Parameters `[P, D, ...]` of D coordinates, those of each from the coordinates before it and a context.

    A hidden unit of degree m sees the first m coordinates. Units stand in the order of their degrees, so that
    `steps` evaluates, for each new coordinate, the units that just became known and nothing else: D steps multiply
    by each weight once, as one pass does.

    Args:
        features: D.
        context: features of the context, 0 or more.
        hidden: widths, at least one.
        parameters: P of each coordinate.

    References:
        Germain, Gregor, Murray and Larochelle (2015), MADE, ICML.
    """

    mask: Tensor

    def __init__(self, features: int, context: int, hidden: Sequence[int], parameters: int) -> None:
        super().__init__()
        self.out = (parameters, features)
        fan_in = features + context
        self.first = _parameter(hidden[0], features, fan_in=fan_in)
        self.context = _parameter(hidden[0], context, fan_in=fan_in) if context else None
        sizes = [*hidden, parameters * features]
        self.weights = nn.ParameterList(_parameter(n, m, fan_in=m) for m, n in pairwise(sizes))
        self.biases = nn.ParameterList(_parameter(n, fan_in=m) for m, n in zip([fan_in, *hidden], sizes, strict=True))
        degrees = [torch.arange(width) * features // width for width in hidden]
        # ends[l][m] units of layer l have a degree of at most m.
        self.ends = [[int((degree <= m).sum()) for m in range(features)] for degree in degrees]
        rows = [*degrees, torch.arange(features).repeat(parameters)]
        self.register_buffer("mask", torch.arange(features) < degrees[0].unsqueeze(-1), persistent=False)
        for k, (column, row) in enumerate(pairwise(rows)):
            self.register_buffer(f"mask_{k}", column <= row.unsqueeze(-1), persistent=False)

    def given(self, context: Float[Tensor, "... C"] | None) -> "GivenContext":
        """The network of `[D, ...]` alone, the context's part computed."""
        return GivenContext(self, _before(self.context, self.biases[0], context))

    def masked(self) -> list[Tensor]:
        """The weights after the first, 0 where a unit must not see another."""
        return [weight * getattr(self, f"mask_{k}") for k, weight in enumerate(self.weights)]


class GivenContext:
    """A masked network with its context: all coordinates at once, or step by step."""

    def __init__(self, net: MaskedMLP, before: Float[Tensor, "H ..."]) -> None:
        self.net, self.before = net, before

    def __call__(self, x: Float[Tensor, "D ..."]) -> Float[Tensor, "P D ..."]:
        """Parameters of all coordinates, those of each from the coordinates before it."""
        net = self.net
        hidden = linear_first(net.first * net.mask, squash(x), self.before)
        for weight, bias in zip(net.masked(), net.biases[1:], strict=True):
            hidden = linear_first(weight, torch.relu(hidden), bias)
        return hidden.unflatten(0, net.out)

    def steps(self, shape: torch.Size) -> "Increments":
        """The same, step by step, for coordinates of a batch shape."""
        return Increments(self.net, expand_first(self.before, shape))


class Increments:
    """Parameters of one coordinate after another; what is known of the hidden layers is kept."""

    def __init__(self, net: MaskedMLP, before: Float[Tensor, "H ..."]) -> None:
        self.net, self.before, self.step = net, before, 0
        widths = [net.out[1], *(len(bias) for bias in net.biases[:-1])]
        self.known = [before.new_empty(0, *before.shape[1:]) for _ in widths]
        # Written in place where no gradient needs what was there before.
        self.room = None if torch.is_grad_enabled() else [before.new_empty(n, *before.shape[1:]) for n in widths]

    def next(self, before: Float[Tensor, "..."] | None) -> Float[Tensor, "P ..."]:
        """Those of coordinate i, given coordinate i - 1; None for i = 0."""
        net, i = self.net, self.step
        self.step += 1
        if before is not None:
            self._keep(0, squash(before).unsqueeze(0))
        weights = [net.first, *net.weights]
        for k, ends in enumerate(net.ends):
            low, high = ends[i - 1] if i else 0, ends[i]
            if high > low:
                bias = (self.before if k == 0 else net.biases[k])[low:high]
                self._keep(k + 1, torch.relu(self._linear(weights[k][low:high], k, bias)))
        P, D = net.out
        weight, bias = net.weights[-1].unflatten(0, (P, D))[:, i], net.biases[-1].unflatten(0, (P, D))[:, i]
        return self._linear(weight, len(net.ends), bias)

    def _linear(self, weight: Tensor, layer: int, bias: Tensor) -> Tensor:
        known = self.known[layer]
        return linear_first(weight[:, : len(known)], known, bias)

    def _keep(self, layer: int, units: Tensor) -> None:
        known = self.known[layer]
        if self.room is None:
            self.known[layer] = torch.cat((known, units))
        else:
            self.room[layer][len(known) : len(known) + len(units)] = units
            self.known[layer] = self.room[layer][: len(known) + len(units)]


def _parameter(*shape: int, fan_in: int) -> nn.Parameter:
    bound = 1 / math.sqrt(max(fan_in, 1))
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def _before(weight: Tensor | None, bias: Tensor, context: Tensor | None) -> Float[Tensor, "H ..."]:
    if weight is None or context is None:
        return bias
    first = context.movedim(-1, 0)
    return linear_first(weight, first, bias)
