"""Conditioner networks of flows, with features first and the batch last.

A flow's elementwise arithmetic on `[P, d, batch]` then runs along the batch, and the last linear map writes that
layout without a copy.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions.transforms.bijection import expand_first
from qtorch.errors import ArgumentError
from qtorch.nn.linear import linear_first
from qtorch.nn.relu import relu_
from qtorch.nn.squash import squash
from qtorch.nn.triangular import staircase_first

_STAIRS = 4  # blocks of a masked weight: of its zeros 3 in 4 are skipped, and products stay large


class _Weights(nn.Module):
    """What the networks share: weights `[out, in]`, whose first takes the context last, and biases."""

    def __init__(self, in_features: int, context: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.context = context
        sizes = [in_features + context, *hidden, outputs]
        self.weights = nn.ParameterList(_parameter(n, m, fan_in=m) for m, n in pairwise(sizes))
        self.biases = nn.ParameterList(_parameter(n, fan_in=m) for m, n in pairwise(sizes))

    def first_of(self, context: Float[Tensor, "... C"] | None) -> Float[Tensor, "C ..."] | None:
        """The context with its features first.

        Raises:
            ValueError: it does not have the network's number of features, or there is none where there should be.
        """
        has = 0 if context is None else context.shape[-1]
        if has != self.context:
            raise ArgumentError(f"the context has {has} features, but the network was made for {self.context}.")
        return None if context is None or not has else context.movedim(-1, 0)


class FeatureFirstMLP(_Weights):
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
        super().__init__(in_features, context, hidden, parameters * out_features)
        self.out = (parameters, out_features)

    def given(self, context: Float[Tensor, "... C"] | None) -> Callable[[Tensor], Tensor]:
        """The network of `[a, ...]` alone, the context's part computed."""
        return partial(self._pass, context=self.first_of(context))

    def _pass(self, x: Float[Tensor, "a ..."], context: Float[Tensor, "C ..."] | None) -> Float[Tensor, "P b ..."]:
        (first, *weights), (start, *biases) = self.weights, self.biases
        hidden = linear_first(first, _joined(squash(x), context), start)
        for weight, bias in zip(weights, biases, strict=True):
            hidden = linear_first(weight, relu_(hidden), bias)
        return hidden.unflatten(0, self.out)


