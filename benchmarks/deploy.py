"""Ways out of the notebook beside eager mode: parity, time, size, and what it takes to convert and load.

Each way runs in turn with eager mode in one process; the median of the rounds' ratios is printed, above 1 where the way
is the faster. Times are processor seconds on one thread, else wall seconds. Ways whose extras are not there are named.

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

import torch
from torch import Tensor

from qtorch import Forecaster, deploy, heads, models, portfolio
from qtorch.data import WindowSpec
from qtorch.deploy import Program, open_artefact, program_of
from qtorch.deploy.parity import differences
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
    encoder = models.PanelTransformer(F, width=32, depth=2, heads=2)
    return Forecaster(encoder, heads.CouplingFlowHead(32, SPEC.horizons, layers=2, width=32, heads=2), SPEC)


MODELS = {build.__name__: build for build in (transformer, recurrent, graph, flow, coupling)}
SIZES = {"C": 64, "N": 20, "K": 8}  # of a call, beside the batch
MOST = {"B": 1024, "C": 64, "N": 20, "K": 8}
BATCHES = {"graph": (1, 64), "coupling": (1, 64)}  # others (1, 64, 1024)


def compiled(model: Model, program: Program, density: bool, folder: Path) -> tuple[Run, int]:
    """Compiles on the first call."""
    made = torch.compile(program, dynamic=True, fullgraph=True)
    with torch.no_grad():
        made(*program.example())
    return torch.no_grad()(made), 0


def written(write: str, ending: str, model: Model, program: Program, density: bool, folder: Path) -> tuple[Run, int]:
    """An artefact's function, without the checks that it makes of its inputs, and its size in bytes."""
    path = folder / f"model{ending}"
    bounds = {"most": {letter: MOST[letter] for letter in program.letters}} if write == "to_executorch" else {}
    getattr(deploy, write)(model, path, density=density, **bounds)
    return open_artefact(path, trust=True), path.stat().st_size


PATHS = {
    "compile": compiled,
    "pt2": partial(written, "export", ".pt2"),
    "aot": partial(written, "package", ".pt2"),
    "onnx": partial(written, "to_onnx", ".onnx"),
    "executorch": partial(written, "to_executorch", ".pte"),
    "torchscript": partial(written, "to_torchscript", ".pt"),
}


def measured(program: Program, run: Run, batch: int, rounds: int, clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds of eager mode, and by how much the other is the faster: medians over the rounds, in turn."""
    inputs = program.example(**{letter: SIZES.get(letter, batch) for letter in program.letters})

    def eager() -> None:
        with torch.no_grad():
            program(*inputs)

    def other() -> None:
        run(*inputs)

    for _ in range(3):
        eager(), other()
    times = [(_seconds(eager, clock), _seconds(other, clock)) for _ in range(rounds)]
    return statistics.median(a for a, _ in times), statistics.median(a / b for a, b in times)


def _seconds(task: Callable[[], None], clock: Callable[[], float]) -> float:
    start = clock()
    task()
    return clock() - start


def lines(name: str, paths: list[str], rounds: int, threads: int) -> Iterator[str]:
    """A row of the table for each way out of a model."""
    torch.manual_seed(0)
    model, density = MODELS[name](), name == "coupling"
    program = program_of(model, density=density)
    clock = time.process_time if threads == 1 else time.perf_counter
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            start = clock()
            try:
                run, size = PATHS[path](model, program, density, Path(folder))
            except (AttributeError, ImportError, RuntimeError, ValueError) as error:
                yield f"| {name} | {path} | not here: {str(error).splitlines()[0][:100]} |"
                continue
            took = clock() - start
            probes = ({}, {"B": 1}, {"B": 5, "C": 33, "N": 7, "K": 3}, {"B": 2, "C": 64, "N": 20, "K": 8})
            parity = [differences(program, run, {k: v for k, v in p.items() if k in program.letters}) for p in probes]
            absolute, relative = (max(column) for column in zip(*parity, strict=True))
            ratios = []
            for batch in BATCHES.get(name, (1, 64, 1024)):
                eager, ratio = measured(program, run, batch, rounds, clock)
                ratios.append(f"{1e3 * eager:.2f} ms, x{ratio:.2f}")
            yield (
                f"| {name} | {path} | {absolute:.0e} | {relative:.0e} | {' | '.join(ratios)} "
                f"| {size / 1e3:.0f} kB | {took:.1f} s |"
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
    print("| model | way | largest difference | relative | eager and ratio by batch | size | conversion and load |")
    for name in args.models:
        for line in lines(name, args.paths, args.rounds, args.threads):
            print(line, flush=True)


if __name__ == "__main__":
    main()
