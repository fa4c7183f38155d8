"""How well methods know how sure they are, as regression: their densities on data that ships with packages.

Data: scikit-learn's diabetes (442 rows, random splits into 68, 12 and 20 %), and the daily returns in arch of the S&P
500 and the Nasdaq, 1999 to 2018: five blocks of two years from 2009, each forecast by a network of the years before, of
which the last fifth stops the training; inputs are past returns, volatilities and ranges. Every method has two layers
of 64 SiLU, AdamW at 2e-3 with a decay of 1e-4 (of matrices without a prior), gradients clipped at 5, and stops early.

A network here is an encoder and a head, without panel or `Forecaster`: `fit` is the training loop of all methods. A
head with `penalty()` has that over the number of rows in its loss, and a `Posterior` is scored draw by draw while it is
trained. Members of an ensemble are trained in one network, each clipped and stopped by itself. Laplace's approximation
and SGLD start at the network that `t MLE` scores, whose time is part of theirs. Scales of priors are those of the
highest evidence, or bound on it, of the training rows, where a method's name does not give one.

Scores: log score (NLL), CRPS, coverage of the 90 % interval, share below the 1 % quantile, seconds of processor time of
fit and of an epoch; differences in NLL to the Student-t network's, paired by split and seed, with standard errors over
the splits, each the mean of its seeds. Diabetes in standard deviations, markets in per cent. Peers run where the
interpreter has them.

Usage: PYTHONPATH=. python benchmarks/uncertainty.py [METHODS] [--data sp500] [--seeds 0 1] [--splits 0 1] [--peers]
       [--csv PATH]
"""

import argparse
import copy
import importlib
import importlib.util
import itertools
import math
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call, vmap

from qtorch import heads
from qtorch.distributions import Empirical, Mixture, Posterior, StudentT, take
from qtorch.heads.gaussian_weights import antithetic
from qtorch.heads.parametric import Parameters, Parametric
from qtorch.models import DistanceAware, EncoderEnsemble
from qtorch.nn import stacked_parameters
from qtorch.risk import crps, log_score
from qtorch.training import SGLD, Laplace
from qtorch.training.clipping import clip_members
from qtorch.training.last_layer import LastLayer, affine_map
from qtorch.training.last_layer_sampling import sampled
from qtorch.training.optimisation import parameter_groups

WIDTH, RATE, DECAY, CLIP, DRAWS, MEMBERS, SAMPLES = 64, 2e-3, 1e-4, 5.0, 32, 5, 4800


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
    """A method's law of the outcomes of rows, and how many epochs and seconds it was trained."""

    predict: Callable[[Tensor], Distribution]
    epochs: int
    seconds: float


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


class Layers(nn.Module):
    """Two layers of SiLU, at every position of a window."""

    def __init__(self, in_features: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.in_features, self.out_features, self.dropout = in_features, WIDTH, dropout
        layers: list[nn.Module] = []
        for size in (in_features, WIDTH):
            layers += [nn.Linear(size, WIDTH), nn.SiLU(), *([nn.Dropout(dropout)] if dropout else [])]
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Hidden states."""
        return self.layers(inputs)


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
        return StudentT(*parameters, validate_args=False)


class Regression(nn.Module):
    """An encoder, which sees each row as a window of one session, and a head."""

    def __init__(self, encoder: nn.Module, head: Any) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def hidden(self, x: Tensor) -> Tensor:
        """Hidden states of rows."""
        return self.encoder(x.unsqueeze(1), torch.ones(len(x), 1, dtype=torch.bool)).squeeze(1)

    def parameters_of(self, x: Tensor) -> Parameters:
        """The laws' parameters, each `[Q, H]`, or `[Q, H, K]` of K draws."""
        return self.head.parameters_of(self.hidden(x))

    def forward(self, x: Tensor) -> Distribution:
        """The law of the outcomes of rows, batch shape `[Q, H]`."""
        return self.head(self.hidden(x))


class Parts(nn.Module):
    """A network's parameters of rows' laws, and its penalty: tensors, which `vmap` can stack."""

    def __init__(self, network: Regression) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Parameters, Tensor]:
        """Both."""
        return self.network.parameters_of(x), self.network.head.penalty()


