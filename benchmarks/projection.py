"""The projection on the capped simplex beside cvxpylayers': time of forward and backward, and errors of gradients.

256 rows of 500 assets with a cap of 0.1, scores of deviation 0.1, processor milliseconds on one thread; each library in
a process of its own, the least of its rounds. cvxpylayers needs an environment that has it: pass its interpreter by
--python. Afterwards, the error of the budget at 5,000 assets.

Usage: PYTHONPATH=. python benchmarks/projection.py [NAMES] [--python PATH] [--rounds 3]
"""

import json
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from worker import Worker, arguments, chosen, interpreter

ROWS, ASSETS, CAP = 256, 500, 0.1
DTYPES = ("float64", "float32")
Layer = Callable[[Tensor], Tensor]


def _qtorch() -> Layer:
    from qtorch.portfolio import project_capped_simplex

    return lambda y: project_capped_simplex(y, 0.0, CAP)


def _cvxpylayers() -> Layer:
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer

    y, w = cp.Parameter(ASSETS), cp.Variable(ASSETS)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(w - y)), [cp.sum(w) == 1, w >= 0, w <= CAP])
    layer = CvxpyLayer(problem, parameters=[y], variables=[w])
    return lambda scores: layer(scores)[0]


BUILD: dict[str, tuple[str, Callable[[], Layer]]] = {
    "qtorch": ("torch", _qtorch),
    "cvxpylayers": ("cvxpylayers", _cvxpylayers),
}


def problem(dtype: str) -> tuple[Tensor, Tensor]:
    """Scores, and the gradient of the weights."""
    g = torch.Generator().manual_seed(0)
    y, v = (torch.randn(ROWS, ASSETS, generator=g, dtype=torch.float64) for _ in range(2))
    return (0.1 * y).to(getattr(torch, dtype)), v.to(getattr(torch, dtype))


def exact(y: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Weights by 200 halvings of the multiplier, and the closed form of the gradient."""
    low, high = y.amin(-1, keepdim=True) - CAP, y.amax(-1, keepdim=True)
    for _ in range(200):
        middle = (low + high) / 2
        above = (y - middle).clamp(0, CAP).sum(-1, keepdim=True) > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    w = (y - low).clamp(0, CAP)
    free = (w > 0) & (w < CAP)
    return w, (v - (v * free).sum(-1, keepdim=True) / free.sum(-1, keepdim=True)) * free


def serve(name: str) -> None:
    """A worker's side: milliseconds of a round, or the largest error of what it gave last."""
    torch.set_num_threads(1)
    layer = BUILD[name][1]()
    print(json.dumps({"torch": torch.__version__}), flush=True)
    given: dict[str, tuple[Tensor, Tensor]] = {}
    for line in sys.stdin:
        if not line.strip():
            break
        what, dtype = json.loads(line)
        y, v = problem(dtype)
        if what == "time":
            y.requires_grad_()
            start = time.process_time()
            w = layer(y)
            (gradient,) = torch.autograd.grad((w * v).sum(), y)
            answer = 1e3 * (time.process_time() - start)
            given[dtype] = w.detach().double(), gradient.double()
        else:
            k = ("weights", "gradient").index(what)
            answer = (given[dtype][k] - exact(*problem("float64"))[k]).abs().max().item()
        print(json.dumps(answer), flush=True)
    print(json.dumps(0.0), flush=True)


def main() -> None:
    parser = arguments(__doc__, BUILD, "qtorch", 3)
    args = parser.parse_args()
    if args.worker:
        serve(args.worker)
        return
    names, pythons = chosen(parser, args, BUILD, "qtorch")
    workers = {}
    for name in names:
        if python := interpreter(BUILD[name][0], pythons):
            workers[name] = Worker(__file__, name, python, 1)
        else:
            print(f"{name}: no interpreter has it; pass one by --python")
    for dtype in DTYPES:
        times = {name: [worker.run("time", dtype) for _ in range(args.rounds)] for name, worker in workers.items()}
        for name, worker in workers.items():
            least, wrong = min(times[name]), [worker.run(what, dtype) for what in ("weights", "gradient")]
            print(
                f"{dtype} {name:<12} {least:9.1f} ms (x{least / min(times['qtorch']):.1f})  "
                f"largest error: weights {wrong[0]:.1e}, gradient {wrong[1]:.1e}",
                flush=True,
            )
    for worker in workers.values():
        worker.stop()
    layer = _qtorch()
    for dtype in DTYPES:
        y = torch.randn(64, 5000, generator=torch.Generator().manual_seed(0), dtype=getattr(torch, dtype))
        missed = max((layer(scale * y).double().sum(-1) - 1).abs().max().item() for scale in (1e-5, 0.1, 10.0))
        print(f"{dtype} budget of 5,000 assets off by at most {missed:.1e}")


if __name__ == "__main__":
    main()
