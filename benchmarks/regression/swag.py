"""SWAG around a trained network: the Gaussian of `qtorch.training.Swag`, with its settings, of the rows' own steps."""

import copy
import itertools
import time
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from benchmarks.regression.data import Part, Split
from benchmarks.regression.heads import RegressionHead
from benchmarks.regression.method import Fit, Fitted, marginal
from benchmarks.regression.networks import Regression
from benchmarks.regression.points import DRAWS, alone
from benchmarks.regression.training import CLIP, batches, negative_log_likelihood, optimiser_of
from qtorch.heads import Ensemble
from qtorch.models import EncoderEnsemble
from qtorch.training.swag import Snapshots, gaussian_draws

SNAPSHOTS, EVERY, RANK, RATE = 40, 50, 20, 1e-3  # the defaults of `Swag.fit`


def swag(head: type[RegressionHead]) -> Fit:
    """A mixture over draws of all weights, around where training at a constant rate wanders from the network alone."""

    def fitted(split: Split, seed: int) -> Fitted:
        network, epochs, seconds = alone(split, 1000 * seed, head)
        start = time.process_time()
        kept = _wandered(copy.deepcopy(network), split, seed)
        networks = [copy.deepcopy(network) for _ in range(DRAWS)]
        for each, vector in zip(networks, gaussian_draws(*kept.moments(), DRAWS, seed), strict=True):
            vector_to_parameters(vector.float(), each.parameters())
        mixture = Regression(
            EncoderEnsemble.of([each.encoder for each in networks]), Ensemble.of([each.head for each in networks])
        )
        more = SNAPSHOTS * EVERY * split.batch // len(split.train.y)
        return Fitted(marginal(mixture.eval()), epochs + more, seconds + time.process_time() - start)

    return fitted


def _wandered(network: Regression, split: Split, seed: int) -> Snapshots:
    kept, optimiser = Snapshots(RANK), optimiser_of(network, RATE)
    network.train()
    for step, part in enumerate(itertools.islice(_batches(split, seed), SNAPSHOTS * EVERY), 1):
        optimiser.zero_grad()
        negative_log_likelihood(network, part, len(split.train.y)).backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimiser.step()
        if step % EVERY == 0:
            kept.add(parameters_to_vector(network.parameters()))
    return kept


def _batches(split: Split, seed: int) -> Iterator[Part]:
    """Without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from batches(split, generator)
