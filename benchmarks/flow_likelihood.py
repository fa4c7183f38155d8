"""What neural spline flows of several libraries learn in equal steps: held-out log densities, beside the exact ones.

Three transforms, networks of [64, 64], 8 bins, 500 steps of Adam on batches of 1,024 with one learning rate for all;
"qtorch" is the library's flow with its layer of Pareto tails, started by `initialise`, "qtorch plain" the flow that
peers have too. Laws: four-dimensional Student-t of 3 degrees of freedom; two regimes of six normals, of correlations
+.8 and -.15; four heteroscedastic normals whose scales and correlation follow three features of context; and daily
returns of the sample's 20 stocks over their standard deviations, trained on all but the last 1,500 sessions and tested
on those, of which no density is known. Columns of the data are standardised by those of training for all.

Each library runs in a process of its own; peers need an environment with zuko and nflows, given by --python.

Usage: PYTHONPATH=. python benchmarks/flow_likelihood.py [NAMES] [--python PATH] [--laws NAMES]
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from flows import BATCH, BUILD, KINDS, Size
from torch import Tensor
from torch.distributions import MixtureSameFamily, MultivariateNormal
from torch.distributions.categorical import Categorical
from worker import Worker, arguments, chosen, interpreter

ROWS, TEST = 40_000, 20_000
OURS = "qtorch"


def student() -> dict[str, Tensor]:
    from qtorch.distributions import MultivariateStudentT

    law = MultivariateStudentT(3.0, torch.zeros(4), torch.full((4, 1), 0.35), torch.full((4,), 0.21))
    x, test = law.sample((ROWS,)), law.sample((TEST,))
    return {"x": x, "test": test, "exact": law.log_prob(test).mean()}


def regimes() -> dict[str, Tensor]:
    D = 6
    roots = [torch.linalg.cholesky((1 - rho) * torch.eye(D) + rho * torch.ones(D, D)) for rho in (0.8, -0.15)]
    law = MixtureSameFamily(
        Categorical(torch.tensor([0.4, 0.6])), MultivariateNormal(torch.zeros(2, D), scale_tril=torch.stack(roots))
    )
    test = law.sample((TEST,))
    return {"x": law.sample((ROWS,)), "test": test, "exact": law.log_prob(test).mean()}


def conditional() -> dict[str, Tensor]:
    D = 4
    c = torch.randn(ROWS + TEST, 3)
    scale = torch.exp(0.5 * c[:, :1] + 0.3 * torch.sin(2 * c[:, 1:2]) * torch.linspace(-1, 1, D))
    rho = 0.9 * torch.sigmoid(2 * c[:, 2:3]).unsqueeze(-1)
    root = torch.linalg.cholesky((1 - rho) * torch.eye(D) + rho * torch.ones(D, D)) * scale.unsqueeze(-1)
    law = MultivariateNormal(torch.zeros(D), scale_tril=root)
    x = law.sample()
    exact = law.log_prob(x)[ROWS:].mean()
    return {"x": x[:ROWS], "test": x[ROWS:], "c": c[:ROWS], "c_test": c[ROWS:], "exact": exact}


def stocks() -> dict[str, Tensor]:
    from protocol import SESSIONS, market

    from qtorch.data import Panel

    returns = Panel.from_frame(market(None, None)).returns()
    returns = returns[returns.isfinite().all(1)].float()
    return {"x": returns[:-SESSIONS], "test": returns[-SESSIONS:], "exact": torch.tensor(torch.nan)}


LAWS = {"student": student, "regimes": regimes, "conditional": conditional, "stocks": stocks}


def write(folder: str, laws: list[str], seed: int) -> None:
    """The data of some laws, standardised, with what that adds to the exact log densities."""
    for name in laws:
        torch.manual_seed(seed)
        data = LAWS[name]()
        mean, std = data["x"].mean(0), data["x"].std(0)
        moved = data | {key: (data[key] - mean) / std for key in ("x", "test")}
        moved["exact"] = data["exact"] + torch.log(std).sum()
        np.savez(Path(folder) / f"{name}.npz", **{key: value.numpy() for key, value in moved.items()})


def learnt(name: str, kind: str, path: str, seed: int, steps: int, rate: float) -> float:
    """The mean held-out log density of a flow after training."""
    data = {key: torch.from_numpy(value) for key, value in np.load(path).items()}
    x, test = data["x"], data["test"]
    c = data.get("c", torch.zeros(len(x), 1))
    c_test = data.get("c_test", torch.zeros(len(test), 1))
    size = Size(x.shape[1], c.shape[1], 3, (64, 64))
    torch.manual_seed(seed)
    if name == OURS:
        from qtorch.models.flows import NeuralSplineFlow

        flow = NeuralSplineFlow(
            size.features,
            size.context,
            transforms=size.transforms,
            hidden=size.hidden,
            autoregressive=kind == "autoregressive",
        )
        flow.initialise(x)
        module, log_prob = flow, lambda x, c: flow(c).log_prob(x)
    else:
        module, log_prob, _ = BUILD[name.removesuffix(" plain")][1](kind, size)
    optimiser = torch.optim.Adam(module.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(x), (BATCH,), generator=generator)
        optimiser.zero_grad()
        (-log_prob(x[rows], c[rows]).mean()).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimiser.step()
        schedule.step()
    module.eval()
    with torch.no_grad():
        parts = zip(test.split(4096), c_test.split(4096), strict=True)
        return torch.cat([log_prob(*part) for part in parts]).double().mean().item()


def serve(name: str) -> None:
    torch.set_num_threads(1)
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        if not line.strip():
            break
        print(json.dumps(learnt(name, *json.loads(line))), flush=True)
    print(json.dumps(0.0), flush=True)


def main() -> None:
    names = (OURS, "qtorch plain", "zuko", "nflows")
    parser = arguments(__doc__, names, OURS, 1)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--laws", nargs="+", default=list(LAWS), choices=list(LAWS))
    args = parser.parse_args()
    if args.worker:
        serve(args.worker)
        return
    asked, pythons = chosen(parser, args, names, OURS)
    workers = {}
    for name in asked:
        if python := interpreter("torch" if name.startswith("qtorch") else name, pythons):
            workers[name] = Worker(__file__, name, python, 1)
        else:
            print(f"{name}: no interpreter has it; pass one by --python")
    with tempfile.TemporaryDirectory() as folder:
        write(folder, args.laws, args.seed)
        for law in args.laws:
            path = str(Path(folder) / f"{law}.npz")
            exact = float(np.load(path)["exact"])
            known = "" if math.isnan(exact) else f" (exact {exact:.4f})"
            for kind in KINDS:
                found = {name: w.run(kind, path, args.seed, args.steps, args.rate) for name, w in workers.items()}
                line = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
                print(f"{law:<12} {kind:<15} {line}{known}", flush=True)
    for worker in workers.values():
        worker.stop()


if __name__ == "__main__":
    main()
