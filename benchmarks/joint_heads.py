"""The cost of the neural joint laws of a cross-section, and what they learn that a Student-t copula cannot.

For N assets of a batch of 16, a tenth missing, float32, one thread: milliseconds and extra memory of a log density with
its backward pass, and of one draw of each row, for `AttentionalCopulaHead` and `CouplingFlowHead` in their default
sizes and for `CopulaHead`. Each case runs in a process of its own, whose peak of memory beyond what it held before is
printed. Then mean log densities of rows that were not trained on, beyond those of independent normals, in nats, of two
toys: a cluster that moves with the size of another's moves, and regimes of correlation.

Usage: PYTHONPATH=. python benchmarks/joint_heads.py [--assets 20 100 300] [--steps 100 400] [--skip costs|learning]
"""

import argparse
import multiprocessing
import resource
import time

import torch
from torch import Tensor

from qtorch.heads import AttentionalCopulaHead, CopulaHead, CouplingFlowHead
from tests.heads.toys import held_out, law_of, one_horizon, regimes, regimes_log_ratio, sizes, train

BATCH, FEATURES = 16, 32


def main() -> None:
    settings = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    settings.add_argument("--assets", type=int, nargs="+", default=[20, 100, 300])
    settings.add_argument("--steps", type=int, nargs="+", default=[100, 400])
    settings.add_argument("--skip", choices=("costs", "learning"))
    args = settings.parse_args()
    torch.set_num_threads(1)
    if args.skip != "costs":
        costs(args.assets)
    if args.skip != "learning":
        for steps in args.steps:
            learning(steps)


def costs(assets: list[int]) -> None:
    """Prints a line for each head and number of assets."""
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as fresh:
        for N in assets:
            for head in (CopulaHead(FEATURES, 4), one_horizon(FEATURES), AttentionalCopulaHead(FEATURES)):
                parts = []
                for task in ("log density and gradient", "a draw"):
                    milliseconds, megabytes = fresh.apply(cost, (head, N, task))
                    parts.append(f"{task} {milliseconds:.0f} ms, {megabytes:.0f} MB")
                print(f"{N} assets, {type(head).__name__}: {'; '.join(parts)}", flush=True)


def cost(head: torch.nn.Module, N: int, task: str, repeats: int = 5) -> tuple[float, float]:
    """The least of some times, after a run that warms up on few assets, and the growth of the peak of memory."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    head.eval()

    def run(N: int) -> float:
        hidden, mask, scores = torch.randn(BATCH, N, FEATURES), torch.rand(BATCH, N) > 0.1, torch.randn(BATCH, N)
        start = time.perf_counter()
        if task == "a draw":
            with torch.no_grad():
                law_of(head, hidden, mask).sample()
        else:
            _log_density(head, hidden, mask, scores).sum().backward()
        return time.perf_counter() - start

    run(3)
    before = _peak()
    seconds = min(run(N) for _ in range(repeats))
    return 1e3 * seconds, _peak() - before


def learning(steps: int) -> None:
    """Prints held-out log densities of both toys."""
    for name, N, factors in (("sizes", 2, 1), ("regimes", 6, 2)):
        torch.manual_seed(0)
        make = sizes if name == "sizes" else regimes
        fitting, fresh, hidden = make(4000, N), make(4000, N), torch.randn(N, 4)
        parts = []
        for kind in (one_horizon, AttentionalCopulaHead):
            torch.manual_seed(1)
            head = kind(4, width=16, heads=2)
            start = time.perf_counter()
            train(head, hidden, fitting, steps)
            seconds = time.perf_counter() - start
            gain, best = held_out(head, hidden, fitting, fresh, factors)
            parts.append(f"{type(head).__name__} {gain:.3f} ({seconds:.0f} s)")
        truth = f", truth {regimes_log_ratio(fresh).mean().item():.3f}" if name == "regimes" else ""
        print(f"{name} of {N}, {steps} steps: t copula {best:.3f}, {', '.join(parts)}{truth}", flush=True)


def _log_density(head: torch.nn.Module, hidden: Tensor, mask: Tensor, scores: Tensor) -> Tensor:
    law = law_of(head, hidden, mask)
    if isinstance(head, CouplingFlowHead):
        return law.log_prob(scores, mask)
    return law.log_prob_of_scores(scores.double(), mask)


def _peak() -> float:
    """Megabytes at most so far; Linux counts in kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
