"""Encoders of one kind that are trained together and know nothing of each other."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from qtorch.distributions.checks import require
from qtorch.models.several_states import SeveralStates
from qtorch.nn import afresh, each_of, member_of, run_together, stacked, windows_of


class EncoderEnsemble(SeveralStates):
    """K encoders with weights of their own, as one: the members of a deep ensemble, or draws from a posterior.

    Each member's hidden states are those that it would give alone; `torch.func.vmap` evaluates all of them with
    stacked weights. The GRUs of `Recurrent` run step by step together, which on CPUs is the gain; attention sees the
    members' windows as one batch. Dropout and noise differ between members, so that all see other data.
    `qtorch.heads.Ensemble` or `EachDraw` makes forecasts of the K hidden states.

    Args:
        encoder: of either layout. The first member has its weights; the others are drawn from torch's generator, as a
            fresh encoder's are.
        members: K.
        chunk: members that are evaluated at once, fewer take less memory; None is all.

    Raises:
        TypeError: the encoder does not keep its arguments, so that no other can be made like it.
        ValueError: there are fewer than one member, or the encoder has buffers in its state, such as a batch norm's.

    References:
        Lakshminarayanan, Pritzel and Blundell (2017), Simple and scalable predictive uncertainty estimation using deep
        ensembles, NeurIPS.

    Example:
        >>> from qtorch.models import Recurrent
        >>> five = EncoderEnsemble(Recurrent(3, width=8), 5)
        >>> five(torch.zeros(2, 16, 3), torch.ones(2, 16, dtype=torch.bool)).shape
        torch.Size([2, 16, 5, 8])
    """

    stacked: ClassVar[bool] = True

    def __init__(self, encoder: nn.Module, members: int, chunk: int | None = None) -> None:
        require(members >= 1, "members", members, "give the number of encoders, such as 5")
        super().__init__(stacked([encoder, *(afresh(encoder) for _ in range(members - 1))]), members)
        self.members, self.chunk = members, chunk
        run_together(self.encoder)

    @classmethod
    def of(cls, encoders: Sequence[nn.Module], chunk: int | None = None) -> "EncoderEnsemble":
        """Given encoders of one class and its arguments, at least one, as members; these are copied.

        Raises:
            ValueError: the encoders differ in their parameters' names or shapes, or have buffers in their state.
        """
        ensemble = cls(encoders[0], 1, chunk)
        ensemble.encoder = stacked(encoders)
        run_together(ensemble.encoder)
        ensemble._draws = ensemble.members = len(encoders)
        return ensemble

    def forward(
        self, inputs: Float[Tensor, "B C *N F"], mask: Bool[Tensor, "B C *N"]
    ) -> Float[Tensor, "B c *N {self.members} D"]:
        """Hidden states of every member at every position, or at the last alone as of the encoder."""
        return each_of(self.encoder, dict(self.encoder.named_parameters()), (inputs, mask), self.chunk)

    @property
    def shares(self) -> bool:
        """Whether windows share the work of their common sessions in `last_of`: they do where a member's do."""
        return getattr(self.encoder, "shares", False)

    def last_of(
        self, inputs: Float[Tensor, "Q F"], mask: Bool[Tensor, " Q"], place: Int64[Tensor, " W"], context: int
    ) -> Float[Tensor, "W {self.members} D"]:
        """Hidden states of the last position of windows that overlap; arguments as of `Recurrent.last_of`.

        Member after member where the encoder shares work among windows, which is not made for several at once.
        """
        if not self.shares:
            return self(windows_of(inputs, place, context), windows_of(mask, place, context))[:, -1]
        each = [self.member(k).last_of(inputs, mask, place, context) for k in range(self.members)]
        return torch.stack(each, dim=-2)

    def member(self, index: int) -> Any:
        """One of the encoders, by itself; its weights are views of the ensemble's, without their gradient."""
        return member_of(self.encoder, index)
