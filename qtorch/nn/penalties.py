"""Modules that have a penalty of their own, which training adds to the loss."""

from collections.abc import Iterator

from torch import nn


def penalized(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules in a module, itself among them, that have a method `penalty`.

    It returns, in nats and for all training data together, what a loss that is a mean over the data lacks, such as the
    divergence of a variational posterior from its prior. A module answers for those inside it.

    Example:
        >>> [type(part).__name__ for part in penalized(nn.Sequential(nn.Linear(2, 2)))]
        []
    """
    if callable(getattr(module, "penalty", None)):
        yield module
        return
    for part in module.children():
        yield from penalized(part)
