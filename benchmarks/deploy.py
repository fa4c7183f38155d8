"""Ways out of the notebook beside eager mode: parity, time, size, and what it takes to convert and load.

Each way runs in turn with eager mode in one process; what is printed are medians over the rounds of the ratio of both
times, above 1 where the way is the faster, by processor time (that of all threads together) and by wall time.
Conversion and loading are wall seconds. Ways that a model has not are named.

Usage: PYTHONPATH=. python benchmarks/deploy.py [--models NAMES] [--paths NAMES] [--threads 1] [--rounds 15]
"""

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qtorch import Forecaster, deploy, heads, models, portfolio
from qtorch.data import WindowSpec
from qtorch.deploy import Program, open_artefact, program_of
from qtorch.deploy.parity import differences, probes
from qtorch.models.flows import NeuralSplineFlow
from qtorch.training import Allocator

SPEC = WindowSpec(context=64, horizons=(1, 5))
F, D = len(SPEC.features), 64

Model = Forecaster | Allocator | NeuralSplineFlow
Run = Callable[..., tuple[Tensor, ...]]


def transformer() -> Model:
    return Forecaster(models.Transformer(F, width=D, depth=3, heads=4), heads.StudentT(D, SPEC.horizons), SPEC)


def recurrent() -> Model:
    return Forecaster(models.Recurrent(F, width=D), heads.StudentT(D, SPEC.horizons), SPEC)


def graph() -> Model:
    states = models.AssetGraph(models.Transformer(F, width=32, depth=2, heads=2), estimates=2, width=32)
    return Allocator(models.GraphCovariance(states), portfolio.MinimumVariance())


def flow() -> Model:
    return NeuralSplineFlow(16, 16, transforms=4, hidden=[64, 64])


def coupling() -> Model:
    """Of which the density is taken: its parameters are an encoder's states, and the law evaluates the network."""
    encoder = models.PanelTransformer(F, width=32, depth=2, heads=2)
    return Forecaster(encoder, heads.CouplingFlowHead(32, SPEC.horizons, layers=2, width=32, heads=2), SPEC)


MODELS = {build.__name__: build for build in (transformer, recurrent, graph, flow, coupling)}
SIZES = {"C": 64, "N": 20, "K": 8}  # of a call, beside the batch
MOST = {"B": 1024, "C": 64, "N": 20, "K": 8}
DENSITIES = ("coupling",)
BATCHES = {"flow": (1, 64, 1024)}  # others (1, 64)


class Made(NamedTuple):
    """A way out of a model, and the seconds that it took."""

    run: Run
    conversion: float
    load: float | None = None
    size: int | None = None  # bytes


def fresh(name: str) -> Model:
    """A model of weights unlike fresh ones, by which layers may do nothing."""
    generator = torch.Generator().manual_seed(0)
    model = MODELS[name]()
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.05 * torch.randn(weights.shape, generator=generator)
    return model


@torch.no_grad()
def compiled(model: Model, program: Program, folder: Path) -> Made:
    """Compiles on the first call."""
    made = torch.compile(program, dynamic=True, fullgraph=True)
    inputs = program.example()
    return Made(torch.no_grad()(made), _seconds(lambda: made(*inputs), time.perf_counter))


def written(write: str, ending: str, model: Model, program: Program, folder: Path) -> Made:
    """An artefact, with the checks that it makes of its inputs."""
    path = folder / f"model{ending}"
    options: dict[str, Any] = {"density": "log_density" in [spec.name for spec in program.signature.outputs]}
    if write == "to_executorch":
        options["most"] = {letter: MOST[letter] for letter in program.letters}
    conversion = _seconds(lambda: getattr(deploy, write)(model, path, **options), time.perf_counter)
    start = time.perf_counter()
    run = open_artefact(path, trust=True)
    return Made(run, conversion, time.perf_counter() - start, path.stat().st_size)


PATHS = {
    "compile": compiled,
    "pt2": partial(written, "export", ".pt2"),
    "aot": partial(written, "package", ".pt2"),
    "onnx": partial(written, "to_onnx", ".onnx"),
    "executorch": partial(written, "to_executorch", ".pte"),
    "torchscript": partial(written, "to_torchscript", ".pt"),
}


def measured(program: Program, run: Run, batch: int, rounds: int) -> str:
    """Milliseconds of eager mode, and by how much the other is the faster: medians over the rounds, in turn."""
    inputs = program.example(**{letter: SIZES.get(letter, batch) for letter in program.letters})

    def eager() -> None:
        with torch.no_grad():
            program(*inputs)

    def other() -> None:
        run(*inputs)

    for _ in range(3):
        eager(), other()
    times = [(*_both(eager), *_both(other)) for _ in range(rounds)]
    processor = statistics.median(a / b for a, _, b, _ in times)
    wall = statistics.median(a / b for _, a, _, b in times)
    return f"{1e3 * statistics.median(a for a, *_ in times):.2f} | {processor:.2f} | {wall:.2f}"


def _both(task: Callable[[], None]) -> tuple[float, float]:
    """Processor and wall seconds."""
    wall = time.perf_counter()
    processor = _seconds(task, time.process_time)
    return processor, time.perf_counter() - wall


def _seconds(task: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    task()
    return clock() - start


def lines(name: str, paths: list[str], rounds: int) -> Iterator[str]:
    """A row of the table for each way out of a model and each batch."""
    model = fresh(name)
    program = program_of(model, density=name in DENSITIES)
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            try:
                made = PATHS[path](model, program, Path(folder))
            except (ImportError, RuntimeError, ValueError) as error:
                yield f"| {name} | {path} | none: {str(error).splitlines()[0][:160]} |"
                continue
            parity = [differences(program, made.run, sizes) for sizes in probes(program, MOST)]
            absolute, relative = (max(column) for column in zip(*parity, strict=True))
            size = "" if made.size is None else f"{made.size / 1e3:.0f}"
            load = "" if made.load is None else f"{made.load:.2f}"
            for batch in BATCHES.get(name, (1, 64)):
                yield (
                    f"| {name} | {path} | {absolute:.0e} | {relative:.0e} | {batch} "
                    f"| {measured(program, made.run, batch, rounds)} | {size} | {made.conversion:.1f} | {load} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=list(PATHS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore", DeprecationWarning)
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, {args.threads} threads")
    print(
        "| model | way | difference | relative | batch | eager, ms | processor | wall | kB | conversion, s | load, s |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name in args.models:
        for line in lines(name, args.paths, args.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
