"""Posteriors of the last layer of a trained network: Laplace's approximation, Langevin dynamics, and SNGP."""

import time

import torch
from torch import Tensor
from torch.distributions import Distribution

from benchmarks.regression.data import Split
from benchmarks.regression.heads import RegressionHead
from benchmarks.regression.method import Fit, Fitted, marginal
from benchmarks.regression.networks import Layers, Regression
from benchmarks.regression.points import DRAWS, MEMBERS, alone, together
from benchmarks.regression.training import fit
from qtorch.distributions import take
from qtorch.heads import DrawnWeights
from qtorch.heads.gaussian_weights import antithetic
from qtorch.models import DistanceAware
from qtorch.training import SGLD, Laplace
from qtorch.training.last_layer import LastLayer, affine_map
from qtorch.training.last_layer_sampling import sampled


def laplace(head: type[RegressionHead]) -> Fit:
    """Laplace's approximation around the network alone."""

    def fitted(split: Split, seed: int) -> Fitted:
        network, epochs, seconds = alone(split, 1000 * seed, head)
        start = time.process_time()
        predict = marginal(around(network, split))
        return Fitted(predict, epochs, seconds + time.process_time() - start)

    return fitted


def laplace_members(head: type[RegressionHead]) -> Fit:
    """A mixture of Laplace's approximations, each around a member of an ensemble."""

    def fitted(split: Split, seed: int) -> Fitted:
        start = time.process_time()
        network, epochs = together(split, 1000 * seed, head)
        each = [Regression(network.encoder.member(k), network.head.member(k)) for k in range(MEMBERS)]
        posteriors = [around(member, split) for member in each]

        def predict(x: Tensor) -> Distribution:
            draws = zip(*(posterior.parameters_of(x) for posterior in posteriors), strict=True)
            return take(posteriors[0].head.distribution(*(torch.cat(part, -1) for part in draws)), (slice(None), 0))

        return Fitted(predict, epochs, time.process_time() - start)

    return fitted


def langevin(head: type[RegressionHead]) -> Fit:
    """Draws of the last layer's posterior under the prior scale that `laplace` takes."""

    def fitted(split: Split, seed: int) -> Fitted:
        network, epochs, seconds = alone(split, 1000 * seed, head)
        start = time.process_time()
        data = _seen(network, split)
        scale = Laplace.of(network.head, data, "diagonal").prior_scale
        settings = {"batch_size": 1024, "burn_in": 500, "thin": 25, "draws": DRAWS, "seed": seed}
        chain = sampled(network.head, data, SGLD(preconditioner="diagonal"), prior_scale=scale, **settings)
        predict = marginal(_drawn(network, chain - affine_map(network.head)))
        return Fitted(predict, epochs, seconds + time.process_time() - start)

    return fitted


def distance_aware(head: type[RegressionHead]) -> Fit:
    """Laplace's approximation over random features of a body that keeps distances."""

    def fitted(split: Split, seed: int) -> Fitted:
        start = time.process_time()
        torch.manual_seed(1000 * seed)
        body = DistanceAware(Layers(split.train.x.shape[1]), seed=seed)
        network = Regression(body, head(body.out_features))
        epochs = fit(network, split, 1000 * seed)
        return Fitted(marginal(around(network, split)), epochs, time.process_time() - start)

    return fitted


def _seen(network: Regression, split: Split) -> LastLayer:
    with torch.no_grad():
        hidden, y = network.hidden(split.train.x), split.train.y.unsqueeze(-1)
    return LastLayer(hidden, y, torch.ones_like(y))


def _drawn(network: Regression, offsets: Tensor) -> Regression:
    drawn = DrawnWeights(network.head, len(offsets))
    drawn.offsets.copy_(offsets)
    return Regression(network.encoder, drawn)


def around(network: Regression, split: Split) -> Regression:
    """Draws of Laplace's approximation, with the prior scale of the highest evidence."""
    posterior = Laplace.of(network.head, _seen(network, split))
    generator = torch.Generator().manual_seed(0)
    noise = antithetic(DRAWS, *posterior.curvature.shape, generator).to(posterior.weights)
    return _drawn(network, posterior.moved(noise))
