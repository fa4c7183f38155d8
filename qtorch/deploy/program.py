"""The part of a model that leaves the notebook: plain tensors in, plain tensors out."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qtorch.deploy.signature import Signature, TensorSpec
from qtorch.errors import ArgumentError
from qtorch.models.flows import Flow
from qtorch.models.market_state import MarketState
from qtorch.nn.graph import Graph
from qtorch.training import Allocator, Forecaster

MASK = "True where the position holds a session; what stands where it is False changes nothing."
Sizes = Mapping[str, int]


class Program(nn.Module):
    """A function of plain tensors that a model's forecasts, densities or weights are made of.

    What is compiled, exported and served is this, never the LightningModule: it has no dates, no assets, no
    distributions and no randomness, and every axis that a market may change is free.

    Args:
        function: a module of the inputs, in the signature's order, that gives a tuple of tensors.
        inputs: what it is given.
        names: of what it gives.
        meanings: of what it gives, one of each name.
        example: makes inputs of given sizes of the axes that vary.

    Attributes:
        signature: of inputs and outputs; which axes of the outputs vary is found by calling the function twice.
    """

    def __init__(
        self,
        function: nn.Module,
        inputs: tuple[TensorSpec, ...],
        names: tuple[str, ...],
        meanings: tuple[str, ...],
        example: Callable[[Sizes], tuple[Tensor, ...]],
    ) -> None:
        super().__init__()
        self.function = function
        self._make = example
        self.letters = tuple(dict.fromkeys(axis for spec in inputs for axis in spec.axes if isinstance(axis, str)))
        outputs = self._outputs(names, meanings)
        self.signature = Signature(inputs, outputs)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in the signature's order."""
        outputs: tuple[Tensor, ...] = self.function(*inputs)
        return outputs

    def example(self, **sizes: int) -> tuple[Tensor, ...]:
        """Inputs that can be computed with, such as masks with holes, of given sizes, on the weights' device.

        Args:
            **sizes: of axes by their letters, such as ``B=4, N=20``; small ones by default.

        Raises:
            ValueError: there is no such axis.
        """
        if unknown := sizes.keys() - set(self.letters):
            raise ArgumentError(f"there is no axis {sorted(unknown)[0]!r}; those that vary are {self.letters}.")
        return self._example(dict(zip(self.letters, range(3, 20, 2), strict=False)) | sizes)

    def _example(self, sizes: Sizes) -> tuple[Tensor, ...]:
        device = next((parameter.device for parameter in self.parameters()), None)
        return tuple(value.to(device) for value in self._make(sizes))

    def dynamic_shapes(self) -> tuple[dict[int, Any], ...]:
        """For each input, the axes that vary, as `torch.export.export` takes them."""
        return tuple(
            {axis: torch.export.Dim.DYNAMIC for axis, letter in enumerate(spec.axes) if isinstance(letter, str)}
            for spec in self.signature.inputs
        )

    @torch.no_grad()
    def _outputs(self, names: tuple[str, ...], meanings: tuple[str, ...]) -> tuple[TensorSpec, ...]:
        shapes = []
        # Primes beyond the sizes of models' own axes, so that an axis of an output tells whose it is.
        first = dict(zip(self.letters, (11, 13, 17, 19), strict=False))
        second = dict(zip(self.letters, (12, 14, 18, 20), strict=False))
        for sizes in (first, second):
            shapes.append([(value.shape, value.dtype) for value in self.function(*self._example(sizes))])
        specs = []
        for name, meaning, (a, dtype), (b, _) in zip(names, meanings, *shapes, strict=True):
            axes = tuple(
                m if m == n else next(letter for letter in self.letters if (first[letter], second[letter]) == (m, n))
                for m, n in zip(a, b, strict=True)
            )
            specs.append(TensorSpec(name, str(dtype).removeprefix("torch."), axes, meaning))
        return tuple(specs)


def program_of(model: Forecaster | Allocator | Flow, *, density: bool = False) -> Program:
    """What of a model is exported.

    Of a Forecaster these are the parameters of its head's law for the last session of each window, in units of the
    window's scale; of an Allocator what its network says, of which its allocation layer makes weights; of a `Flow` the
    log density of values given a context.

    Args:
        model: in evaluation mode afterwards, and its program's weights are its own, not a copy.
        density: of a Forecaster of joint laws, the log density of outcomes instead of the law's parameters: a law that
            evaluates a network, as that of a `CouplingFlowHead`, is not in its parameters alone.

    Raises:
        ValueError: the model has no such program; the message says what has.
    """
    model.eval()
    if isinstance(model, Flow):
        return _of_flow(model)
    if isinstance(model, Allocator):
        return _of_allocator(model)
    return _of_density(model) if density else _of_forecaster(model)


