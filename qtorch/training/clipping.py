"""Gradient clipping of ensembles, whose members must not feel each other's gradients."""

import torch
from torch import nn

from qtorch.nn import stacked_parameters


def clip_members(module: nn.Module, norm: float) -> bool:
    """Clips the norm of each member's gradients, and by itself that of what members share.

    The loss is the mean over K members, so a member's gradients are 1/K of those that it would have alone, and are
    clipped at 1/K of the norm: each member takes the steps that it would take alone.

    Args:
        module: with its gradients.
        norm: at most, of a module alone.

    Returns:
        Whether it has members; if not, nothing is done.
    """
    together = [value for value in stacked_parameters(module) if value.grad is not None]
    if not together:
        return False
    gradients = [value.grad for value in together if value.grad is not None]
    K = gradients[0].shape[0]
    squares = torch.stack([gradient.flatten(1).float().square().sum(1) for gradient in gradients])
    factor = (norm / K / (squares.sum(0).sqrt() + 1e-6 / K)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.to(gradient.dtype).view(K, *[1] * (gradient.ndim - 1)))
    members = {id(value) for value in together}
    nn.utils.clip_grad_norm_([value for value in module.parameters() if id(value) not in members], norm)
    return True
