"""A head of its own for each member of an ensemble."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions import Posterior
from qtorch.distributions.checks import require
from qtorch.heads.drawn_weights import equally_likely
from qtorch.heads.parametric import Parameters, Parametric
from qtorch.nn.members import afresh, member_of, stacked


class Ensemble(nn.Module):
    """K heads, which map hidden states to the mixture of their laws with equal weights.

    Each member reads a hidden state of its own, of an encoder such as `qtorch.models.EncoderEnsemble`, or all read the
    one of a single encoder. The mixture is what is forecast, and parameters are never averaged; in training a
    `Forecaster` scores member by member.

    Members' weights are `[K, out, D]`. The first has the head's, others are fresh ones'. Heads start at zeros, which on
    one hidden state would keep all members alike for ever: there the weights of each member that are all 0 are drawn
    from a normal law with standard deviation 0.1 / sqrt(D), so that the raw numbers of a hidden state of unit size have
    one of 0.1, close to the start of a single head.

    Args:
        head: a parametric head, such as `SkewedStudentT`.
        members: K.
        shared: whether all members read one hidden state.

    Raises:
        TypeError: the head is not parametric.
        ValueError: there are fewer than one member.

    References:
        Lakshminarayanan, Pritzel and Blundell (2017), Simple and scalable predictive uncertainty estimation using deep
        ensembles, NeurIPS.

    Example:
        >>> from qtorch.heads import SkewedStudentT
        >>> Ensemble(SkewedStudentT(8, [1, 5]), 5)(torch.zeros(3, 5, 8)).batch_shape
        torch.Size([3, 2])
    """

    stacked: ClassVar[bool] = True
    head: Any

    def __init__(self, head: nn.Module, members: int, shared: bool = False) -> None:
        super().__init__()
        if not isinstance(head, Parametric):
            raise TypeError(
                f"an Ensemble is of parametric heads, such as SkewedStudentT, and a {type(head).__name__} is none. For "
                "other univariate heads, give EachDraw(head), or mix forecasters by qtorch.training.Ensemble."
            )
        require(members >= 1, "members", members, "give the number of heads, such as 5")
        self.members, self.shared = members, shared
        self.head = stacked([head, *(afresh(head) for _ in range(members - 1))])
        weight = self.head.project.weight
        if shared:
            with torch.no_grad():
                zero = (weight == 0).all(-1).all(-1)[:, None, None]
                weight.copy_(torch.where(zero, torch.randn_like(weight) * 0.1 / head.in_features**0.5, weight))

    @classmethod
    def of(cls, given: Sequence[nn.Module]) -> "Ensemble":
        """Given heads of one class and its arguments, at least one, as members; these are copied.

        Raises:
            TypeError: the heads are not parametric.
            ValueError: the heads differ in their parameters' names or shapes.
        """
        ensemble = cls(given[0], 1)
        ensemble.head, ensemble.members = stacked(given), len(given)
        return ensemble

    @property
    def draws(self) -> int:
        """Hidden states that it reads, K."""
        return self.members

    @property
    def in_features(self) -> int:
        """Hidden width `D`."""
        return self.head.in_features

    @property
    def horizons(self) -> tuple[int, ...]:
        """In sessions."""
        return self.head.horizons

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tensors of `parameters_of`, in their order."""
        return self.head.names

    def parameters_of(self, hidden: Float[Tensor, "*batch D"]) -> Parameters:
        """Tensors of the laws' parameters, each `[*batch, H, K, ...]`.

        Args:
            hidden: `[*batch, K, D]`, or `[*batch, D]` where members share it.
        """
        # Members first, as vmap left them, so that each has its part of memory to itself.
        given = hidden.expand(self.members, *hidden.shape) if self.shared else hidden.movedim(-2, 0)
        batch = given.shape[1:-1]
        weight, bias = self.head.project.weight, self.head.project.bias
        raw = torch.baddbmm(bias.unsqueeze(1), given.reshape(self.members, -1, given.shape[-1]), weight.mT)
        laws = self.head.constrain(raw.float().view(self.members, *batch, len(self.horizons), self.head.size))
        return tuple(value.movedim(0, len(batch) + 1) for value in laws)

    def distribution(self, *parameters: Tensor) -> Posterior:
        """The mixture of parameters as `parameters_of` gives them, batch shape `[*batch, H]`."""
        return equally_likely(self.head.distribution(*parameters), parameters[0])

    def forward(self, hidden: Float[Tensor, "*batch D"]) -> Posterior:
        """The mixture of the members' laws of standardised returns, batch shape `[*batch, H]`."""
        return self.distribution(*self.parameters_of(hidden))

    def member(self, index: int) -> Any:
        """One of the heads, by itself; its weights are views of the ensemble's, without their gradient."""
        return member_of(self.head, index)
