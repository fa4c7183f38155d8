"""Whether a head's law is in its parameters alone, so that it can be made without the head's weights."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from qtorch.deploy.program import Program
from qtorch.nn import build, describe
from qtorch.training import Forecaster

_AT = (-2.0, -0.3, 0.1, 1.5)  # of standardised returns


@torch.no_grad()
def law_in_parameters(model: Forecaster, program: Program) -> bool:
    """Whether a fresh head, of other weights, makes the same law of the same parameters.

    A `CouplingFlowHead` and an `AttentionalCopulaHead` do not: their laws evaluate networks.
    """
    network = model.network
    sizes = {letter: size for letter, size in zip("BCN", (2, 4, 3), strict=True) if letter in program.letters}
    inputs, mask = program.example(**sizes)[:2]
    parameters = network(inputs, mask)
    packages = tuple({type(module).__module__.split(".")[0] for module in network.head.modules()})
    with torch.random.fork_rng(devices=[]):
        fresh = build(describe(network.head), allow=packages).to(inputs.device).eval()
    mine, other = (_densities(head, parameters, mask, network.joint) for head in (network.head, fresh))
    return torch.equal(mine, other)


def _densities(head: torch.nn.Module, parameters: tuple[Tensor, ...], mask: Tensor, joint: bool) -> Tensor:
    if joint:
        parameters = tuple(parameter.transpose(1, 2) for parameter in parameters)  # horizons before assets
    law: Distribution = head.distribution(*parameters)  # type: ignore[operator]
    shape = (*law.batch_shape, *law.event_shape)
    if not joint:
        return torch.stack([law.log_prob(torch.full(shape, at, device=mask.device)) for at in _AT])
    there = mask[:, -1].unsqueeze(1).expand(shape)
    return torch.stack([law.log_prob(torch.full(shape, at, device=mask.device), there) for at in _AT])  # type: ignore[call-arg]
