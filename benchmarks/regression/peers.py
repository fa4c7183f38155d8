"""Other libraries' posteriors of a last layer, on the same network and by the same training loop."""

import time

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from benchmarks.regression.data import Part, Split
from benchmarks.regression.method import Fit, Fitted
from benchmarks.regression.networks import WIDTH, Layers
from benchmarks.regression.points import DRAWS
from benchmarks.regression.training import fit
from qtorch.distributions import Mixture, StudentT


def laplace_torch(split: Split, seed: int) -> Fitted:
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


def vbll_layer(kind: str) -> Fit:
    """A variational last layer of vbll."""

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


def _mean(split: Split, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(Layers(split.train.x.shape[1]).layers, nn.Linear(WIDTH, 1))
