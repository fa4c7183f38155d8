"""Encoders of one kind that are trained together and know nothing of each other."""

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.func import functional_call, vmap

from qtorch.distributions.checks import require
from qtorch.nn import Block, MemoryBlock, Recurrence, afresh, member_of, stacked, windows_of


class EncoderEnsemble(nn.Module):
    """K encoders with weights of their own, as one: the members of a deep ensemble, or draws from a posterior.

    Each member's hidden states are those that it would give alone; `torch.func.vmap` evaluates all of them with
    stacked weights. The GRUs of `Recurrent` run step by step together, which on CPUs is the gain. Encoders with
    attention run one after another: its fused kernel has no rule for vmap on CPUs, and a large product gains nothing
    by being one of a stack. Dropout and noise differ between members, so that all see other data.
    `qtorch.heads.Ensemble` or `EachDraw` makes forecasts of the K hidden states.

    Args:
        encoder: of either layout. The first member has its weights; the others are drawn from torch's generator, as a
            fresh encoder's are.
        members: K.
        chunk: members that are evaluated at once, fewer take less memory; None is all, or 1 where there is attention.

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
    encoder: Any

    def __init__(self, encoder: nn.Module, members: int, chunk: int | None = None) -> None:
        super().__init__()
        require(members >= 1, "members", members, "give the number of encoders, such as 5")
        self.members, self.chunk = members, chunk
        self.encoder = stacked([encoder, *(afresh(encoder) for _ in range(members - 1))])
        attention = any(isinstance(part, Block | MemoryBlock | nn.MultiheadAttention) for part in encoder.modules())
        self._at_once = 1 if attention else members
        for part in self.encoder.modules():
            if isinstance(part, Recurrence):
                part.whole = True

    @property
    def draws(self) -> int:
        """Hidden states of a place, K."""
        return self.members

    @property
    def layout(self) -> str:
        """As of the encoder."""
        return getattr(self.encoder, "layout", "asset")

    @property
    def causal(self) -> bool:
        """As of the encoder."""
        return getattr(self.encoder, "causal", True)

    @property
    def in_features(self) -> int | None:
        """As of the encoder, if it says."""
        return getattr(self.encoder, "in_features", None)

    @property
    def context(self) -> int | None:
        """As of the encoder, if it has one."""
        return getattr(self.encoder, "context", None)

    @property
    def out_features(self) -> int:
        """The hidden width `D`."""
        return self.encoder.out_features

    def forward(
        self, inputs: Float[Tensor, "B C *N F"], mask: Bool[Tensor, "B C *N"]
    ) -> Float[Tensor, "B c *N {self.members} D"]:
        """Hidden states of every member at every position, or at the last alone as of the encoder."""

        def hidden_of(parameters: dict[str, Tensor]) -> Tensor:
            return functional_call(self.encoder, parameters, (inputs, mask))

        weights = dict(self.encoder.named_parameters())
        if (self._at_once if self.chunk is None else self.chunk) == 1:
            of_each = zip(*(value.unbind() for value in weights.values()), strict=True)
            return torch.stack([hidden_of(dict(zip(weights, own, strict=True))) for own in of_each], dim=-2)
        return vmap(hidden_of, randomness="different", chunk_size=self.chunk)(weights).movedim(0, -2)

    def last_of(
        self, inputs: Float[Tensor, "Q F"], mask: Bool[Tensor, " Q"], place: Int64[Tensor, " W"], context: int
    ) -> Float[Tensor, "W {self.members} D"]:
        """Hidden states of the last position of windows that overlap; arguments as of `Recurrent.last_of`.

        Member after member where the encoder has such a method, which is not made for several at once.
        """
        if not callable(getattr(self.encoder, "last_of", None)):
            return self(windows_of(inputs, place, context), windows_of(mask, place, context))[:, -1]
        each = [self.member(k).last_of(inputs, mask, place, context) for k in range(self.members)]
        return torch.stack(each, dim=-2)

    def member(self, index: int) -> Any:
        """One of the encoders, by itself; its weights are views of the ensemble's, without their gradient."""
        return member_of(self.encoder, index)
