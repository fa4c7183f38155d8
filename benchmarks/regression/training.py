"""The loss and the training loop of all methods."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.regression.data import Part, Split
from benchmarks.regression.networks import Together
from qtorch import heads
from qtorch.distributions import Posterior
from qtorch.nn import stacked_parameters
from qtorch.risk import log_score
from qtorch.training.clipping import clip_members
from qtorch.training.optimisation import parameter_groups

RATE, DECAY, CLIP = 2e-3, 1e-4, 5.0


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
    optimiser = optimiser_of(network, RATE, decay)
    rows, epoch = len(split.train.y), 0
    best, worse = torch.tensor(torch.inf), torch.tensor(0)
    kept = {name: value.detach().clone() for name, value in network.named_parameters()}
    for epoch in range(1, split.epochs + 1):  # noqa: B007 - how far it came is returned
        network.train()
        for part in batches(split, generator):
            optimiser.zero_grad()
            loss(network, part, rows).backward()
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


def optimiser_of(network: nn.Module, rate: float, decay: float = DECAY) -> torch.optim.AdamW:
    """AdamW, which decays matrices without a prior."""
    decayed, others = parameter_groups(network)
    return torch.optim.AdamW([{"params": decayed}, {"params": others, "weight_decay": 0.0}], rate, weight_decay=decay)


def batches(split: Split, generator: torch.Generator) -> Iterator[Part]:
    """The training rows of an epoch, in a new order."""
    for at in torch.randperm(len(split.train.y), generator=generator).split(split.batch):
        yield Part(split.train.x[at], split.train.y[at])