class Together(nn.Module):
    """Variational networks, evaluated together with stacked weights. Its law is a batch of theirs, `[M, Q, H]`."""

    stacked: ClassVar[bool] = True

    def __init__(self, networks: list[Regression]) -> None:
        super().__init__()
        self.parts = Parts(copy.deepcopy(networks[0]))
        for name, value in self.parts.network.named_parameters():
            value.data = torch.stack([network.get_parameter(name).detach() for network in networks])

    def each(self, x: Tensor) -> tuple[Parameters, Tensor]:
        """The parts of every member, members first."""

        def of_one(weights: dict[str, Tensor]) -> Any:
            return functional_call(self.parts, weights, (x,))

        return vmap(of_one, randomness="different")(dict(self.parts.named_parameters()))

    def law(self, x: Tensor) -> Distribution:
        """The mixture of all draws of all members, batch shape `[Q, H]`."""
        parameters, _ = self.each(x)
        return self.parts.network.head.distribution(*(part.movedim(0, -2).flatten(-2) for part in parameters))


def negative_log_likelihood(network: nn.Module, part: Part, rows: int) -> Tensor:
    """The mean log score.

    In training it is that of each draw, and with the penalty of the head for each of the rows; else the mixture's, or
    one score for each member of an ensemble, since each stops by itself.
    """
    y = part.y.unsqueeze(-1)
    if isinstance(network, Together):
        parameters, penalties = network.each(part.x)
        law = network.parts.network.head.distribution(*parameters)
        if network.training:
            return log_score(law.components, y.unsqueeze(-1)).mean() + penalties.mean() / rows
        return log_score(law, y).mean((1, 2))
    law = network(part.x)
    members = bool(stacked_parameters(network))
    if isinstance(law, Posterior) and (network.training or members):
        score = log_score(law.components, y.unsqueeze(-1))
        return score.mean() + _penalty(network) / rows if network.training else score.mean((0, 1))
    return log_score(law, y).mean()


def _penalty(network: nn.Module) -> Tensor | float:
    head = getattr(network, "head", None)
    return head.penalty() if isinstance(head, heads.Variational) else 0.0


Loss = Callable[[nn.Module, Part, int], Tensor]


def fit(network: nn.Module, split: Split, seed: int, loss: Loss = negative_log_likelihood, decay: float = DECAY) -> int:
    """Trains until the validation rows get no better; leaves the best weights. Returns the epochs."""
    generator = torch.Generator().manual_seed(seed)
    decayed, others = parameter_groups(network)
    optimiser = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}], RATE, weight_decay=decay
    )
    rows, epoch = len(split.train.y), 0
    best, worse = torch.tensor(torch.inf), torch.tensor(0)
    kept = {name: value.detach().clone() for name, value in network.named_parameters()}
    for epoch in range(1, split.epochs + 1):  # noqa: B007 - how far it came is returned
        network.train()
        for at in torch.randperm(rows, generator=generator).split(split.batch):
            optimiser.zero_grad()
            loss(network, Part(split.train.x[at], split.train.y[at]), rows).backward()
            if not clip_members(network, CLIP):
                nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimiser.step()
        network.eval()
        with torch.no_grad():
            score = loss(network, split.validation, rows)
        better = (score < best - 1e-4) & (worse <= split.patience)
        best, worse = torch.where(better, score, best), torch.where(better, 0, worse + 1)
        for name, value in network.named_parameters():
            whose = better.view(-1, *[1] * (value.ndim - 1)) if better.ndim else better
            kept[name] = torch.where(whose, value.detach(), kept[name])
        if (worse > split.patience).all():
            break
    network.load_state_dict(kept, strict=False)
    network.eval()
    return epoch


METHODS: dict[str, tuple[str, Method]] = {}  # by name: what it needs, and how it is fitted
PEERS = ("laplace", "vbll")


def method(name: str, needs: str = "torch") -> Callable[[Method], Method]:
    def add(made: Method) -> Method:
        METHODS[name] = needs, made
        return made

    return add


def _network(split: Split, seed: int, head: type[RegressionHead], dropout: float = 0.0) -> Regression:
    torch.manual_seed(seed)
    return Regression(Layers(split.train.x.shape[1], dropout), head(WIDTH))


def _marginal(network: nn.Module) -> Callable[[Tensor], Distribution]:
    """The law of the one horizon."""
    return lambda x: take(network(x), (slice(None), 0))


@lru_cache(maxsize=2)
def _alone(split: Split, seed: int, head: type[RegressionHead]) -> tuple[Regression, int, float]:
    """A trained network, its epochs and seconds: by itself a method, and where others begin."""
    start = time.process_time()
    network = _network(split, seed, head)
    epochs = fit(network, split, seed)
    return network, epochs, time.process_time() - start


def _point(head: type[RegressionHead]) -> Method:
    def fitted(split: Split, seed: int) -> Fitted:
        network, epochs, seconds = _alone(split, 1000 * seed, head)
        return Fitted(_marginal(network), epochs, seconds)

    return fitted


