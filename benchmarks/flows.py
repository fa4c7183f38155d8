"""Neural spline flows beside zuko's and nflows': log density with gradients, and sampling.

16 features, 16 of context, 5 transforms, networks of [128, 128], 8 bins, 1,024 rows, processor milliseconds on one
thread. Each library runs in a process of its own, by turns, and the least of its times is printed, so that other work
on the machine tells little. Peers need an environment with zuko and nflows: pass its interpreter by --python.

Usage: PYTHONPATH=. python benchmarks/flows.py [NAMES] [--python PATH] [--compile] [--rounds 15]
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from worker import Worker, arguments, chosen, interpreter

FEATURES, CONTEXT, TRANSFORMS, HIDDEN, BINS, BOUND, BATCH = 16, 16, 5, (128, 128), 8, 5.0, 1024
KINDS = ("coupling", "autoregressive")


class Size(NamedTuple):
    """Of a flow."""

    features: int = FEATURES
    context: int = CONTEXT
    transforms: int = TRANSFORMS
    hidden: tuple[int, int] = HIDDEN


Case = tuple[nn.Module, Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]
Build = Callable[[str, Size], Case]
BUILD: dict[str, tuple[str, Build]] = {}  # by library: what it imports, and its flow


def register(name: str, needs: str) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        BUILD[name] = needs, build
        return build

    return add


@register("qtorch", "torch")
def _qtorch(kind: str, size: Size) -> Case:
    from qtorch.models.flows import NeuralSplineFlow

    flow = NeuralSplineFlow(
        size.features,
        size.context,
        transforms=size.transforms,
        hidden=size.hidden,
        bins=BINS,
        bound=BOUND,
        autoregressive=kind == "autoregressive",
        tails=False,
    )
    return flow, lambda x, c: flow(c).log_prob(x), lambda c: flow(c).sample()


@register("zuko", "zuko")
def _zuko(kind: str, size: Size) -> Case:
    import zuko

    shape = {"transforms": size.transforms, "hidden_features": size.hidden}
    if kind == "autoregressive":
        flow = zuko.flows.NSF(size.features, size.context, bins=BINS, **shape)
    else:
        flow = zuko.flows.NICE(
            size.features,
            size.context,
            **shape,
            univariate=zuko.transforms.MonotonicRQSTransform,
            shapes=[(BINS,), (BINS,), (BINS - 1,)],
        )
    return flow, lambda x, c: flow(c).log_prob(x), lambda c: flow(c).rsample()


class _Network(nn.Module):
    """A plain network of inputs and context, for nflows."""

    def __init__(self, inputs: int, outputs: int, size: Size) -> None:
        super().__init__()
        a, b = size.hidden
        self.hidden_features = b
        self.net = nn.Sequential(
            nn.Linear(inputs + size.context, a), nn.ReLU(), nn.Linear(a, b), nn.ReLU(), nn.Linear(b, outputs)
        )

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.net(torch.cat((x, context), dim=-1))


@register("nflows", "nflows")
def _nflows(kind: str, size: Size) -> Case:
    from nflows import transforms
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow

    spline = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}
    layers: list[nn.Module] = []
    for i in range(size.transforms):
        if kind == "coupling":
            mask = (torch.arange(size.features) % 2 == i % 2).int()
            network = partial(_Network, size=size)
            layers.append(transforms.PiecewiseRationalQuadraticCouplingTransform(mask, network, **spline))
        else:
            layers.append(
                transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                    size.features,
                    size.hidden[0],
                    context_features=size.context,
                    num_blocks=len(size.hidden) - 1,
                    use_residual_blocks=False,
                    **spline,
                )
            )
            layers.append(transforms.ReversePermutation(size.features))
    flow = Flow(transforms.CompositeTransform(layers), StandardNormal([size.features]))
    return flow, lambda x, c: flow.log_prob(x, context=c), lambda c: flow.sample(1, context=c)[:, 0]


def serve(name: str) -> None:
    """A worker's side: builds both kinds, then times what it is asked for, in milliseconds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    library, _, compiled = name.partition("+")
    x, c = torch.randn(BATCH, FEATURES), torch.randn(BATCH, CONTEXT)
    tasks: dict[tuple[str, str], Callable[[], object]] = {}
    for kind in KINDS:
        module, log_prob, sample = BUILD[library][1](kind, Size())
        if compiled:
            log_prob = torch.compile(log_prob)

        def train(module: nn.Module = module, log_prob: Callable[..., Tensor] = log_prob) -> None:
            module.zero_grad(set_to_none=True)
            (-log_prob(x, c).mean()).backward()

        def draw(sample: Callable[[Tensor], Tensor] = sample) -> None:
            with torch.no_grad():
                sample(c)

        tasks[kind, "log_prob"], tasks[kind, "sample"] = train, draw
    for task in tasks.values():
        for _ in range(2):
            task()
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        if not line.strip():
            break
        kind, what = json.loads(line)
        start = time.process_time()
        tasks[kind, what]()
        print(json.dumps(1e3 * (time.process_time() - start)), flush=True)
    print(json.dumps(0.0), flush=True)


def main() -> None:
    parser = arguments(__doc__, BUILD, "qtorch", 15)
    parser.add_argument("--compile", action="store_true", help="torch.compile the log density")
    args = parser.parse_args()
    if args.worker:
        serve(args.worker)
        return
    names, pythons = chosen(parser, args, BUILD, "qtorch")
    workers = {}
    for name in names:
        if python := interpreter(BUILD[name][0], pythons):
            workers[name] = Worker(__file__, name + ("+compiled" if args.compile else ""), python, 1)
        else:
            print(f"{name}: no interpreter has it; pass one by --python")
    orders = [(kind, what) for kind in KINDS for what in (("log_prob",) if args.compile else ("log_prob", "sample"))]
    times: dict[tuple[str, str, str], float] = {}
    for _ in range(args.rounds):
        for kind, what in orders:
            for name, worker in workers.items():
                took = worker.run(kind, what)
                times[name, kind, what] = min(took, times.get((name, kind, what), took))
    for kind, what in orders:
        ours = times["qtorch", kind, what]
        line = "  ".join(
            f"{name} {times[name, kind, what]:7.1f} ms (x{times[name, kind, what] / ours:.2f})" for name in workers
        )
        print(f"{kind:<15} {what:<9} {line}", flush=True)
    for worker in workers.values():
        worker.stop()


if __name__ == "__main__":
    main()
