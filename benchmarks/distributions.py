"""Student-t quantiles of 5,000 assets x 3 levels x 2 horizons, beside scipy's, in rounds that alternate.

Every asset and horizon has degrees of freedom of its own, from 2.1 to 30. Accuracy is that of the probability that
mpmath finds at some of the quantiles. One thread; `benchmarks/backtests.py` measures the panel of backtests.

Usage: python benchmarks/distributions.py [--assets 5000] [--rounds 15] [--skip-compiled]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import mpmath
import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from qtorch.distributions import StudentT

LEVELS = torch.tensor([0.01, 0.025, 0.05], dtype=torch.float64)[:, None]


def quantiles(df: Tensor, scale: Tensor) -> Tensor:
    return StudentT(df, 0.0, scale, validate_args=False).icdf(LEVELS)


def with_gradients(function: Callable[[Tensor, Tensor], Tensor], df: Tensor, scale: Tensor) -> None:
    torch.autograd.grad(function(df, scale).sum(), (df, scale))


def worst_error(x: np.ndarray, p: np.ndarray, df: np.ndarray, count: int = 300) -> float:
    """Largest relative error of P(T <= x) over elements spread over the arrays."""
    worst = 0.0
    with mpmath.workdps(40):
        for i in np.linspace(0, x.size - 1, count).astype(int):
            nu, square = mpmath.mpf(df.flat[i]), mpmath.mpf(x.flat[i]) ** 2
            tail = mpmath.betainc(nu / 2, 0.5, 0, nu / (nu + square), regularized=True) / 2
            worst = max(worst, abs(float(tail / mpmath.mpf(p.flat[i]) - 1)))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--skip-compiled", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    shape = options.assets, 1, 2
    df = torch.exp(torch.empty(shape, dtype=torch.float64).uniform_(np.log(2.1), np.log(30), generator=generator))
    scale = torch.full(shape, 0.01, dtype=torch.float64)
    leaves = df.clone().requires_grad_(), scale.clone().requires_grad_()
    p, nu = (x.numpy() for x in torch.broadcast_tensors(LEVELS, df))

    runs: dict[str, Callable[[], object]] = {
        "scipy.special.stdtrit": lambda: special.stdtrit(nu, p) * 0.01,
        "scipy.stats.t.ppf": lambda: stats.t.ppf(p, nu, scale=0.01),
        "StudentT.icdf, eager": lambda: quantiles(df, scale),
        "StudentT.icdf, eager, with gradients": lambda: with_gradients(quantiles, *leaves),
    }
    if not options.skip_compiled:
        compiled = torch.compile(quantiles, fullgraph=True)
        trained = torch.compile(quantiles, fullgraph=True)
        runs["StudentT.icdf, compiled"] = lambda: compiled(df, scale)
        runs["StudentT.icdf, compiled, with gradients"] = lambda: with_gradients(trained, *leaves)
    first = {}
    for name, run in runs.items():
        start = time.perf_counter()
        run()
        first[name] = time.perf_counter() - start
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    peer = seconds["scipy.stats.t.ppf"]
    print(f"torch {torch.__version__}, {p.size:,} quantiles, best of {options.rounds} rounds")
    print(f"{'':42}{'ms':>8}{'ns each':>9}{'x ppf':>8}{'first s':>9}")
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(peer, times, strict=True))
        print(f"{name:42}{min(times) * 1e3:8.1f}{min(times) * 1e9 / p.size:9.0f}{ratio:8.2f}{first[name]:9.1f}")
    print("largest relative error of the probability at 300 of the quantiles:")
    print(f"  scipy.stats.t.ppf {worst_error(stats.t.ppf(p, nu), p, nu):.1e}")
    ours = StudentT(df).icdf(LEVELS).numpy()
    print(f"  StudentT.icdf     {worst_error(ours, p, nu):.1e}")


if __name__ == "__main__":
    main()
