"""How well methods know how sure they are, as regression: their densities on data that ships with packages.

Data: scikit-learn's diabetes (442 rows, random splits into 68, 12 and 20 %), and the daily returns in arch of the S&P
500 and the Nasdaq, 1999 to 2018: five blocks of two years from 2009, each forecast by a network of the years before, of
which the last fifth stops the training; inputs are past returns, volatilities and ranges. Every method has two layers
of 64 SiLU, AdamW at 2e-3 with a decay of 1e-4, gradients clipped at 5, and stops early.

A network here is an encoder and a head, without panel or `Forecaster`: `fit` is the whole training loop. A head with
`penalty()` has that over the number of rows in its loss, and a `Posterior` is scored draw by draw while it is trained.

Scores: log score (NLL), CRPS, coverage of the 90 % interval, share below the 1 % quantile, seconds of processor time of
fit and of an epoch; differences in NLL to the Student-t network's, paired by split and seed, with standard errors over
these. Diabetes in standard deviations, markets in per cent. Peers run where the interpreter has them.

Usage: PYTHONPATH=. python benchmarks/uncertainty.py [METHODS] [--data sp500] [--seeds 0 1] [--splits 5] [--peers]
       [--csv PATH]
"""

import argparse
import copy
import importlib
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from qtorch import heads
from qtorch.distributions import Mixture, Posterior, StudentT, take
from qtorch.heads.parametric import Parameters, Parametric
from qtorch.risk import crps, log_score

WIDTH, RATE, DECAY, CLIP, DRAWS = 64, 2e-3, 1e-4, 5.0, 32


class Part(NamedTuple):
    """Rows of a split, standardised by its training rows."""

    x: Tensor
    y: Tensor


class Split(NamedTuple):
    """What a method is trained on, stopped by and judged on; `unit` is that of the outcomes."""

    name: str
    train: Part
    validation: Part
    test: Part
    unit: float
    epochs: int
    patience: int
    batch: int


class Fitted(NamedTuple):
    """A method's law of the outcomes of rows, and how many epochs it was trained."""

    predict: Callable[[Tensor], Distribution]
    epochs: int


Method = Callable[[Split, int], Fitted]


def _split(name: str, parts: list[tuple[np.ndarray, np.ndarray]], unit: bool, **training: int) -> Split:
    x, y = parts[0]
    centre, size, level, scale = x.mean(0), x.std(0) + 1e-12, y.mean(), y.std()
    tensors = [
        Part(torch.tensor((a - centre) / size, dtype=torch.float32), torch.tensor((b - level) / scale).float())
        for a, b in parts
    ]
    return Split(name, *tensors, float(scale) if unit else 1.0, **training)


def diabetes() -> Iterator[Split]:
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(y))
        known = int(0.8 * len(y))
        fitted = known - int(0.15 * known)
        parts = [(x[rows], y[rows]) for rows in np.split(order, [fitted, known])]
        yield _split(f"diabetes {seed}", parts, False, epochs=400, patience=40, batch=32)


def market(name: str) -> Iterator[Split]:
    frame = importlib.import_module(f"arch.data.{name}").load()
    returns = 100 * np.log(frame["Adj Close"]).diff()
    ranges = np.log(frame["High"] / frame["Low"]) ** 2 / (4 * math.log(2))
    inputs = {f"return {k}": returns.shift(k) for k in (1, 2, 3, 5)}
    for half_life in (5, 21, 63):
        variance = (returns**2).ewm(halflife=half_life, min_periods=63).mean().shift(1)
        inputs[f"volatility {half_life}"] = 0.5 * np.log(variance + 1e-4)
    for window in (1, 5, 22):
        inputs[f"range {window}"] = 0.5 * np.log(1e4 * ranges.rolling(window).mean().shift(1) + 1e-4)
    inputs["loss"] = returns.shift(1).clip(upper=0)
    x = pd.DataFrame(inputs)
    there = x.notna().all(axis=1) & returns.notna()
    x, y = x[there], returns[there]
    for year in range(2009, 2019, 2):
        known, tested = x.index.year < year, (x.index.year >= year) & (x.index.year < year + 2)
        before, outcomes = x[known].to_numpy(), y[known].to_numpy()
        n = len(before) - int(0.2 * len(before))
        parts = [(before[:n], outcomes[:n]), (before[n:], outcomes[n:]), (x[tested].to_numpy(), y[tested].to_numpy())]
        yield _split(f"{name} {year}", parts, True, epochs=100, patience=15, batch=128)