class MaskedMLP(_Weights):
    """Parameters `[P, D, ...]` of D coordinates, those of each from the coordinates before it and a context.

    A hidden unit of degree m sees the first m coordinates. Units stand in the order of their degrees, and outputs in
    that of the coordinates, so that weights are zero above a staircase. A pass skips most of what is zero; `steps`
    evaluates, for each new coordinate, the units that just became known and nothing else: D steps multiply by each
    weight once.

    Args:
        features: D.
        context: features of the context, 0 or more.
        hidden: widths, at least one.
        parameters: P of each coordinate.

    References:
        Germain, Gregor, Murray and Larochelle (2015), MADE, ICML.
    """

    def __init__(self, features: int, context: int, hidden: Sequence[int], parameters: int) -> None:
        super().__init__(features, context, hidden, parameters * features)
        self.out = (features, parameters)
        degrees = [torch.arange(width) * features // width for width in hidden]
        # ends[l][m] units of layer l have a degree of at most m.
        self.ends = [[int((degree <= m).sum()) for m in range(features)] for degree in degrees]
        seen = torch.cat((torch.arange(1, features + 1), torch.zeros(context, dtype=torch.int64)))
        rows = [seen, *degrees, torch.arange(features).repeat_interleave(parameters)]
        for k, (column, row) in enumerate(pairwise(rows)):
            self.register_buffer(f"mask_{k}", column <= row.unsqueeze(-1), persistent=False)
        last = [features * (k + 1) // _STAIRS - 1 for k in range(_STAIRS)]
        ends = [*self.ends, [parameters * (m + 1) for m in range(features)]]
        self.stairs = [[(out[m], inner[m]) for m in last if m >= 0] for inner, out in pairwise(ends)]

    def given(self, context: Float[Tensor, "... C"] | None) -> "GivenContext":
        """The network of `[D, ...]` alone, the context's part computed."""
        return GivenContext(self, self.first_of(context))

    def masked(self) -> list[Tensor]:
        """The weights, 0 where a unit must not see another."""
        return [weight * getattr(self, f"mask_{k}") for k, weight in enumerate(self.weights)]


class GivenContext:
    """A masked network with its context: all coordinates at once, or step by step."""

    def __init__(self, net: MaskedMLP, context: Float[Tensor, "C ..."] | None) -> None:
        self.net, self.context = net, context

    def __call__(self, x: Float[Tensor, "D ..."]) -> Float[Tensor, "P D ..."]:
        """Parameters of all coordinates, those of each from the coordinates before it."""
        net = self.net
        (first, *weights), (start, *biases) = net.masked(), net.biases
        hidden = linear_first(first, _joined(squash(x), self.context), start)
        for weight, bias, stairs in zip(weights, biases, net.stairs, strict=True):
            hidden = staircase_first(weight, relu_(hidden), bias, stairs)
        return hidden.unflatten(0, net.out).transpose(0, 1)

    def steps(self, shape: torch.Size) -> "Increments":
        """The same, step by step, for coordinates of a batch shape."""
        net, before = self.net, self.net.biases[0]
        if self.context is not None:
            before = linear_first(net.weights[0][:, net.out[0] :], self.context, before)
        return Increments(net, expand_first(before, shape))


class Increments:
    """Parameters of one coordinate after another; what is known of the hidden layers is kept."""

    def __init__(self, net: MaskedMLP, before: Float[Tensor, "H ..."]) -> None:
        self.net, self.step = net, 0
        self.shape, before = before.shape[1:], before.flatten(1) if before.ndim > 1 else before.unsqueeze(1)
        widths = [net.out[0], *(len(bias) for bias in net.biases[:-1])]
        batch = before.shape[1]
        self.known = [before.new_empty(0, batch) for _ in widths]
        # Written in place where no gradient needs what was there before.
        self.room = None if torch.is_grad_enabled() else [before.new_empty(n, batch) for n in widths]
        self.weights, self.biases = list(net.weights), [before, *(b.unsqueeze(1) for b in list(net.biases)[1:])]

    def next(self, before: Float[Tensor, "..."] | None) -> Float[Tensor, "P ..."]:
        """Those of coordinate i, given coordinate i - 1; None for i = 0."""
        net, i = self.net, self.step
        self.step += 1
        if before is not None:
            self._keep(0, squash(before).reshape(1, -1))
        for k, ends in enumerate(net.ends):
            low, high = ends[i - 1] if i else 0, ends[i]
            if high > low:
                self._keep(k + 1, self._linear(self.weights[k][low:high], k, self.biases[k][low:high]).relu_())
        own = slice(i * net.out[1], (i + 1) * net.out[1])
        return self._linear(self.weights[-1][own], len(net.ends), self.biases[-1][own]).unflatten(1, self.shape)

    def _linear(self, weight: Tensor, layer: int, bias: Tensor) -> Tensor:
        known = self.known[layer]
        return torch.addmm(bias, weight[:, : len(known)], known)

    def _keep(self, layer: int, units: Tensor) -> None:
        known = self.known[layer]
        if self.room is None:
            self.known[layer] = torch.cat((known, units))
        else:
            end = len(known) + len(units)
            self.room[layer][len(known) : end] = units
            self.known[layer] = self.room[layer][:end]


def _joined(x: Float[Tensor, "a ..."], context: Float[Tensor, "C ..."] | None) -> Float[Tensor, "b ..."]:
    if context is None:
        return x
    shape = torch.broadcast_shapes(x.shape[1:], context.shape[1:])
    return torch.cat((expand_first(x, shape), expand_first(context, shape)))


def _parameter(*shape: int, fan_in: int) -> nn.Parameter:
    bound = 1 / math.sqrt(max(fan_in, 1))
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
