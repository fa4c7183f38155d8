"""A network of the highest likelihood, members of an ensemble, and dropout."""

import time
from functools import lru_cache

import torch
from torch import Tensor
from torch.distributions import Distribution

from benchmarks.regression.data import Split
from benchmarks.regression.heads import RegressionHead
from benchmarks.regression.method import Fit, Fitted, marginal
from benchmarks.regression.networks import WIDTH, Layers, Regression
from benchmarks.regression.training import fit
from qtorch.distributions import take
from qtorch.heads import EachDraw, Ensemble
from qtorch.models import EncoderEnsemble

MEMBERS, DRAWS = 5, 32


def fresh(split: Split, seed: int, head: type[RegressionHead], dropout: float = 0.0) -> Regression:
    """An untrained network."""
    torch.manual_seed(seed)
    return Regression(Layers(split.train.x.shape[1], dropout), head(WIDTH))


@lru_cache(maxsize=2)
def alone(split: Split, seed: int, head: type[RegressionHead]) -> tuple[Regression, int, float]:
    """A trained network, its epochs and seconds: by itself a method, and where others begin."""
    start = time.process_time()
    network = fresh(split, seed, head)
    epochs = fit(network, split, seed)
    return network, epochs, time.process_time() - start


def point(head: type[RegressionHead]) -> Fit:
    """The network alone."""

    def fitted(split: Split, seed: int) -> Fitted:
        network, epochs, seconds = alone(split, 1000 * seed, head)
        return Fitted(marginal(network), epochs, seconds)

    return fitted


def together(split: Split, seed: int, head: type[RegressionHead]) -> tuple[Regression, int]:
    """A trained ensemble, and its epochs."""
    one = fresh(split, seed, head)
    network = Regression(EncoderEnsemble(one.encoder, MEMBERS), Ensemble(one.head, MEMBERS))
    return network, fit(network, split, seed)


def members(head: type[RegressionHead]) -> Fit:
    """A mixture of networks that differ in their first weights."""

    def fitted(split: Split, seed: int) -> Fitted:
        start = time.process_time()
        network, epochs = together(split, 1000 * seed, head)
        return Fitted(marginal(network), epochs, time.process_time() - start)

    return fitted


def dropped(head: type[RegressionHead]) -> Fit:
    """Dropout that goes on in forecasts, whose mixture is over its draws."""

    def fitted(split: Split, seed: int) -> Fitted:
        start = time.process_time()
        network = fresh(split, 1000 * seed, head, dropout=0.1)
        epochs = fit(network, split, 1000 * seed)
        seconds = time.process_time() - start

        def predict(x: Tensor) -> Distribution:
            torch.manual_seed(seed)
            network.train()
            hidden = torch.stack([network.hidden(x) for _ in range(DRAWS)], -2)
            network.eval()
            return take(EachDraw(network.head)(hidden), (slice(None), 0))

        return Fitted(predict, epochs, seconds)

    return fitted
