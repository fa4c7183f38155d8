"""Tails of flows trained on a four-dimensional Student-t of 3 degrees of freedom, against the law itself.

Of unit variances and correlations of .37: 40,000 rows, 500 steps of plain Adam on batches of 1,024 at one learning
rate, the last weights; flows of the class's default size. "tails" is the class's default, "free" has a base of
independent normals behind its layer of heavy tails, "t" a base of independent t and no such layer, "normal" neither.
Prints the negative log-likelihood of 100,000 other rows (exact: the law's entropy), VaR and ES of the equal-weight
portfolio from four million draws, the tail index by Hill's estimator in those draws, that of the tail layer, and the
worst round trip of 16,384 rows in float32; and for each seed the tails of the portfolio in the 40,000 rows themselves,
which is what a flow is shown.

Usage: PYTHONPATH=. python benchmarks/flow_tails.py [--seeds 0 1 2] [--names tails free t normal] [--rate 1e-3]
"""

import argparse
import time

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from qtorch.distributions import MultivariateStudentT
from qtorch.distributions.tail_index import hill
from qtorch.models.flows import NeuralSplineFlow, NormalBase, StudentTBase

D, RHO, ROWS, STEPS, BATCH = 4, 0.37, 40_000, 500, 1024
DRAWS = 4_000_000
MAKE = {
    "tails": lambda: NeuralSplineFlow(D),
    "free": lambda: NeuralSplineFlow(D, base=NormalBase(D)),
    "t": lambda: NeuralSplineFlow(D, tails=False, base=StudentTBase(D)),
    "normal": lambda: NeuralSplineFlow(D, tails=False),
}


def law() -> MultivariateStudentT:
    factor = torch.full((D, 1), (RHO / 3) ** 0.5)
    return MultivariateStudentT(3.0, torch.zeros(D), factor, torch.full((D,), (1 - RHO) / 3))


def trained(name: str, x: Tensor, seed: int, rate: float) -> NeuralSplineFlow:
    torch.manual_seed(seed)
    flow = MAKE[name]()
    flow.initialise(x)
    optimiser = torch.optim.Adam(flow.parameters(), lr=rate)
    for _ in range(STEPS):
        loss = -flow().log_prob(x[torch.randint(ROWS, (BATCH,))]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return flow.eval()


def portfolio(flow: NeuralSplineFlow) -> np.ndarray:
    draws = [flow().sample((100_000,)).mean(-1) for _ in range(DRAWS // 100_000)]
    return np.sort(torch.cat(draws).double().numpy())


def tail(r: np.ndarray, mass: float) -> tuple[float, float]:
    worst = r[: int(mass * len(r))]
    return worst[-1], worst.mean()


@torch.no_grad()
def report(name: str, seed: int, flow: NeuralSplineFlow, seconds: float) -> None:
    test = law().sample((100_000,))
    gap = torch.cat([law().log_prob(part) - flow().log_prob(part) for part in test.split(10_000)]).mean()
    nll = (law().entropy() + gap).item()  # the law's own density on the same rows takes most of their chance out
    x = test[:16_384]
    trip = (flow().decode(flow().encode(x)) - x).abs().max().item()
    far = torch.cat((50 * torch.eye(D), -50 * torch.eye(D), 50 * torch.ones(1, D), x.new_tensor([[50, -50, 0, 0]])))
    finite = all(torch.isfinite(part).all() for part in (flow().log_prob(far), flow().encode(far), flow().decode(far)))
    r = portfolio(flow)
    (var, es), (deep, _) = tail(r, 1e-3), tail(r, 1e-4)
    xi = hill(torch.from_numpy(-r), count=400)[0].item()
    layer = flow.layers[0]
    learned = f"  layer's xi {layer.index.mean().item():.3f}" if hasattr(layer, "index") else ""
    print(
        f"{name:<7} seed {seed}  NLL {nll:.4f}  VaR .1% {var:6.2f}  ES {es:6.2f}  VaR .01% {deep:6.2f}  xi {xi:.3f}  "
        f"round trip {trip:.1e}  finite at 50 {finite}  {seconds:.0f} s{learned}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--names", nargs="+", default=list(MAKE), choices=list(MAKE))
    parser.add_argument("--rate", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    truth = law()
    scale = truth.combination(torch.full((D,), 1 / D)).scale.item()
    t = stats.t(3, scale=scale)
    es = -scale * 3 / 2 * (1 + stats.t.ppf(1e-3, 3) ** 2 / 3) * stats.t.pdf(stats.t.ppf(1e-3, 3), 3) / 1e-3
    print(
        f"{'exact':<14}  NLL {truth.entropy().item():.4f}  VaR .1% {t.ppf(1e-3):6.2f}  ES {es:6.2f}  "
        f"VaR .01% {t.ppf(1e-4):6.2f}  xi 0.333"
    )
    for name in args.names:
        for seed in args.seeds:
            torch.manual_seed(1000 + seed)
            x = law().sample((ROWS,))
            r = np.sort(x.mean(-1).double().numpy())
            (var, es), (deep, _) = tail(r, 1e-3), tail(r, 1e-4)
            print(f"sample  seed {seed}  {'':<11}  VaR .1% {var:6.2f}  ES {es:6.2f}  VaR .01% {deep:6.2f}")
            start = time.perf_counter()
            flow = trained(name, x, seed, args.rate)
            report(name, seed, flow, time.perf_counter() - start)


if __name__ == "__main__":
    main()
