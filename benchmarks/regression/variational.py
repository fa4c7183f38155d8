"""Variational posteriors of the last layer, trained with the network."""

import time

from torch import nn

from benchmarks.regression.data import Split
from benchmarks.regression.heads import RegressionHead
from benchmarks.regression.method import Fit, Fitted, marginal
from benchmarks.regression.networks import Regression, Together
from benchmarks.regression.points import DRAWS, MEMBERS, fresh
from benchmarks.regression.training import fit
from qtorch.distributions import take
from qtorch.heads import Variational


def unsure(split: Split, seed: int, head: type[RegressionHead], prior_scale: float | None) -> Regression:
    """An untrained network of a variational head."""
    network = fresh(split, seed, head)
    for part in network.head.project.parameters():
        nn.init.zeros_(part)  # the prior's mean
    network.head = Variational(network.head, prior_scale=prior_scale, draws=DRAWS)
    return network


def variational(head: type[RegressionHead], prior_scale: float | None) -> Fit:
    """One network."""

    def fitted(split: Split, seed: int) -> Fitted:
        start = time.process_time()
        network = unsure(split, 1000 * seed, head, prior_scale)
        epochs = fit(network, split, 1000 * seed)
        return Fitted(marginal(network), epochs, time.process_time() - start)

    return fitted


def variational_members(head: type[RegressionHead]) -> Fit:
    """A mixture of the posteriors of networks that differ in their first weights."""

    def fitted(split: Split, seed: int) -> Fitted:
        start = time.process_time()
        network = Together([unsure(split, 1000 * seed + k, head, None) for k in range(MEMBERS)])
        epochs = fit(network, split, 1000 * seed)
        return Fitted(lambda x: take(network.law(x), (slice(None), 0)), epochs, time.process_time() - start)

    return fitted