def _members(head: type[RegressionHead]) -> Method:
    def fitted(split: Split, seed: int) -> Fitted:
        one = _network(split, 1000 * seed, head)
        network = Regression(EncoderEnsemble(one.encoder, MEMBERS), heads.Ensemble(one.head, MEMBERS))
        start = time.process_time()
        epochs = fit(network, split, 1000 * seed)
        return Fitted(_marginal(network), epochs, time.process_time() - start)

    return fitted


def _dropout(head: type[RegressionHead]) -> Method:
    def fitted(split: Split, seed: int) -> Fitted:
        start = time.process_time()
        network = _network(split, 1000 * seed, head, dropout=0.1)
        epochs = fit(network, split, 1000 * seed)
        seconds = time.process_time() - start

        def predict(x: Tensor) -> Distribution:
            torch.manual_seed(seed)
            network.train()
            hidden = torch.stack([network.hidden(x) for _ in range(DRAWS)], -2)
            network.eval()
            return take(heads.EachDraw(network.head)(hidden), (slice(None), 0))

        return Fitted(predict, epochs, seconds)

    return fitted


def _unsure(split: Split, seed: int, head: type[RegressionHead], prior_scale: float | None) -> Regression:
    network = _network(split, seed, head)
    for part in network.head.project.parameters():
        nn.init.zeros_(part)  # the prior's mean
    network.head = heads.Variational(network.head, prior_scale=prior_scale, draws=DRAWS)
    return network


def _variational(head: type[RegressionHead], prior_scale: float | None) -> Method:
    def fitted(split: Split, seed: int) -> Fitted:
        start = time.process_time()
        network = _unsure(split, 1000 * seed, head, prior_scale)
        epochs = fit(network, split, 1000 * seed)
        return Fitted(_marginal(network), epochs, time.process_time() - start)

    return fitted


def _variational_members(split: Split, seed: int) -> Fitted:
    start = time.process_time()
    network = Together([_unsure(split, 1000 * seed + k, StudentTRegression, None) for k in range(MEMBERS)])
    epochs = fit(network, split, 1000 * seed)
    return Fitted(lambda x: take(network.law(x), (slice(None), 0)), epochs, time.process_time() - start)


def _last_layer(network: Regression, split: Split) -> LastLayer:
    with torch.no_grad():
        hidden, y = network.hidden(split.train.x), split.train.y.unsqueeze(-1)
    return LastLayer(hidden, y, torch.ones_like(y))


def _drawn(network: Regression, offsets: Tensor) -> Callable[[Tensor], Distribution]:
    drawn = heads.DrawnWeights(network.head, len(offsets))
    drawn.offsets.copy_(offsets)
    return _marginal(Regression(network.encoder, drawn))


def _around(network: Regression, split: Split) -> Callable[[Tensor], Distribution]:
    """Draws of Laplace's approximation, with the prior scale of the highest evidence."""
    posterior = Laplace.of(network.head, _last_layer(network, split))
    generator = torch.Generator().manual_seed(0)
    noise = antithetic(DRAWS, *posterior.curvature.shape, generator).to(posterior.weights)
    return _drawn(network, posterior.moved(noise))


def _laplace(split: Split, seed: int) -> Fitted:
    network, epochs, seconds = _alone(split, 1000 * seed, StudentTRegression)
    start = time.process_time()
    predict = _around(network, split)
    return Fitted(predict, epochs, seconds + time.process_time() - start)


def _langevin(split: Split, seed: int) -> Fitted:
    """Draws of the last layer's posterior under the prior scale that `Laplace` takes."""
    network, epochs, seconds = _alone(split, 1000 * seed, StudentTRegression)
    start = time.process_time()
    data = _last_layer(network, split)
    scale = Laplace.of(network.head, data, "diagonal").prior_scale
    settings = {"batch_size": 1024, "burn_in": 500, "thin": 25, "draws": DRAWS, "seed": seed}
    chain = sampled(network.head, data, SGLD(preconditioner="diagonal"), prior_scale=scale, **settings)
    predict = _drawn(network, chain - affine_map(network.head))
    return Fitted(predict, epochs, seconds + time.process_time() - start)


def _distance_aware(split: Split, seed: int) -> Fitted:
    start = time.process_time()
    torch.manual_seed(1000 * seed)
    body = DistanceAware(Layers(split.train.x.shape[1]), seed=seed)
    network = Regression(body, StudentTRegression(body.out_features))
    epochs = fit(network, split, 1000 * seed)
    return Fitted(_around(network, split), epochs, time.process_time() - start)