def window_specs(model: Forecaster) -> tuple[TensorSpec, ...]:
    """The inputs and the mask of a forecaster's windows."""
    network, spec = model.network, model.spec
    context = getattr(network.encoder, "context", None) if not network.causal else None
    axes = ("B", "C" if context is None else context, *(("N",) if network.layout == "panel" else ()))
    features = f"Features of each session, 0 where masked: {', '.join(spec.features.names)}."
    return (
        TensorSpec("inputs", "float32", (*axes, len(spec.features)), features),
        TensorSpec("mask", "bool", axes, MASK),
    )


def _of_forecaster(model: Forecaster) -> Program:
    head, inputs = model.network.head, window_specs(model)
    horizons = ", ".join(map(str, model.spec.horizons))
    laws = type(head).__name__
    unit = (
        f"of the {laws} law of standardised returns over {horizons} sessions: simple returns over the window's scale, "
        "its causal EWMA volatility of one session."
    )
    device = next(model.network.parameters()).device
    few = (tensor.to(device) for tensor in _windows(inputs)({"B": 2, "C": 4, "N": 2}))
    with torch.no_grad():
        names = _names(head, len(model.network(*few)))
    return Program(model.network, inputs, names, tuple(f"{name} {unit}" for name in names), _windows(inputs))


def _names(head: Any, count: int) -> tuple[str, ...]:
    """Of a head's parameters; numbers for a head of a user's own that has none."""
    return tuple(getattr(head, "names", (f"parameter_{n}" for n in range(count))))