DATA: dict[str, Callable[[], Iterator[Split]]] = {
    "diabetes": diabetes,
    "sp500": lambda: market("sp500"),
    "nasdaq": lambda: market("nasdaq"),
}


class RegressionHead(Parametric):
    """A head without the bounds that returns have: the median may be anywhere."""

    def __init__(self, in_features: int, size: int) -> None:
        super().__init__(in_features, (1,), size)
        self.project.reset_parameters()

    def median_and_scale(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The first two numbers, any and positive."""
        return raw[..., 0], nn.functional.softplus(raw[..., 1]) + 1e-3


class NormalRegression(RegressionHead):
    """Normal outcomes."""

    def __init__(self, in_features: int) -> None:
        super().__init__(in_features, 2)

    def constrain(self, raw: Tensor) -> Parameters:
        """Parameters of the law."""
        return self.median_and_scale(raw)

    def distribution(self, *parameters: Tensor) -> Distribution:
        """The law of parameters."""
        return torch.distributions.Normal(*parameters, validate_args=False)


class StudentTRegression(RegressionHead):
    """Student-t outcomes of more than two degrees of freedom."""

    def __init__(self, in_features: int) -> None:
        super().__init__(in_features, 3)

    def constrain(self, raw: Tensor) -> Parameters:
        """Parameters of the law."""
        return 2 + nn.functional.softplus(raw[..., 2] + 3), *self.median_and_scale(raw)

    def distribution(self, *parameters: Tensor) -> Distribution:
        """The law of parameters."""
        return StudentT(*parameters)


def encoder(inputs: int, dropout: float = 0.0) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in (inputs, WIDTH):
        layers += [nn.Linear(size, WIDTH), nn.SiLU(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers)


def loss_of(network: nn.Module, part: Part, rows: int) -> Tensor:
    """The mean log score; in training draw by draw, and with the penalty of the head for each of the rows."""
    law = network(part.x)
    if not network.training:
        return log_score(law, part.y.unsqueeze(-1)).mean()
    if isinstance(law, Posterior):
        score = log_score(law.components, part.y[:, None, None]).mean()
    else:
        score = log_score(law, part.y.unsqueeze(-1)).mean()
    head = network[-1] if isinstance(network, nn.Sequential) else None
    return score + head.penalty() / rows if hasattr(head, "penalty") else score


Loss = Callable[[nn.Module, Part, int], Tensor]


def fit(network: nn.Module, split: Split, seed: int, loss: Loss = loss_of, decay: float = DECAY) -> int:
    """Trains until the validation rows get no better; leaves the best weights. Returns the epochs."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=decay)
    best, kept, worse, epoch = math.inf, network.state_dict(), 0, 0
    rows = len(split.train.y)
    for epoch in range(1, split.epochs + 1):  # noqa: B007 - how far it came is returned
        network.train()
        for at in torch.randperm(rows, generator=generator).split(split.batch):
            optimiser.zero_grad()
            loss(network, Part(split.train.x[at], split.train.y[at]), rows).backward()
            nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimiser.step()
        network.eval()
        with torch.no_grad():
            value = float(loss(network, split.validation, rows))
        if value < best - 1e-4:
            best, kept, worse = value, copy.deepcopy(network.state_dict()), 0
        else:
            worse += 1
        if worse > split.patience:
            break
    network.load_state_dict(kept)
    network.eval()
    return epoch


METHODS: dict[str, tuple[str, Method]] = {}  # by name: what it needs, and how it is fitted
PEERS = ("laplace", "vbll")


def method(name: str, needs: str = "torch") -> Callable[[Method], Method]:
    def add(made: Method) -> Method:
        METHODS[name] = needs, made
        return made

    return add


def _seeded(split: Split, seed: int, head: type[RegressionHead], dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(encoder(split.train.x.shape[1], dropout), head(WIDTH))


def _marginal(network: nn.Module) -> Callable[[Tensor], Distribution]:
    """The law of the one horizon."""
    return lambda x: take(network(x), (slice(None), 0))


def _posterior(networks: list[nn.Sequential], x: Tensor) -> Distribution:
    """The mixture of networks' laws, not the law of their mean parameters."""
    head: Any = networks[0][-1]
    each = [network[-1].parameters_of(network[:-1](x)) for network in networks]  # type: ignore[operator]
    parameters = [torch.stack([p[:, 0] for p in parts], -1) for parts in zip(*each, strict=True)]
    return Posterior(torch.ones(len(networks)), head.distribution(*parameters))


def _ensemble(head: type[RegressionHead], members: int) -> Method:
    def fitted(split: Split, seed: int) -> Fitted:
        networks = [_seeded(split, 1000 * seed + k, head) for k in range(members)]
        epochs = sum(fit(network, split, 1000 * seed + k) for k, network in enumerate(networks))
        return Fitted(lambda x: _posterior(networks, x), epochs)

    return fitted


def _dropout(head: type[RegressionHead]) -> Method:
    def fitted(split: Split, seed: int) -> Fitted:
        network = _seeded(split, 1000 * seed, head, dropout=0.1)
        epochs = fit(network, split, 1000 * seed)

        def predict(x: Tensor) -> Distribution:
            torch.manual_seed(seed)
            network.train()
            law = _posterior([network] * DRAWS, x)
            network.eval()
            return law

        return Fitted(predict, epochs)

    return fitted


def _variational(head: type[RegressionHead], prior_scale: float | None) -> Method:
    def fitted(split: Split, seed: int) -> Fitted:
        torch.manual_seed(1000 * seed)
        body = encoder(split.train.x.shape[1])
        variational: Any = heads.Variational  # type: ignore[attr-defined]
        network = nn.Sequential(body, variational(head(WIDTH), prior_scale=prior_scale, draws=DRAWS))
        return Fitted(_marginal(network), fit(network, split, 1000 * seed))

    return fitted


for _name, _head in (("normal", NormalRegression), ("t", StudentTRegression)):
    method(f"{_name} MLE")(_ensemble(_head, 1))
    method(f"{_name} five members")(_ensemble(_head, 5))
    method(f"{_name} dropout")(_dropout(_head))
    method(f"{_name} variational", "qtorch.heads.Variational")(_variational(_head, 1.0))
    method(f"{_name} variational, learned prior", "qtorch.heads.Variational")(_variational(_head, None))


@method("laplace-torch, last layer", "laplace")
def _laplace(split: Split, seed: int) -> Fitted:
    """Normal noise of one size; prior and noise by the marginal likelihood."""
    from laplace import Laplace

    torch.manual_seed(seed)
    network = nn.Sequential(encoder(split.train.x.shape[1]), nn.Linear(WIDTH, 1))

    def squares(network: nn.Module, part: Part, rows: int) -> Tensor:
        return ((network(part.x)[:, 0] - part.y) ** 2).mean()

    epochs = fit(network, split, seed, squares)
    rows = torch.utils.data.TensorDataset(split.train.x, split.train.y.unsqueeze(-1))
    posterior = Laplace(network, "regression", subset_of_weights="last_layer", hessian_structure="full")
    posterior.fit(torch.utils.data.DataLoader(rows, batch_size=256))
    prior, noise = torch.ones(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.Adam([prior, noise], lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        (-posterior.log_marginal_likelihood(prior.exp(), noise.exp())).backward()
        optimiser.step()
    size = float(noise.detach().exp())

    def predict(x: Tensor) -> Distribution:
        mean, variance = posterior(x)
        return torch.distributions.Normal(mean.detach()[:, 0], (variance.detach().reshape(-1) + size**2).sqrt())

    return Fitted(predict, epochs)


def _vbll(kind: str) -> Method:
    def fitted(split: Split, seed: int) -> Fitted:
        import vbll

        torch.manual_seed(seed)
        layer = getattr(vbll, kind)(WIDTH, 1, regularization_weight=1 / len(split.train.y), parameterization="dense")
        network = nn.Sequential(encoder(split.train.x.shape[1]), layer)

        def bound(network: nn.Module, part: Part, rows: int) -> Tensor:
            out = network(part.x)
            return (out.train_loss_fn if network.training else out.val_loss_fn)(part.y.unsqueeze(-1))

        epochs = fit(network, split, seed, bound, decay=0.0)

        def predict(x: Tensor) -> Distribution:
            if kind == "HetRegression":  # each call draws the noise's weights anew
                draws = [network(x).predictive for _ in range(DRAWS)]
                loc, scale = (torch.cat([getattr(d, a).reshape(-1, 1) for d in draws], 1) for a in ("loc", "scale"))
                return Mixture(torch.ones(DRAWS), torch.distributions.Normal(loc, scale))
            law = network(x).predictive
            loc, scale = law.loc.reshape(-1), law.scale.reshape(-1)
            if kind == "tRegression":
                return StudentT(law.df.reshape(-1).expand(len(x)), loc, scale)
            return torch.distributions.Normal(loc, scale)

        return Fitted(predict, epochs)

    return fitted


for _kind in ("Regression", "tRegression", "HetRegression"):
    method(f"vbll {_kind}", "vbll")(_vbll(_kind))


def scores(law: Distribution, split: Split) -> dict[str, float]:
    """Of the test rows, in the data's unit."""
    y = split.test.y.double()
    u = law.cdf(y)
    return {
        "nll": float(log_score(law, y).mean()) + math.log(split.unit),
        "crps": float(crps(law, y).mean()) * split.unit,
        "coverage_90": float(((u > 0.05) & (u < 0.95)).double().mean()),
        "below_1": float((u < 0.01).double().mean()),
        "rows": len(y),
    }


def available(needs: str) -> bool:
    """Whether a package can be imported, or this version of the library has a class."""
    if needs.startswith("qtorch."):
        return hasattr(heads, needs.rpartition(".")[2])
    return importlib.util.find_spec(needs) is not None


def table(runs: pd.DataFrame, first: str) -> str:
    """A line for each method: means over all test rows, and differences to the first paired by split and seed."""
    pairs = runs.pivot(index=["split", "seed"], columns="method", values="nll")
    head = ["", "NLL", f"less {first}'s", "CRPS", "within 90 %", "below 1 %", "fit, s", "epoch, ms"]
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for name in runs["method"].unique():
        own = runs[runs["method"] == name]
        mean = {c: np.average(own[c], weights=own["rows"]) for c in ("nll", "crps", "coverage_90", "below_1")}
        gap = "" if first not in pairs else _paired((pairs[name] - pairs[first]).dropna())
        epoch = 1000 * own["seconds"].sum() / own["epochs"].sum()
        lines.append(
            f"| {name} | {mean['nll']:.4f} | {gap} | {mean['crps']:.4f} | {100 * mean['coverage_90']:.1f} | "
            f"{100 * mean['below_1']:.2f} | {own['seconds'].mean():.1f} | {epoch:.1f} |"
        )
    return "\n".join(lines)


def _paired(difference: pd.Series) -> str:
    error = difference.std() / max(len(difference), 1) ** 0.5
    return f"{difference.mean():+.4f} ({error:.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help=f"all of ours by default; of {', '.join(METHODS)}")
    parser.add_argument("--data", nargs="+", choices=DATA, default=["diabetes", "sp500"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--splits", type=int, help="at most so many of each data set")
    parser.add_argument("--peers", action="store_true", help="other libraries too")
    parser.add_argument("--csv", type=Path, help="where to write every run")
    args = parser.parse_args()
    if unknown := set(args.methods) - METHODS.keys():
        parser.error(f"nothing is called {', '.join(sorted(unknown))}.")
    names = args.methods or [n for n, (needs, _) in METHODS.items() if args.peers or needs not in PEERS]
    for name in [n for n in names if not available(METHODS[n][0])]:
        print(f"{name}: skipped, there is no {METHODS[name][0]}")
        names.remove(name)
    torch.set_num_threads(1)
    runs = []
    for data in args.data:
        for split in list(DATA[data]())[: args.splits]:
            for name in names:
                for seed in args.seeds:
                    start = time.process_time()
                    fitted = METHODS[name][1](split, seed)
                    seconds = time.process_time() - start
                    with torch.no_grad():
                        result = scores(fitted.predict(split.test.x), split)
                    one = {"data": data, "split": split.name, "method": name, "seed": seed}
                    runs.append(one | {"seconds": seconds, "epochs": fitted.epochs} | result)
                    print(f"{split.name}, seed {seed}: {name} {result['nll']:.4f}, {seconds:.1f} s", flush=True)
    frame = pd.DataFrame(runs)
    for data in args.data:
        print(f"\n{data}\n\n{table(frame[frame['data'] == data], 't MLE')}", flush=True)
    if args.csv is not None:
        frame.to_csv(args.csv, index=False)


if __name__ == "__main__":
    main()