for _name, _head in (("t", StudentTRegression), ("normal", NormalRegression)):
    method(f"{_name} MLE")(_point(_head))
    method(f"{_name} five members")(_members(_head))
    method(f"{_name} variational")(_variational(_head, None))
method("t variational, prior 1")(_variational(StudentTRegression, 1.0))
method("t five variational members")(_variational_members)
method("t Laplace")(_laplace)
method("t SGLD")(_langevin)
method("t dropout")(_dropout(StudentTRegression))
method("t SNGP")(_distance_aware)


def _mean(split: Split, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(Layers(split.train.x.shape[1]).layers, nn.Linear(WIDTH, 1))


@method("laplace-torch, last layer", "laplace")
def _laplace_torch(split: Split, seed: int) -> Fitted:
    """Normal noise of one size; prior and noise by the marginal likelihood."""
    from laplace import Laplace

    start = time.process_time()
    network = _mean(split, seed)

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

    return Fitted(predict, epochs, time.process_time() - start)


def _vbll(kind: str) -> Method:
    def fitted(split: Split, seed: int) -> Fitted:
        import vbll

        start = time.process_time()
        network = _mean(split, seed)
        layer = getattr(vbll, kind)(WIDTH, 1, regularization_weight=1 / len(split.train.y), parameterization="dense")
        network[-1] = layer

        def bound(network: nn.Module, part: Part, rows: int) -> Tensor:
            out = network(part.x)
            return (out.train_loss_fn if network.training else out.val_loss_fn)(part.y.unsqueeze(-1))

        epochs = fit(network, split, seed, bound, decay=0.0)
        seconds = time.process_time() - start

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

        return Fitted(predict, epochs, seconds)

    return fitted


for _kind in ("Regression", "tRegression", "HetRegression"):
    method(f"vbll {_kind}", "vbll")(_vbll(_kind))


def scores(law: Distribution, split: Split) -> dict[str, float]:
    """Of the test rows, in the data's unit."""
    y = split.test.y.double()
    u = law.cdf(y)
    sharp = law
    if isinstance(law, Mixture):  # of equal weights; quadrature would invert its distribution function at every node
        torch.manual_seed(0)
        drawn = law.components.sample((SAMPLES // law.weights.shape[-1],)).double()
        sharp = Empirical(drawn.movedim(0, -1).flatten(1))
    return {
        "nll": float(log_score(law, y).mean()) + math.log(split.unit),
        "crps": float(crps(sharp, y).mean()) * split.unit,
        "coverage_90": float(((u > 0.05) & (u < 0.95)).double().mean()),
        "below_1": float((u < 0.01).double().mean()),
        "rows": len(y),
    }


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
    """The mean, and its standard error over splits: seeds share a split's data, and tell nothing new of others."""
    each = difference.groupby("split").mean()
    error = each.std() / max(len(each), 1) ** 0.5
    return f"{each.mean():+.4f} ({error:.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help=f"all of ours by default; of {', '.join(METHODS)}")
    parser.add_argument("--data", nargs="+", choices=DATA, default=["diabetes", "sp500"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--splits", type=int, nargs="+", help="which of each data set, from 0; all by default")
    parser.add_argument("--peers", action="store_true", help="other libraries too")
    parser.add_argument("--csv", type=Path, help="where to write every run")
    args = parser.parse_args()
    if unknown := set(args.methods) - METHODS.keys():
        parser.error(f"nothing is called {', '.join(sorted(unknown))}.")
    names = args.methods or [n for n, (needs, _) in METHODS.items() if args.peers or needs not in PEERS]
    for name in [n for n in names if importlib.util.find_spec(METHODS[n][0]) is None]:
        print(f"{name}: skipped, there is no {METHODS[name][0]}")
        names.remove(name)
    torch.set_num_threads(1)
    runs = []
    for data in args.data:
        splits = list(DATA[data]())
        for split in splits if args.splits is None else [splits[k] for k in args.splits]:
            for seed, name in itertools.product(args.seeds, names):
                fitted = METHODS[name][1](split, seed)
                with torch.no_grad():
                    result = scores(fitted.predict(split.test.x), split)
                one = {"data": data, "split": split.name, "method": name, "seed": seed}
                runs.append(one | {"seconds": fitted.seconds, "epochs": fitted.epochs} | result)
                print(f"{split.name}, seed {seed}: {name} {result['nll']:.4f}, {fitted.seconds:.1f} s", flush=True)
                if args.csv is not None:
                    pd.DataFrame(runs).to_csv(args.csv, index=False)
    frame = pd.DataFrame(runs)
    for data in args.data:
        print(f"\n{data}\n\n{table(frame[frame['data'] == data], 't MLE')}", flush=True)


if __name__ == "__main__":
    main()