def _windows(specs: tuple[TensorSpec, ...]) -> Callable[[Sizes], tuple[Tensor, ...]]:
    """Makes windows: normal inputs, and masks in which one window is padded, and one in five positions a hole."""

    def example(sizes: Sizes) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        inputs, mask = (tuple(axis if isinstance(axis, int) else sizes[axis] for axis in spec.axes) for spec in specs)
        usable = torch.rand(mask, generator=generator) < 0.8
        usable[0, : mask[1] // 2] = False
        usable[:, -1] = True
        return torch.randn(inputs, generator=generator), usable

    return example


class _Density(nn.Module):
    def __init__(self, model: Forecaster) -> None:
        super().__init__()
        self.network = model.network

    def forward(self, inputs: Tensor, mask: Tensor, outcomes: Tensor, known: Tensor) -> tuple[Tensor]:
        # Of a joint head parameters have assets before horizons.
        law = self.network.head.distribution(*(p.transpose(1, 2) for p in self.network(inputs, mask)))
        return (law.log_prob(outcomes, known),)


def _of_density(model: Forecaster) -> Program:
    if not model.network.joint:
        raise ArgumentError(
            f"a {type(model.network.head).__name__} gives a law of each asset alone, which its parameters tell: leave "
            "out density=True. Heads of joint laws have densities, such as CouplingFlowHead and JointHead."
        )
    windows = window_specs(model)
    outcome = ("B", len(model.spec.horizons), "N")
    about = f"Standardised returns over {', '.join(map(str, model.spec.horizons))} sessions."
    inputs = (
        *windows,
        TensorSpec("outcomes", "float32", outcome, f"{about} 0 where not known."),
        TensorSpec("known", "bool", outcome, "True where the asset is part of the law and its outcome is known."),
    )

    def example(sizes: Sizes) -> tuple[Tensor, ...]:
        given = _windows(windows)(sizes)
        there = given[1][:, -1].unsqueeze(1).expand(sizes["B"], outcome[1], sizes["N"])
        return *given, 0.5 * torch.ones(there.shape), there

    return Program(_Density(model), inputs, ("log_density",), ("Nats, of all known outcomes together.",), example)


class _Views(nn.Module):
    """What an allocator's network says of a market given as plain tensors."""

    def __init__(self, model: Allocator) -> None:
        super().__init__()
        self.network = model.network

    def forward(
        self,
        inputs: Tensor,
        mask: Tensor,
        universe: Tensor,
        correlation: Tensor,
        volatility: Tensor,
        neighbours: Tensor,
        present: Tensor,
        weights: Tensor,
        kinds: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        graph = Graph(neighbours, present, universe, weights, kinds)
        market = MarketState(inputs, mask, universe, correlation, volatility, graph)
        parts = getattr(self.network, "parts", None)
        return tuple(parts(market)) if callable(parts) else (self.network(market),)


def _of_allocator(model: Allocator) -> Program:
    needs_tree = [type(m).__name__ for m in model.network.modules() if getattr(m, "needs_tree", False)]
    if needs_tree:
        raise ArgumentError(
            f"{needs_tree[0]} walks over each date's dendrogram, whose shape is data: it runs in eager mode, from a "
            "bundle (qtorch.deploy.save). Networks of OverGraph and OverLearnedGraph can be exported."
        )
    F, P, kinds = len(model.spec.features), len(model.half_lives), kinds_of(model)
    features = f"Features of the last sessions of each asset, 0 where masked: {', '.join(model.spec.features.names)}."
    halves = ", ".join(f"{half_life:g}" for half_life in model.half_lives)
    estimates = f"estimates with half-lives of {halves} rows"
    inputs: tuple[TensorSpec, ...] = (
        TensorSpec("inputs", "float32", ("B", "N", "C", F), features),
        TensorSpec("mask", "bool", ("B", "N", "C"), MASK),
        TensorSpec("universe", "bool", ("B", "N"), "True for assets that may be given a weight."),
        TensorSpec("correlation", "float32", ("B", P, "N", "N"), f"Of session returns, {estimates}; 0 where unknown."),
        TensorSpec("volatility", "float32", ("B", P, "N"), f"Of a session's return, {estimates}; 1 outside."),
        TensorSpec("neighbours", "int64", ("B", "N", "K"), "Whom each asset hears from, by number."),
        TensorSpec("present", "bool", ("B", "N", "K"), "True for neighbours; False for padding."),
        TensorSpec("weights", "float32", ("B", "N", "K"), "Of the edges, such as correlations."),
    )
    if kinds:
        meaning = (
            f"Of the edges, from 0 to {kinds - 1}: first those of correlations, then of labels, then of relations."
        )
        inputs = (*inputs, TensorSpec("kinds", "int64", ("B", "N", "K"), meaning))

    def example(sizes: Sizes) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        B, N, C, K = (sizes[letter] for letter in "BNCK")
        universe = torch.ones(B, N, dtype=torch.bool)
        universe[0, -1] = N < 2
        factors = torch.randn(B, P, N, 3, generator=generator)
        covariance = factors @ factors.mT + torch.eye(N)
        root = covariance.diagonal(dim1=-2, dim2=-1).rsqrt()
        weights = torch.rand(B, N, K, generator=generator)
        return (
            torch.randn(B, N, C, F, generator=generator),
            torch.rand(B, N, C, generator=generator) < 0.9,
            universe,
            covariance * root.unsqueeze(-1) * root.unsqueeze(-2),
            torch.where(universe.unsqueeze(1), 0.005 + 0.02 * torch.rand(B, P, N, generator=generator), 1.0),
            torch.randint(N, (B, N, K), generator=generator),
            weights < 0.8,
            weights,
            *([torch.randint(kinds, (B, N, K), generator=generator)] if kinds else []),
        )

    kind = type(model.network).__name__
    layer = type(model.allocation).__name__
    names = tuple(getattr(model.network, "names", ("views",)))
    given = {spec.name for spec in inputs}  # a graph has each name once
    names = tuple(f"forecast_{name}" if name in given else name for name in names)
    meanings = tuple(
        f"{name} of {kind}, for the allocation layer {layer}; outside the universe of no use." for name in names
    )
    return Program(_Views(model), inputs, names, meanings, example)


def kinds_of(model: Allocator) -> int:
    """How many kinds of edges an allocator's layers know, such as a `RelationalGCN`'s; 0 where none asks for them."""
    counts = (getattr(module, "kinds", 0) for module in model.network.modules())
    return min((count for count in counts if isinstance(count, int) and count > 0), default=0)


class _LogDensity(nn.Module):
    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, values: Tensor, context: Tensor | None = None) -> tuple[Tensor]:
        return (self.flow(context).log_prob(values),)


def _of_flow(flow: Flow) -> Program:
    features, context = getattr(flow, "features", None), getattr(flow, "context", 0)
    if features is None:
        raise ArgumentError(
            f"a {type(flow).__name__} does not say how many coordinates and context features it has. Give a class such "
            "as NeuralSplineFlow, or set `features` and `context` on it."
        )
    inputs = [TensorSpec("values", "float32", ("B", features), "Where the density is asked for, in the data's unit.")]
    if context:
        inputs.append(TensorSpec("context", "float32", ("B", context), "What the law is conditional on."))

    def example(sizes: Sizes) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        widths = (features, context)[: len(inputs)]
        return tuple(torch.randn(sizes["B"], width, generator=generator) for width in widths)

    return Program(_LogDensity(flow), tuple(inputs), ("log_density",), ("Nats.",), example)
